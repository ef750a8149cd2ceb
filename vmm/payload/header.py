# SPDX-License-Identifier: GPL-2.0-or-later
"""The header of a payload: the `;` lines at the top of an .asm file, as data (in C, `//` lines). It runs nothing.

    ; summary: one line for `pyvmm list`
    ; proves:  PV_SEND_IPI, PV_UNHALT          rows of `pyvmm probe` that it gives (only what comes with pyvmm)
    ; needs:   irqchip, cpus>=2, KVM_CAP_STEAL_TIME, STEAL_TIME
    ; machine: irqchip=split cpus=2 memory=4M timeout=5 start=all ring=3 output=64K
    ; user:    user_begin user_end            labels (page-aligned) of what ring 3 may touch
    ; ports:   0x80 0x3f8                      ports that ring 3 may use (the TSS's I/O bitmap)
    ; param:   count = 100    what it is       -> assembler constant PARAM_count
    ; result:  ticks   u64    what must hold   -> slot constant R_ticks, stored with `RESULT ticks`
    ; quirks:  FIX_HYPERCALL_INSN              quirks of KVM that are switched off
    ; enable:  KVM_CAP_X86_DISABLE_EXITS=0x2   capabilities that are enabled, with their arguments
    ; devices: ioapic, virtio_rng, virtio_blk=disk.img, virtio_net    devices that are there
    ; ends:    shutdown                        how the run is meant to end, where that is no exit port
    // cflags: -O0 -DDEBUG other.c             of a guest in C: more for the compiler, options and files

A line whose first word is no known key is a comment. Keys may repeat. A comment that was plainly meant as a header line
(a key misspelt, without its colon, or below the first line of code) is no error, and `notes` says so.
"""

from __future__ import annotations

from vmm.base.record import Record, field, replace
from vmm.errors import PayloadError, UsageError
from vmm.machine.ends import Why
from vmm.machine.machine import IRQCHIPS, Irqchip
from vmm.machine.memory.layout import REGIONS, RESULT_SLOT_SIZE, check_cpus, parse_size
from vmm.payload.options import check_timeout, fits_64_bits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

TYPES = ("u8", "u16", "u32", "u64", "i64", "bool")
PROSE = ("summary", "user", "proves")  # keys that begin a sentence as well: without a colon they are none
ALIKE = 0.75  # of difflib's ratio, from where a word is a key misspelt: `reslut` has 0.83, `note` and `needs` 0.44
MAX_PORT = 0xFFFF
CAP_ARGUMENTS = 4
DEVICES = ("ioapic", "hypercalls", "virtio_rng", "virtio_console", "virtio_blk", "virtio_net")  # made by equipment.py
MAX_RESULTS = REGIONS["results"].size // RESULT_SLOT_SIZE
ENDS = {
    "halt": Why.HALT,
    "shutdown": Why.SHUTDOWN,
    "fault": Why.GUEST_FAULT,
    "timeout": Why.TIME_LIMIT,
    "output": Why.OUTPUT_LIMIT,
}


class MissingResult(Exception):
    """The guest ended without storing a result that the host half needs."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the guest stored no result {name!r}")
        self.name = name


class ResultSlot(Record):
    """One declared result: its slot in the results page, its type, and what must hold."""

    name: str
    slot: int
    kind: str
    what: str

    @property
    def offset(self) -> int:
        """Bytes from the start of the results page."""
        return self.slot * RESULT_SLOT_SIZE


class Param(Record):
    """A number that the user may change with --param."""

    name: str
    default: int
    what: str


class Header(Record):
    """The header as values; defaults are those of a payload without one."""

    summary: str = ""
    capabilities: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    min_cpus: int = 1
    irqchip: Irqchip = "none"
    cpus: int = 1
    memory: int | None = None
    timeout: float | None = None
    output_limit: int | None = None
    start_all: bool = False
    ring: int = 0
    user: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    params: dict[str, Param] = field(default_factory=dict)
    results: dict[str, ResultSlot] = field(default_factory=dict)
    quirks: tuple[str, ...] = ()
    enable: tuple[tuple[str, tuple[int, ...]], ...] = ()
    devices: tuple[tuple[str, str], ...] = ()
    proves: tuple[str, ...] = ()
    ends: Why | None = None
    cflags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def asks(self) -> bool:
        """Whether it needs anything that not every host has."""
        return bool(self.capabilities or self.features or self.min_cpus > 1)

    def given(self, params: Mapping[str, int], payload: str) -> dict[str, int]:
        """Every declared parameter with its value: of `params`, else as the header says.

        Raises:
            UsageError: a given one is not declared.
        """
        for name in params:
            if name not in self.params:
                if not self.params:
                    raise UsageError(f"payload {payload} takes no parameters, and {name!r} was given")
                from vmm.base.names import unknown

                raise UsageError(unknown(f"parameter of {payload}", name, self.params))
        return {each.name: params.get(each.name, each.default) for each in self.params.values()}

    def constants(self, params: dict[str, int]) -> dict[str, int]:
        """What the header adds to the assembler's names: R_<result> slot offsets and PARAM_<param> values."""
        slots = {f"R_{name}": slot.offset for name, slot in self.results.items()}
        return slots | {f"PARAM_{name}": value for name, value in params.items()}


