# SPDX-License-Identifier: GPL-2.0-or-later
"""`assemble(text)` and `assemble_file(path)`: source to `Program`, through the cache. It knows no instruction.

    rows        source.py      comments cut, includes joined
    statements  expand.py      macros, repetition, conditions unrolled
    program     layout.py      encoded by instruction.py and directives.py until no address moves

Intel syntax. A label is its address everywhere; `[label]` is the memory there. Numbers: 0x1f, 31, 0b11111, 0o37, 1fh.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vmm.asm import cache as _cache
from vmm.asm import source
from vmm.asm.program import Program
from vmm.errors import PayloadError, UsageError

DEFAULT_BASE = 0x20000  # region `code` of vmm/machine/layout.py, which is above this floor
VERSION = 1  # raise it when the same text gives other bytes, for whoever shares a cache between versions

_PACKAGE = Path(__file__).parent


def assemble(
    text: str,
    *,
    name: str = "<text>",
    base: int = DEFAULT_BASE,
    constants: Mapping[str, int] | None = None,
    include_dirs: Sequence[Path | str] | None = None,
    cache: bool = True,
) -> Program:
    """Assembles `text` to run at `base`, a guest address below 2 GiB.

    `constants` are names the text may use (default: `vmm.abi.asm_constants()`); the text's own definitions and labels
    win over them. `name` is what errors call the text; includes are looked for beside it, then in `include_dirs`.
    Raises PayloadError with file, line and column; HostError when keystone is missing and the cache does not help.
    """
    if not 0 <= base < 1 << 31:
        raise UsageError(f"base {base:#x}: a payload is assembled for an address from 0 to 0x7fffffff")
    if constants is None:
        from vmm.abi import asm_constants

        constants = asm_constants()
    folders = source.default_folders() if include_dirs is None else tuple(Path(folder) for folder in include_dirs)
    rows = list(source.rows(text, name, folders))
    if not cache:
        return _assemble(rows, name, base, constants)
    entry = _cache.key(
        (VERSION, _fingerprint(), name, base, [(row.file, row.line, row.text) for row in rows if row.text],
         sorted(constants.items()))
    )  # fmt: skip
    program = _cache.load(entry)
    if program is None:
        program = _assemble(rows, name, base, constants)
        _cache.store(entry, program)
    return program


def assemble_file(
    path: Path | str,
    *,
    base: int = DEFAULT_BASE,
    constants: Mapping[str, int] | None = None,
    include_dirs: Sequence[Path | str] | None = None,
    cache: bool = True,
) -> Program:
    """As `assemble`, for a file. Raises PayloadError when it cannot be read or is not UTF-8 text."""
    text = source.read_text(Path(path))
    return assemble(text, name=str(path), base=base, constants=constants, include_dirs=include_dirs, cache=cache)


def _fingerprint() -> tuple[tuple[str, int, int], ...]:
    """Sizes and times of this package's modules, so that an edited assembler never meets its old results."""
    try:
        with os.scandir(_PACKAGE) as entries:
            found = [(e.name, e.stat().st_size, e.stat().st_mtime_ns) for e in entries if e.name.endswith(".py")]
    except OSError:  # imported from an archive
        return ()
    return tuple(sorted(found))


def _assemble(rows: list[source.Row], name: str, base: int, constants: Mapping[str, int]) -> Program:
    from vmm.asm.expand import Expander  # not needed when the cache has the program
    from vmm.asm.layout import lay_out

    expander = Expander(constants.get)
    try:
        return lay_out(expander.run(rows), name, base, constants, expander.constants, expander.macros)
    except RecursionError:
        raise PayloadError("the source is nested too deeply to assemble", file=name) from None
