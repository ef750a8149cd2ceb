# SPDX-License-Identifier: GPL-2.0-or-later
"""Source text as rows that know where they come from: comments cut, `%include` joined. It knows no instruction.

`;` starts a comment outside quotes, and `#` one at the start of a line or alone, as compilers write them.
`%include "name"` is replaced by that file's rows; `name` is looked for beside the including file, then in the include
folders, as written and with `.inc` added.
"""

from __future__ import annotations

import os

from vmm.base.record import Record
from vmm.errors import PayloadError, os_reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MAX_ROWS = 200_000  # after macros; a payload of a few hundred lines is large
MAX_ROW_LENGTH = 4096
MAX_INCLUDE_DEPTH = 32
MAX_SHOWN = 200  # characters of a row in an error
BEFORE_COMMENT = ("", " ", "\t", ",")  # gcc -fverbose-asm writes `push rbp #` and `sub rsp, 16 #,`; `#5` is no comment
SHOWN_USES = 3  # macro uses that an error names from either end of a long chain

INCLUDE = "%include"


class Row(Record):
    """One line of source without its comment. `uses` are the macro uses that made it, outermost first."""

    file: str
    line: int
    text: str
    uses: tuple[tuple[str, int, str], ...] = ()  # (file, line, macro)

    def error(self, what: str, column: int = 0) -> PayloadError:
        """The error to raise about this row; `column` counts from 1, 0 means the whole row."""
        if not column:
            column = len(self.text) - len(self.text.lstrip()) + 1
        inner = [f"in {macro}, used at {file}:{line}" for file, line, macro in reversed(self.uses)]
        if len(inner) > 2 * SHOWN_USES:
            left = len(inner) - 2 * SHOWN_USES
            inner[SHOWN_USES:-SHOWN_USES] = [f"{left} more"]
        trail = "; ".join(inner)
        what = f"{what} ({trail})" if trail else what
        text = self.text
        if len(text) > MAX_SHOWN:
            start = max(0, column - MAX_SHOWN // 2)
            text, column = text[start : start + MAX_SHOWN], column - start
        return PayloadError(what, file=self.file, line=self.line, column=column, row=text)


def strip_comment(text: str) -> str:
    """The text before the first `;` that is not inside quotes, or `#` that stands alone, without trailing blanks;
    nothing of a `#` line.
    """
    if "#" not in text and '"' not in text and "'" not in text:  # nearly every row
        return text.partition(";")[0].rstrip()
    if text.lstrip()[:1] == "#":
        return ""
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
        elif char == ";" or (char == "#" and text[at - 1] in " \t" and text[at + 1 : at + 2] in BEFORE_COMMENT):
            return text[:at].rstrip()
    return text.rstrip()


def lines(text: str) -> str:
    """A single line with `;` between its statements, as lines; a `;` inside quotes stays. Longer text stays."""
    if "\n" in text.strip():
        return text
    import re

    return re.sub(r"""("[^"]*"|'[^']*')|;""", lambda match: match[1] or "\n", text)


def candidates(name: str, including: str, folders: Sequence[str]) -> Iterator[str]:
    """Every place where `%include "name"` looks for its file, first choice first."""
    beside = [os.path.dirname(including)] if including and not including.startswith("<") else []
    for folder in (*beside, *folders):
        yield os.path.join(folder, name)
        yield os.path.join(folder, f"{name}.inc")


def _find(name: str, including: str, folders: Sequence[str]) -> str | None:
    return next(filter(os.path.isfile, candidates(name, including, folders)), None)


def _looked(including: str, folders: Sequence[str]) -> str:
    """Where `_find` looked, in words."""
    places = []
    if including and not including.startswith("<"):
        places.append(
            f"in {os.path.dirname(including) or 'the current folder'}, where {os.path.basename(including)} is"
        )
    places += [f"in {folder}" for folder in folders if folder]
    return f"looked {', '.join(places)}" if places else "a text without a file looks nowhere; pass include_dirs"


def default_folders() -> tuple[str, ...]:
    """`guest_payloads/inc`, beside the package `vmm`."""
    return (os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "guest_payloads", "inc"),)


def read_text(path: Path | str, error: type[PayloadError] = PayloadError) -> str:
    """The file's text. Raises PayloadError in words when it cannot be read or is not UTF-8."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except UnicodeDecodeError as e:
        raise error(f"not a text file: byte {e.start:#x} is not UTF-8", file=str(path)) from None
    except OSError as e:
        raise error(f"cannot read the source: {os_reason(e)}", file=str(path)) from None


def rows(text: str, file: str, folders: Sequence[str], _open: tuple[str, ...] = ()) -> Iterator[Row]:
    """Every row of the text, includes joined. Raises PayloadError for a missing, unreadable or circular include."""
    for number, raw in enumerate(text.splitlines(), 1):
        row = Row(file, number, strip_comment(raw))
        if len(row.text) > MAX_ROW_LENGTH:
            raise Row(file, number, row.text[:60] + "...").error(f"line longer than {MAX_ROW_LENGTH} characters")
        wanted = included(row.text) if "%" in row.text else None
        if wanted is None:
            yield row
            continue
        column = len(row.text) - len(wanted) + 1
        name = wanted[1:-1]
        if len(wanted) < 3 or wanted[0] not in "\"'" or wanted[-1] != wanted[0] or any(c in name for c in "\"'\0"):
            raise row.error('%include wants a name in quotes: %include "results"', column)
        found = _find(name, file, folders)
        if found is None:
            raise row.error(f"include file {name!r} not found ({_looked(file, folders)})", column)
        key = os.path.realpath(found)
        if key in _open or len(_open) >= MAX_INCLUDE_DEPTH:
            raise row.error(f"{name!r} includes itself", column)
        yield from rows(read_text(found), _shown(found), folders, (*_open, key))


def included(text: str) -> str | None:
    """What stands behind `%include`; None where the row begins with something else."""
    line = text.strip()
    rest = line[len(INCLUDE) :]
    if line[: len(INCLUDE)].lower() != INCLUDE or rest[:1].isalnum() or rest.startswith("_"):
        return None
    return rest.lstrip()


def _shown(path: str) -> str:
    """The path as a person would write it: relative to the working directory where it is below that."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here) if os.path.isabs(path) else path