ASM, C = ";", "//"  # what a header line begins with, by language


def parse(text: str, file: str, mark: str = ASM) -> Header:
    """Read the header lines at the top of `text`; `mark` is what begins a comment there.

    Raises:
        PayloadError: a line is wrong; names file, line and what was expected.
    """
    header, notes = Header(), []
    settings: set[str] = set()  # of the machine, so far
    lines = text.splitlines()
    code = len(lines)  # index of the first line that is no comment
    for number, line in enumerate(lines, 1):
        stripped = line.strip()
        if stripped.startswith("#") and mark == ASM:  # a compiler's comment
            name, colon, value = (part.strip() for part in stripped.lstrip("# \t").partition(":"))
            if colon and name.lower() in KEYS and _reads(name.lower(), value):
                notes.append(f"{file}:{number}: `{stripped}` is a comment: a header line begins with `{mark}`")
            continue
        if stripped and not stripped.startswith(mark):
            code = number - 1
            break
        key, colon, value = stripped.lstrip(f"{mark} \t").partition(":")
        name = key.strip().lower()
        if colon and name in KEYS:
            try:
                if name == "machine":
                    _once(value, settings)
                header = _READERS[name](header, value.strip())
            except (ValueError, UsageError) as error:
                raise PayloadError(str(error), file=file, line=number, row=line.rstrip()) from error
        elif stripped and (meant := _meant(key, colon, mark)):
            notes.append(f"{file}:{number}: `{stripped}` is a comment: {meant}")
    for number, stripped in _below(lines, code, mark):
        notes.append(
            f"{file}:{number}: `{stripped}` is a comment: the header ends at the first line of code, line {code + 1}"
        )
    return replace(header, notes=tuple(notes)) if notes else header


def _meant(words: str, colon: str, mark: str) -> str:
    """Why a comment of the header is none of its lines, where one was meant; `words` are those before its colon."""
    if not colon:
        key, _, value = words.partition(" ")
        name = key.lower()
        if name in KEYS and name not in PROSE and _reads(name, value) and (name != "result" or _typed(value)):
            return f"write `{mark} {name}: ...`, with a colon"
        return ""
    near = _near(words.strip().lower())
    return f"did you mean `{near}`?" if near else ""


def _near(word: str) -> str:
    """The key that this is, misspelt; empty for a word of its own."""
    if not word.replace("_", "a").isalnum():
        return ""
    from difflib import get_close_matches  # only an unknown word before a colon pays for it

    return "param" if word.startswith("param") else next(iter(get_close_matches(word, KEYS, 1, ALIKE)), "")


def _below(lines: list[str], code: int, mark: str) -> Iterator[tuple[int, str]]:
    """(number, text) of the comments below the first line of code that could have been header lines."""
    for number, line in enumerate(lines[code:], code + 1):
        if ":" not in line or mark not in line:
            continue
        stripped = line.strip()
        key, _, value = stripped.lstrip(f"{mark} \t").partition(":")
        name = key.strip().lower()
        if stripped.startswith(mark) and name not in KEYS:
            name = _near(name)
        if stripped.startswith(mark) and name in KEYS and _reads(name, value.strip()):
            yield number, stripped


def _reads(name: str, value: str) -> bool:
    """Would it be a header line of that key?"""
    try:
        _READERS[name](Header(), value)
    except (ValueError, UsageError):
        return False
    return True


def _typed(value: str) -> bool:
    """`ticks u64 ...` and no sentence."""
    words = value.split(None, 2)
    return len(words) > 1 and words[1] in TYPES


