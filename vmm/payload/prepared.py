# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that has run before, printed and ended, as one file: its next plain run is a look at that and one call of C.

Most runs of a guest change nothing since the last one, and what they need of pyvmm is a line of text. So `prepare.py`
keeps what such a run began with, and of which files; here it begins with that again, without the assembler, headers and
machines, whose modules are nearly all of the time that pyvmm itself takes (row hello of the bench). Whatever is not as
it was, and whatever the guest does otherwise, is left to the long way, and nobody has seen anything of it by then.
"""

from __future__ import annotations

import marshal
import os
import sys
from _imp import source_hash

from vmm.base.cache_place import folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PACKAGE = os.path.dirname(os.path.dirname(__file__))
MAGIC = b"pyvmm-run-1\n"  # another number where another thing is kept
KEY = int.from_bytes(MAGIC[:8], "little")
SUM = 8  # bytes of `source_hash`: marshal does not promise to find damage


def place(name: str) -> str | None:
    """The file for what `pyvmm run NAME` runs, of this pyvmm and this Python. None: never prepared.

    Raises:
        OSError: no home directory is known, or no current folder.
    """
    if not name.isidentifier():
        if not name.endswith(".asm"):
            return None
        name = os.path.abspath(name)
    told = marshal.dumps((PACKAGE, sys.implementation.cache_tag, name), 2)
    return os.path.join(folder(), f"{source_hash(KEY, told).hex()}.run")


def load(file: str) -> dict[str, Any] | None:
    """What was prepared; None: nothing is there, or it is damaged."""
    try:
        with open(file, "rb", 0) as source:
            data = source.read()
    except OSError:
        return None
    begin = len(MAGIC) + SUM
    if data[: len(MAGIC)] != MAGIC or source_hash(KEY, data[begin:]) != data[len(MAGIC) : begin]:
        return None
    try:
        found: dict[str, Any] = marshal.loads(data[begin:])
    except (ValueError, EOFError, TypeError):
        return None
    return found


def run(name: str) -> dict[str, Any] | None:
    """Run it as it was prepared: its document, with `console` (bytes), `exits` by kind and `wall_ms` of this run. None:
    it is not, or did not end as before.
    """
    try:
        file = place(name)
    except (OSError, ValueError):
        return None
    one = file and load(file)
    if not one:
        return None
    try:
        from vmm.kvm import prepared
    except ImportError:
        return None  # not built: the long way says so
    ended = prepared.run(one["begin"], one) if prepared.unchanged(one["paths"], one["states"]) else None
    if ended is None:
        return None
    one["console"], exits, ns = ended
    last = dict(one["last"])  # the exit that ended it, where it is no write to a port
    writes = exits - sum(last.values())
    one["exits"] = dict(sorted((last | ({"PortOut": writes} if writes else {})).items()))
    one["wall_ms"] = ns / 1e6
    return one
