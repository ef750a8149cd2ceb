# SPDX-License-Identifier: GPL-2.0-or-later
"""The system's C compiler: which one, how it is called for a guest, and what it says. It knows no guest's header.

A guest has no C library, no vector registers (an interrupt handler saves none, and a host that emulates ring 0 has few
of their instructions), no red zone (an interrupt writes there) and a fixed address. Source of the options: GCC manual,
"x86 Options"; clang takes the same.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import guest_payloads
from vmm.errors import HostError, PayloadError, os_reason

SHIPPED = Path(guest_payloads.__file__).parent / "c"
COMPILERS = ("gcc", "clang", "cc")
PLACES = ("CODE_BASE", "CODE_SIZE")  # what pyvmm.ld is told
TIME_LIMIT = 60.0  # seconds; a guest of 400 KiB takes one
MAX_SAID = 1 << 20  # characters of the compiler's that are kept

FLAGS = (
    "-std=gnu17", "-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter",
    "-ffreestanding", "-fno-builtin-printf", "-nostdlib", "-static", "-no-pie", "-fno-pie", "-fno-pic",
    "-mcmodel=small",
    "-mno-red-zone", "-fcf-protection=none", "-fno-stack-protector", "-fno-asynchronous-unwind-tables",
    "-ffunction-sections", "-fdata-sections", "-fdiagnostics-color=never",
)  # fmt: skip
RING0_FLAGS = ("-mgeneral-regs-only",)
LINK_FLAGS = ("--gc-sections", "--build-id=none", "-z,noexecstack", "-z,max-page-size=0x1000", "--no-warn-rwx-segments")

BEYOND = (
    "the compiler may read the system's files, the source's folder, and what `cflags` name: -IFOLDER; "
    "`pyvmm docs sandbox#gcc`"
)
HINTS = (
    (r"undefined reference to [`']main'", "a guest begins with `int main(int cpu, int cpus)`: `pyvmm new NAME --c`"),
    (
        r"undefined reference to",
        "there is no C library: `pyvmm docs c#what-there-is`; a source of your own is named by `// cflags: other.c`",
    ),
    (
        r"SSE register|SSE disabled|-mgeneral-regs-only|-mno-sse",
        "`// machine: ring=3`: floating point is there, and not in ring 0",
    ),
    ("ermission denied", BEYOND),
)
"""What the compiler or its linker says -> what to try; the first that fits counts."""
_ERROR = re.compile(r"^(.+?):(\d+):(?:(\d+):)? (?:fatal )?error: (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Compiled:
    """The linked ELF file, and the compiler's warnings as it wrote them, a line each."""

    elf: bytes
    warnings: tuple[str, ...]


def compiler() -> list[str]:
    """The command: $CC, else the first of COMPILERS that is there.

    Raises:
        HostError: none is.
    """
    own = os.environ.get("CC")
    if own and own.strip():
        try:
            words = shlex.split(own)
        except ValueError as error:
            raise HostError(f"$CC is {own!r}, which is no command: {error}") from error
        if shutil.which(words[0]) is None:
            raise HostError(f"the compiler that $CC names, {words[0]}, is not there", hint="unset CC")
        return words
    for name in COMPILERS:
        if shutil.which(name):
            return [name]
    raise HostError(
        f"a guest in C needs a C compiler, and none of {', '.join(COMPILERS)} is here", hint="apt install gcc"
    )


