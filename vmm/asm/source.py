# SPDX-License-Identifier: GPL-2.0-or-later
"""Source text as rows that know where they come from: comments cut, `%include` joined. It knows no instruction.

`;` starts a comment outside quotes. `%include "name"` is replaced by that file's rows; `name` is looked for beside the
including file, then in the include folders, as written and with `.inc` added.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vmm.abi.record import record
from vmm.errors import PayloadError

MAX_ROWS = 200_000  # after macros; a payload of a few hundred lines is large
MAX_ROW_LENGTH = 4096
MAX_INCLUDE_DEPTH = 32

_INCLUDE = re.compile(r"\s*%include\b\s*(.*)$", re.IGNORECASE)
_QUOTED = re.compile(r"""(["'])([^"'\x00]+)\1""")


@record
class Row:
    """One line of source without its comment. `uses` are the macro uses that made it, outermost first."""

    file: str
    line: int
    text: str
    uses: tuple[tuple[str, int, str], ...] = ()  # (file, line, macro)

    def error(self, what: str, column: int = 0) -> PayloadError:
        """The error to raise about this row; `column` counts from 1, 0 means the whole row."""
        if not column:
            column = len(self.text) - len(self.text.lstrip()) + 1
        trail = "; ".join(f"in {macro}, used at {file}:{line}" for file, line, macro in reversed(self.uses))
        what = f"{what} ({trail})" if trail else what
        return PayloadError(what, file=self.file, line=self.line, column=column, text=self.text)


def strip_comment(text: str) -> str:
    """The text before the first `;` that is not inside quotes, without trailing blanks."""
    quote = ""
    skip = False
    for at, char in enumerate(text):
        if skip:
            skip = False
        elif quote:
            if char == "\\":
                skip = True
            elif char == quote:
                quote = ""
        elif char in "\"'":
            quote = char
        elif char == ";":
            return text[:at].rstrip()
    return text.rstrip()


def _find(name: str, including: str, folders: Sequence[Path]) -> Path | None:
    beside = [Path(including).parent] if including and not including.startswith("<") else []
    for folder in (*beside, *folders):
        for candidate in (folder / name, folder / f"{name}.inc"):
            if candidate.is_file():
                return candidate
    return None


def default_folders() -> tuple[Path, ...]:
    """`guest_payloads/inc`, beside the package `vmm`."""
    return (Path(__file__).parents[2] / "guest_payloads" / "inc",)


def read_text(path: Path, error: type[PayloadError] = PayloadError) -> str:
    """The file's text. Raises PayloadError in words when it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as e:
        raise error(f"not a text file: byte {e.start:#x} is not UTF-8", file=str(path)) from None
    except OSError as e:
        raise error(f"cannot read the source: {e.strerror or e}", file=str(path)) from None


def rows(text: str, file: str, folders: Sequence[Path], _open: tuple[str, ...] = ()) -> Iterator[Row]:
    """Every row of the text, includes joined. Raises PayloadError for a missing, unreadable or circular include."""
    for number, raw in enumerate(text.splitlines(), 1):
        row = Row(file, number, strip_comment(raw))
        if len(row.text) > MAX_ROW_LENGTH:
            raise Row(file, number, row.text[:60] + "...").error(f"line longer than {MAX_ROW_LENGTH} characters")
        if "%" not in row.text or not (include := _INCLUDE.match(row.text)):
            yield row
            continue
        column = include.start(1) + 1
        quoted = _QUOTED.fullmatch(include[1])
        if not quoted:
            raise row.error('%include wants a name in quotes: %include "results"', column)
        found = _find(quoted[2], file, folders)
        if found is None:
            looked = ", ".join(str(folder) for folder in folders) or "no folder"
            raise row.error(f"include file {quoted[2]!r} not found (looked beside {file} and in {looked})", column)
        key = str(found.resolve())
        if key in _open or len(_open) >= MAX_INCLUDE_DEPTH:
            raise row.error(f"{quoted[2]!r} includes itself", column)
        yield from rows(read_text(found), _shown(found), folders, (*_open, key))


def _shown(path: Path) -> str:
    """The path as a person would write it: relative to the working directory where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)