def _number(text: str, what: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f"{what}: {text!r} is not a number (write 16, 0x10 or 0b10000)") from None


def _name(text: str, what: str) -> str:
    """The name itself, if the assembler can have it as part of a constant's."""
    if not (text.isascii() and text.isidentifier()):
        raise ValueError(f"{what}: {text!r} cannot be a name; use letters, digits and _")
    return text


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise ValueError(f"machine: timeout={text} is no number of seconds") from None
    return check_timeout(seconds)


def _summary(header: Header, value: str) -> Header:
    return replace(header, summary=value)


def _needs(header: Header, value: str) -> Header:
    from vmm.abi import caps, cpuid

    capabilities, features, cpus = list(header.capabilities), list(header.features), header.min_cpus
    for item in ">=".join(part.strip() for part in value.split(">=")).replace(",", " ").split():
        count = item.removeprefix("cpus>=")
        if count != item and count.isascii() and count.isdecimal() and len(count) < 10:
            cpus = int(count)
        elif ">" in item or "=" in item:
            raise ValueError(f"needs: {item!r} is no need; write cpus>=N, irqchip, KVM_CAP_..., or a CPUID feature")
        elif item.upper().startswith("KVM_CAP_"):
            if caps.find(item) is None:
                raise ValueError(f"needs: {caps.unknown(item)}")
            capabilities.append(item.upper().removeprefix("KVM_CAP_"))
        elif item == "irqchip":
            header = replace(header, irqchip="split" if header.irqchip == "none" else header.irqchip)
        else:
            feature = cpuid.find(item)
            if feature is None:
                raise ValueError(f"needs: {cpuid.unknown(item)}")
            features.append(feature.name)
    return replace(header, capabilities=tuple(capabilities), features=tuple(features), min_cpus=cpus)


def _once(value: str, settings: set[str]) -> None:
    """Note the settings of a machine line. ValueError for one that stands there already: the last would win unseen."""
    for key in (item.partition("=")[0] for item in value.split()):
        if key in settings:
            raise ValueError(f"machine: {key} stands there twice")
        settings.add(key)


def _machine(header: Header, value: str) -> Header:
    for item in value.split():
        key, equals, setting = item.partition("=")
        if not equals:
            raise ValueError(f"machine: {item!r} has no value; write key=value")
        match key:
            case "irqchip" if setting in IRQCHIPS:
                header = replace(header, irqchip=IRQCHIPS[setting])
            case "cpus":
                header = replace(header, cpus=check_cpus(_number(setting, "machine: cpus")))
            case "memory":
                header = replace(header, memory=parse_size(setting))
            case "timeout":
                header = replace(header, timeout=_seconds(setting))
            case "output":
                header = replace(header, output_limit=parse_size(setting))
            case "start" if setting in ("boot", "all"):
                header = replace(header, start_all=setting == "all")
            case "ring" if setting in ("0", "3"):
                header = replace(header, ring=int(setting))
            case _:
                raise ValueError(
                    f"machine: {item!r} is not a setting; there are irqchip=none|kernel|split, cpus=N, memory=SIZE, "
                    "timeout=SECONDS, output=SIZE, start=boot|all, ring=0|3"
                )
    return header


def _user(header: Header, value: str) -> Header:
    labels = tuple(value.split())
    if len(labels) != 2:
        raise ValueError("user: give two labels, the begin and the end")
    return replace(header, user=labels)


def _ports(header: Header, value: str) -> Header:
    ports = tuple(_number(item, "ports") for item in value.split())
    for port in ports:
        if not 0 <= port <= MAX_PORT:
            raise ValueError(f"ports: {port:#x} is no port; they go from 0 to {MAX_PORT:#x}")
    return replace(header, ports=header.ports + ports)


def _param(header: Header, value: str) -> Header:
    name, _, rest = value.partition("=")
    default, what = (*rest.split(None, 1), "", "")[:2]
    if not default or not _is_word(name.rstrip()):
        raise ValueError("param: write `name = value   what it is`")
    name = _name(name.rstrip(), "param")
    param = Param(name, _number(default, f"param {name}"), what.strip())
    if param.name in header.params:
        raise ValueError(f"param: {param.name} is declared twice")
    if not fits_64_bits(param.default):
        raise ValueError(f"param {param.name}: {default} does not fit in 64 bits")
    return replace(header, params=header.params | {param.name: param})


