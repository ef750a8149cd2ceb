# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that a person's payload is made of: its text, what that includes, its host half. It assembles nothing.

Of an include that is not there every place is named where it would be looked for: to write it there changes the run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmm.asm.source import candidates, included, strip_comment
from vmm.payload.catalog import INCLUDES

MAX_FILES = 200  # of one payload
MAX_READ = 1 << 20  # bytes of one file that are looked at
_C_INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*"([^"\n]+)"', re.M)


def sources(file: str, cflags: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of files, the payload's own first; also such as do not exist yet. At most MAX_FILES.

    file: an .asm, .c or other payload. cflags: of its header, whose files and -I folders are a C guest's too.
    """
    suffix = Path(file).suffix.lower()
    if suffix not in (".asm", ".c"):
        return (file,)
    beside = Path(file).parent
    folders = [each[2:] for each in cflags if each.startswith("-I")]
    waiting = [file, *(str(beside / each) for each in cflags if not each.startswith("-"))]
    found: dict[str, None] = {}
    while waiting and len(found) < MAX_FILES:
        name = waiting.pop(0)
        if name in found:
            continue
        found[name] = None
        places = _in_c(name, folders) if suffix == ".c" else _in_assembly(name)
        waiting += (each for each in places if each not in found)
    return (*found, str(Path(file).with_suffix(".py")))


def _in_assembly(name: str) -> Iterator[str]:
    for line in _text(name).splitlines():
        wanted = included(strip_comment(line)) if "%" in line else None
        if wanted is not None and len(wanted) > 2:
            yield from _places(list(candidates(wanted[1:-1], name, (INCLUDES,))))


def _in_c(name: str, folders: Sequence[str]) -> Iterator[str]:
    for match in _C_INCLUDE.finditer(_text(name)):
        yield from _places([str(Path(folder, match[1])) for folder in (str(Path(name).parent), *folders)])


def _places(wanted: list[str]) -> list[str]:
    """The first that is there and those before it, which would win if they were; all, if none is."""
    there = next((number for number, each in enumerate(wanted) if _is_file(each)), len(wanted) - 1)
    return wanted[: there + 1]


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def _text(name: str) -> str:
    """What can be read of it as text; nothing, where it cannot: the run says why."""
    if not _is_file(name):
        return ""
    try:
        with Path(name).open("rb") as file:
            return file.read(MAX_READ).decode("utf-8", "replace")
    except OSError:
        return ""