def compile_guest(
    file: str,
    *,
    facts: str,
    base: int,
    size: int,
    ring: int = 0,
    more: Sequence[str] = (),
) -> Compiled:
    """Compile and link one C file with what pyvmm ships: code from `base`, at most `size` bytes with its .bss.

    facts: the text of pyvmm_facts.h. more: the author's own options and files, after ours.

    Raises:
        HostError: there is no compiler, or it cannot be run.
        PayloadError: it refuses the source; the text is the compiler's own.
    """
    cc = compiler()
    source = Path(file)
    with contextlib.ExitStack() as later:
        try:
            made = later.enter_context(_folder())
            _put_facts(made, facts)
        except OSError as error:
            raise HostError(
                f"compiling {file}: a temporary folder: {os_reason(error)}", hint="TMPDIR, a folder with room"
            ) from error
        linked = Path(made, "guest.elf")
        places = dict(zip(PLACES, (base, size), strict=True))
        command = [
            *cc, *FLAGS, *(RING0_FLAGS if ring == 0 else ()),
            f"-I{SHIPPED}", f"-I{made}", "-include", "pyvmm_facts.h",
            *_link_flags(cc, places), "-T", str(SHIPPED / "pyvmm.ld"),
            "-o", str(linked), f"./{file}" if file.startswith("-") else file,
            *(_found(each, source.parent) for each in more), str(SHIPPED / "runtime.c"), str(SHIPPED / "start.S"),
        ]  # fmt: skip
        status, said = _run(command, file, made, _read(source, more))
        if status:
            raise _refused(cc[0], file, said)
        if not linked.exists():
            raise HostError(
                f"compiling {file} with {cc[0]}: it ended without an error, and made nothing",
                hint="a C compiler in $CC (gcc, clang), or unset CC",
            )
        return Compiled(linked.read_bytes(), tuple(line for line in said.splitlines() if line.strip()))


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pyvmm-c-")


def _put_facts(made: str, facts: str) -> None:
    Path(made, "pyvmm_facts.h").write_text(facts)


def _link_flags(cc: Sequence[str], places: Mapping[str, int]) -> list[str]:
    flags = [each for each in LINK_FLAGS if each != "--no-warn-rwx-segments" or _linker_takes(cc, each)]
    return [f"-Wl,{each}" for each in (*flags, *(f"--defsym={name}={value:#x}" for name, value in places.items()))]


def _linker_takes(cc: Sequence[str], flag: str) -> bool:
    """Older linkers do not know that warning, nor its option."""
    try:
        said = subprocess.run([*cc, "-Wl,--help"], capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except (OSError, subprocess.SubprocessError):
        return False
    return flag in said.stdout


def _found(word: str, folder: Path) -> str:
    """A file of the author's is looked for beside the source, as its #include is."""
    return str(folder / word) if not word.startswith("-") and (folder / word).exists() else word


def _read(source: Path, more: Sequence[str]) -> list[str]:
    """Folders that it may read beside the system's: that of the source, and those that its author names."""
    named = [Path(_found(each.removeprefix("-I"), source.parent)) for each in more]
    return [str(each if each.is_dir() else each.parent) for each in (source.resolve(), *named) if each.exists()]


def _run(command: Sequence[str], file: str, made: str, read: Sequence[str]) -> tuple[int, str]:
    """Status and output. A compiler is several processes: they end together. It runs with what it needs and no more."""
    from vmm.sandbox.tool import confined

    give_up = confined(command[0], read=[str(SHIPPED), made, *read], write=[made], cpu=int(TIME_LIMIT))
    doing = f"compiling {file} with {command[0]}"
    said = Path(made, "said.txt")
    try:
        with (
            said.open("wb") as output,
            subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"TMPDIR": made},
                preexec_fn=give_up,
            ) as process,
        ):
            try:
                status = process.wait(TIME_LIMIT)
            except BaseException as error:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise PayloadError(f"{doing}: not done after {TIME_LIMIT:.0f} s", file=file) from error
                raise
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"{doing}: {os_reason(error)}") from error
    with said.open("rb") as text:
        return status, text.read(MAX_SAID).decode("utf-8", "replace")


def _refused(cc: str, file: str, said: str) -> PayloadError:
    first = _ERROR.search(said)
    what = f"{cc} refuses it:\n{said.rstrip()}" if said.strip() else f"{cc} refuses it, without a word"
    hint = next((hint for pattern, hint in HINTS if re.search(pattern, said)), "")
    if first is None:
        return PayloadError(what, hint, file=file)
    where, line, column, _ = first.groups()
    return PayloadError(what, hint, file=where, line=int(line), column=int(column or 0))
