# SPDX-License-Identifier: GPL-2.0-or-later
"""Sources and images are read in a child process that can touch nothing (vmm/sandbox/child.py), with limits.

What comes back is JSON, which is taken apart here and checked: the child has read what a stranger wrote. An error comes
back as an error. Of a program that the cache has nothing is assembled, and none of this is imported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from vmm.asm.program import Line, Program
from vmm.errors import HostError, ImageError, PayloadError, UsageError, VmmError
from vmm.sandbox.child import apart

ERRORS: Mapping[str, type[VmmError]] = {
    each.__name__: each for each in (PayloadError, UsageError, ImageError, HostError)
}
ASSEMBLING = 60
"""Seconds of CPU time. The largest payload that comes with pyvmm takes a second of it."""
READING = 30
FIELDS = ("text", "hint", "file", "line", "column", "row")


def assembled(make: Callable[[], Program], file: str) -> Program:
    """What `make` gives, which assembles the text of `file`, made in a child.

    Raises:
        VmmError: as `make` does.
        PayloadError: it came to a limit, or ended its process; one line says which.
    """
    doing = "assembling it"
    _engines()  # here, so that every further child has them from its start
    data = apart(lambda: _told(lambda: _dumped(make())), doing, cpu=ASSEMBLING, file=file)
    made: Program = _taken(data, _loaded, doing, file)
    return made


def readable(read: Callable[[], object], file: str) -> None:
    """Call `read`, which takes the image `file` apart, in a child: what hangs, takes all memory, or crashes does it
    there.

    Raises:
        VmmError: as `read` does.
        PayloadError: it came to a limit, or ended its process; one line says which.
    """
    doing = "reading it as an image"

    def work() -> object:
        read()
        return None

    data = apart(lambda: _told(work), doing, cpu=READING, file=file)
    _taken(data, lambda made: None, doing, file)


def _engines() -> None:
    """Load what assembling needs, whatever the text is: it is dear, and ctypes, which loads keystone and capstone, may
    want more than the child keeps.
    """
    from vmm.abi import asm_constants
    from vmm.asm import disassembler, expand, keystone_engine, layout

    del expand, layout
    asm_constants()
    with suppress(HostError):  # one that is not there, the work itself will miss
        keystone_engine.knows("nop", 64)
        disassembler.decode(b"\x90", 0, 64)


def _told(work: Callable[[], object]) -> bytes:
    """In the child: what came of it, or the error."""
    try:
        return json.dumps({"made": work()}).encode()
    except VmmError as error:
        kind = next((name for name, each in ERRORS.items() if type(error) is each), "PayloadError")
        fields = {name: getattr(error, name) for name in FIELDS if hasattr(error, name)}
        return json.dumps({"error": kind, **fields}).encode()


def _taken(data: bytes, load: Callable[[Any], Any], doing: str, file: str) -> Any:
    try:
        told = json.loads(data)
        error = _error(told) if "error" in told else None
        made = load(told["made"]) if error is None else None
    except (ValueError, KeyError, TypeError, RecursionError, AttributeError) as problem:
        raise PayloadError(f"{doing}: the process that did it gave nothing of use: {problem}", file=file) from problem
    if error is not None:
        raise error
    return made


def _error(told: dict[str, Any]) -> VmmError:
    made = ERRORS[told["error"]]("")
    for name in FIELDS:
        if name in told:
            setattr(made, name, (int if name in ("line", "column") else str)(told[name]))
    made.args = (made.text,)
    return made


def _dumped(program: Program) -> dict[str, object]:
    lines = [(each.address, each.size, each.file, each.line, each.text, each.origin) for each in program.lines]
    return {"name": program.name, "base": program.base, "code": program.code.hex(), "symbols": program.symbols,
            "lines": lines, "constants": program.constants, "notes": program.notes}  # fmt: skip


def _loaded(made: dict[str, Any]) -> Program:
    lines = tuple(
        Line(int(address), int(size), str(file), int(line), str(text), str(origin))
        for address, size, file, line, text, origin in made["lines"]
    )
    return Program(
        str(made["name"]), int(made["base"]), bytes.fromhex(made["code"]), _numbers(made["symbols"]), lines,
        _numbers(made["constants"]), tuple(map(str, made["notes"])),
    )  # fmt: skip


def _numbers(table: dict[str, Any]) -> dict[str, int]:
    return {str(name): int(value) for name, value in table.items()}
