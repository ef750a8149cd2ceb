# SPDX-License-Identifier: GPL-2.0-or-later
"""`assemble(text)` and `assemble_file(path)`: source to `Program`, through the cache. It knows no instruction.

    rows        source.py      comments cut, includes joined
    statements  expand.py      macros, repetition, conditions unrolled
    program     layout.py      encoded by instruction.py and directives.py until no address moves

Intel syntax. A label is its address everywhere; `[label]` is the memory there. Numbers: 0x1f, 31, 0b11111, 0o37, 1fh.
"""

from __future__ import annotations

import os

from vmm.asm import cache as _cache
from vmm.asm import source
from vmm.asm.program import Program
from vmm.base.light import partial
from vmm.base.record import Record, replace
from vmm.errors import PayloadError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

VERSION = 2  # raise it when the same text gives other bytes, for whoever shares a cache between versions

_PACKAGE = os.path.dirname(os.path.dirname(__file__))
FOLDERS = tuple(os.path.join(_PACKAGE, name) for name in ("asm", "abi"))  # what every result depends on


class Facts(Record):
    """Names for every text of a caller, made when they are needed: making a thousand of them takes longer than asking
    for forty times. So `files` stand for them in the cache's key, beside those of this floor and of vmm.abi.
    """

    make: Callable[[], Mapping[str, int]]
    files: tuple[str, ...] = ()


def _abi_constants() -> Mapping[str, int]:
    from vmm.abi import asm_constants

    return asm_constants()


KERNEL = Facts(_abi_constants)
NONE = Facts(dict)


def assemble(
    text: str,
    *,
    name: str = "<text>",
    base: int,
    constants: Mapping[str, int] | None = None,
    facts: Facts | None = None,
    include_dirs: Sequence[Path | str] | None = None,
    cache: bool = True,
    apart: Callable[[Callable[[], Program]], Program] | None = None,
) -> Program:
    """Assembles `text` to run at `base`, a guest address below 2 GiB.

    `constants` are names the text may use, and `facts` more (default, without either: those of vmm.abi). The text's own
    definitions and labels win.
    `name` is what errors call the text; includes are looked for beside it, then in `include_dirs`. `apart` is given
    what assembles, and gives what that gives: so it may be done in another process. What the cache has is not.

    Raises:
        PayloadError: the text is wrong; with file, line and column.
        UsageError: `base` is no such address.
        HostError: keystone is missing and the cache does not help.
    """
    if not 0 <= base < 1 << 31:
        raise UsageError(f"base {base:#x}: a payload is assembled for an address from 0 to 0x7fffffff")
    folders = source.default_folders() if include_dirs is None else tuple(os.fspath(each) for each in include_dirs)
    rows = list(source.rows(text, name, folders))
    facts = facts or (KERNEL if constants is None else NONE)
    constants = constants or {}
    make = partial(_assemble, rows, name, base, facts, constants)
    if not cache:
        return apart(make) if apart else make()
    entry = _cache.key(
        (VERSION, _fingerprint(facts.files), name, base, [(row.file, row.line, row.text) for row in rows if row.text],
         getattr(facts.make, "__qualname__", ""), sorted(constants.items()))
    )  # fmt: skip
    program = _cache.load(entry)
    if program is None:
        program = apart(make) if apart else make()
        _cache.store(entry, program)
    return program


def assemble_file(
    path: Path | str,
    *,
    base: int,
    constants: Mapping[str, int] | None = None,
    include_dirs: Sequence[Path | str] | None = None,
    cache: bool = True,
) -> Program:
    """As `assemble`, for a file. Raises PayloadError when it cannot be read or is not UTF-8 text."""
    text = source.read_text(path)
    return assemble(text, name=str(path), base=base, constants=constants, include_dirs=include_dirs, cache=cache)


def _fingerprint(files: tuple[str, ...]) -> tuple[tuple[str, int, int], ...]:
    """Sizes and times of the modules that decide a result, so that edited ones never meet their old results."""
    found = []
    try:
        names = [os.path.join(folder, name) for folder in FOLDERS for name in sorted(os.listdir(folder))]
        for name in (*names, *files):
            if name.endswith(".py"):
                state = os.stat(name)
                found.append((name, state.st_size, state.st_mtime_ns))
    except OSError:  # imported from an archive
        return ()
    return tuple(found)


def _assemble(
    rows: list[source.Row],
    name: str,
    base: int,
    facts: Facts,
    constants: Mapping[str, int],
) -> Program:
    from vmm.asm.expand import Expander  # not needed when the cache has the program
    from vmm.asm.layout import lay_out

    known = {**facts.make(), **constants}
    expander = Expander(known.get)
    try:
        program = lay_out(expander.run(rows), name, base, known, expander.constants, expander.macros)
    except RecursionError:
        raise PayloadError("the source is nested too deeply to assemble", file=name) from None
    return replace(program, constants={**constants, **program.constants})
