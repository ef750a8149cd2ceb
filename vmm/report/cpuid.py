# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUID as text and as JSON: raw rows, decoded leaves, one register's value explained bit by bit. Values in, text out.

No bit is dropped: one without a name appears as `bit 8`, a register without any as its number.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from vmm.abi import cpuid, pv
from vmm.abi.cpuid import FEATURES_LEAF, REGISTERS, CpuidEntry
from vmm.abi.cpuid_leaves import LEAVES, TEXT, fields
from vmm.errors import UsageError
from vmm.machine.x86.cpuid import CpuidModel
from vmm.report.columns import aligned, one_line
from vmm.report.style import Style

SCHEMA = 1
WIDTH = 116
GLUE = "\0"  # a space at which no line is broken
LONGEST = 10  # digits of a number of 32 bits, without leading zeros
SOURCES = {
    "supported": "KVM_GET_SUPPORTED_CPUID: what this KVM can offer to a guest",
    "guest": "KVM_GET_CPUID2: what a guest of pyvmm gets, vCPU 0",
    "emulated": "KVM_GET_EMULATED_CPUID: what KVM emulates though the CPU lacks it",
}
OFFERED_BY = {"kvm": "offered by KVM", "vmm": "offered by the VMM", "": "offered by nobody any more"}


def _facts_leaf(entry: CpuidEntry, features_leaf: int | None) -> int:
    """The leaf whose tables explain this entry: KVM's own may stand at another base."""
    if features_leaf is not None and entry.function in (features_leaf - 1, features_leaf):
        return FEATURES_LEAF - features_leaf + entry.function
    return entry.function


def raw(entries: Iterable[CpuidEntry]) -> str:
    """Hexadecimal rows in the manner of `cpuid -r`; they can be read back by its `-f`."""
    rows = [
        f"   {entry.function:#010x} {entry.index:#04x}: "
        + " ".join(f"{name}={getattr(entry, name):#010x}" for name in REGISTERS)
        for entry in entries
    ]
    return "\n".join(["CPU:", *rows]) + "\n"


def document(source: str, model: CpuidModel, leaf: int | None = None) -> dict[str, Any]:
    """Every entry decoded (schemas/cpuid.schema.json); of one leaf alone where it is named."""
    features_leaf = model.kvm_features_leaf()
    return {
        "schema": SCHEMA,
        "source": source,
        "vendor": model.vendor,
        "kvm_base": model.kvm_base(),
        "entries": [_entry(each, features_leaf) for each in model if leaf in (None, each.function)],
    }


def _entry(entry: CpuidEntry, features_leaf: int | None) -> dict[str, Any]:
    leaf = _facts_leaf(entry, features_leaf)
    registers = {}
    for register in REGISTERS:
        value = getattr(entry, register)
        found: dict[str, Any] = {"value": value}
        known = cpuid.in_register(leaf, entry.index, register)
        if known:
            found["features"] = [row.name for row in known if value & row.mask]
            found["unknown_bits"] = _bits(value & ~sum(row.mask for row in known))
        numbers = {row.what: value >> row.lo & (1 << row.width) - 1 for row in fields(leaf, entry.index, register)}
        if numbers:
            found["fields"] = numbers
        registers[register] = found
    return {
        "leaf": entry.function,
        "index": entry.index if entry.indexed else None,
        "flags": entry.flags,
        "title": LEAVES.get(leaf, ""),
        "text": _text(entry, leaf),
        **registers,
    }


def _text(entry: CpuidEntry, leaf: int) -> str:
    data = b"".join(getattr(entry, register).to_bytes(4, "little") for register in TEXT.get(leaf, ()))
    return one_line(data.decode("ascii", "replace").rstrip("\0"))


def _bits(value: int) -> list[int]:
    return [bit for bit in range(value.bit_length()) if value >> bit & 1]


def ranges(leaves: Iterable[int]) -> str:
    """`0x0-0x1c, 0x40000000-0x40000001` for a list of leaves."""
    runs: list[list[int]] = []
    for leaf in sorted(set(leaves)):
        if runs and leaf == runs[-1][-1] + 1:
            runs[-1].append(leaf)
        else:
            runs.append([leaf])
    return ", ".join(f"{run[0]:#x}" + (f"-{run[-1]:#x}" if len(run) > 1 else "") for run in runs)