def _result(header: Header, value: str) -> Header:
    name, described = (*value.split(None, 1), "", "")[:2]
    kind, rest = (*described.split(None, 1), "", "")[:2]
    if not _is_word(name):
        raise ValueError("result: write `name  u64  what must hold`")
    if kind in TYPES:
        described = rest
    elif _like_a_type(kind):
        raise ValueError(f"result: {kind!r} is no type; there are u8, u16, u32, u64, i64 and bool")
    else:
        kind = "u64"
    if name in header.results:
        raise ValueError(f"result: {name} is declared twice")
    if len(header.results) == MAX_RESULTS:
        raise ValueError(f"result: the results page holds {MAX_RESULTS} slots")
    slot = ResultSlot(_name(name, "result"), len(header.results), kind, described)
    return replace(header, results=header.results | {slot.name: slot})


def _is_word(text: str) -> bool:
    """Letters, digits and _ of any script; what a name may be in full is `_name`'s to say."""
    return text.replace("_", "a").isalnum()


def _like_a_type(word: str) -> bool:
    return (
        (word[:1] in ("u", "i", "f") and word[1:2].isdigit())
        or word.rstrip("0123456789") in ("int", "uint")
        or word.startswith("bool")
    )


def _quirks(header: Header, value: str) -> Header:
    from vmm.abi import quirks

    names = value.replace(",", " ").split()
    for name in names:
        if quirks.find(name) is None:
            raise ValueError(f"quirks: {quirks.unknown(name)}")
    return replace(header, quirks=(*header.quirks, *names))


def _enable(header: Header, value: str) -> Header:
    """`KVM_CAP_A=1,2 KVM_CAP_B`: names with up to four numbers."""
    from vmm.abi import caps

    given = []
    for item in value.split():
        name, equals, arguments = item.rstrip(",").partition("=")
        row = caps.find(name)
        if row is None:
            raise ValueError(f"enable: {caps.unknown(name)}")
        if not row.enable:
            raise ValueError(f"enable: {row.kernel_name} says what KVM can, and is nothing to enable")
        numbers = tuple(_number(each, f"enable: {name}") for each in arguments.split(",")) if equals else ()
        if len(numbers) > CAP_ARGUMENTS or not all(0 <= each < 1 << 64 for each in numbers):
            raise ValueError(f"enable: {name} takes up to {CAP_ARGUMENTS} numbers of 64 bits")
        given.append((row.name, numbers))
    return replace(header, enable=(*header.enable, *given))


def _devices(header: Header, value: str) -> Header:
    given: list[tuple[str, str]] = []
    for item in value.replace(",", " ").split():
        name, equals, file = item.partition("=")
        if name not in DEVICES:
            raise ValueError(f"devices: {name!r} is none of {', '.join(DEVICES)}")
        if name == "virtio_net":
            _check_net(file or "" if equals else "none")
        elif bool(equals and file) != (name == "virtio_blk"):
            raise ValueError("devices: write virtio_blk=FILE, virtio_net or virtio_net=LINK; no other takes one")
        if name in dict(header.devices) or name in dict(given):
            raise ValueError(f"devices: {name} is there already")
        given.append((name, file))
    return replace(header, devices=(*header.devices, *given))


def _check_net(words: str) -> None:
    from vmm.machine.virtio.links.words import parse

    parse(words)


def _proves(header: Header, value: str) -> Header:
    """Names with a comma between two: one may be several words."""
    names = tuple(each.strip() for each in value.split(","))
    for name in names:
        if not name:
            raise ValueError("proves: write names of rows, with a comma between two")
        if name in header.proves or names.count(name) > 1:
            raise ValueError(f"proves: {name} stands there twice")
    return replace(header, proves=header.proves + names)


def _ends(header: Header, value: str) -> Header:
    if value not in ENDS:
        raise ValueError(f"ends: {value!r} is none of {', '.join(ENDS)}")
    return replace(header, ends=ENDS[value])


def _cflags(header: Header, value: str) -> Header:
    import shlex

    return replace(header, cflags=(*header.cflags, *shlex.split(value)))


_READERS = {
    "summary": _summary,
    "needs": _needs,
    "machine": _machine,
    "user": _user,
    "ports": _ports,
    "param": _param,
    "result": _result,
    "quirks": _quirks,
    "enable": _enable,
    "devices": _devices,
    "proves": _proves,
    "ends": _ends,
    "cflags": _cflags,
}
KEYS = tuple(_READERS)