def text(doc: dict[str, Any], style: Style) -> str:
    """The document for a person: a heading per leaf, a line per register that is not 0; empty leaves in one list."""
    lines = [style("dim", SOURCES[doc["source"]])]
    if not doc["entries"]:
        lines.append("no leaves: this list is empty")
    empty = []
    for entry in doc["entries"]:
        number = f"{entry['leaf']:#010x}" + ("" if entry["index"] is None else f".{entry['index']}")
        if not any(entry[register]["value"] for register in REGISTERS):
            empty.append(number)
            continue
        shown = f"  {entry['title']}" if entry["title"] else ""
        letters = f"  {entry['text']!r}" if entry["text"] else ""
        lines += ["", f"{style('head', number)}{shown}{letters}"]
        lines += [line for register in REGISTERS for line in _register(register, entry[register], style)]
    if empty:
        lines += ["", *textwrap.wrap(f"all registers 0: {', '.join(empty)}", WIDTH, subsequent_indent="  ")]
    return "\n".join(lines) + "\n"


def _register(name: str, found: dict[str, Any], style: Style) -> Iterator[str]:
    if not found["value"]:
        return
    words = [f"{what} = {value}" + (f" ({value:#x})" if value > 9 else "") for what, value in _shown(found)]
    words += found.get("features", ())
    words += [f"bit {bit}" for bit in found.get("unknown_bits", ())]
    separator = ", " if _shown(found) else " "
    whole = separator.join(word.replace(" ", GLUE) for word in words)
    lines = textwrap.wrap(whole, WIDTH - 18, break_long_words=False, break_on_hyphens=False) or [""]
    first, *rest = (line.replace(GLUE, " ") for line in lines)
    yield f"  {style('name', name)} {found['value']:#010x}  {first}".rstrip()
    yield from (f"{' ' * 18}{line}" for line in rest)


def _shown(found: dict[str, Any]) -> list[tuple[str, int]]:
    return list(found.get("fields", {}).items())


# One value of KVM's feature leaf ----------------------------------------------------------------------------------


def parse_value(word: str) -> int:
    """`0x01007afb` or `16808699` as a number.

    Raises:
        UsageError: it is no number of 32 bits, with what to write instead.
    """
    plain = word.strip().lower()
    digits = plain.removeprefix("0x").lstrip("0")
    if re.fullmatch(r"0x[0-9a-f]+|[0-9]+", plain):
        value = int(digits or "0", 16 if plain.startswith("0x") else 10) if len(digits) <= LONGEST else 1 << 32
    else:
        hexadecimal = re.fullmatch(r"([0-9a-f]+)h?", plain)
        hint = f"0x{hexadecimal[1]}, if it is hexadecimal" if hexadecimal else ""
        raise UsageError(f"'{one_line(word)[:40]}' is no number; write 0x01007afb or 16808699", hint)
    if value >> 32:
        raise UsageError(f"{one_line(word)[:40]} does not fit in 32 bits, and a CPUID register has no more")
    return value


def decode(value: int, register: str) -> dict[str, Any]:
    """What the bits of EAX or EDX of leaf 0x40000001 mean; set bits without a name too, and known bits not set."""
    known = {row.bit: row for row in pv.FEATURES if row.register == register}
    return {
        "schema": SCHEMA,
        "leaf": FEATURES_LEAF,
        "register": register,
        "value": value,
        "bits": [_bit(bit, known.get(bit)) for bit in _bits(value)],
        "clear": [row.name for row in known.values() if not value & row.mask],
    }


def _bit(bit: int, row: pv.Feature | None) -> dict[str, Any]:
    if row is None:
        return {"bit": bit, "name": None, "kernel_name": None, "meaning": "", "offered_by": None, "since": None}
    return {
        "bit": bit,
        "name": row.name,
        "kernel_name": row.kernel_name,
        "meaning": row.meaning,
        "offered_by": row.offered_by,
        "since": row.since,
    }


def decoded_text(doc: dict[str, Any], style: Style) -> str:
    """The explanation for a person, a line per bit."""
    value, register = doc["value"], doc["register"].upper()
    count = len(doc["bits"])
    lines = [
        f"{value:#010x} ({value}) in {register} of CPUID leaf {doc['leaf']:#x}, KVM's features: "
        f"{count} bit{'s' * (count != 1)} set"
    ]
    rows = [
        (f"bit {each['bit']}", each["name"] or "?", f"{each['meaning']} ({OFFERED_BY[each['offered_by']]})")
        if each["name"]
        else (f"bit {each['bit']}", "?", "unknown to pyvmm: no kernel it was made for gives this bit a meaning")
        for each in doc["bits"]
    ]
    lines += aligned(rows)
    if doc["clear"]:
        lines += textwrap.wrap(
            f"not set: {', '.join(doc['clear'])}", WIDTH, subsequent_indent="  ", break_on_hyphens=False
        )
    lines.append(style("dim", "`pyvmm explain NAME` says more of each"))
    return "\n".join(lines) + "\n"
