# SPDX-License-Identifier: GPL-2.0-or-later
"""What every picture of a table needs, once: the cells of a row as text, aligned columns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from vmm.report.style import printable

if TYPE_CHECKING:
    from vmm.payload.proof.prove import (
        Row,  # it needs the C binding, and doctor's report, which aligns too, must do without
    )

KINDS = {"pass": "good", "skip": "warn", "fail": "bad", "error": "bad"}  # outcome -> colour (vmm.report.style)


class Cells(NamedTuple):
    """One row of the probe's table as text without control characters; each is one line."""

    feature: str
    bit: str
    offered: str
    verdict: str
    evidence: str


HEAD = Cells("feature", "bit", "offered", "verdict", "evidence")
TOPIC_HEAD = HEAD._replace(feature="topic", bit="", offered="")


def cells(row: Row) -> Cells:
    """`STEAL_TIME`, `5` (`edx 0`, or `-` without a bit), `yes`, `works` (`error`), one line of evidence. A topic of the
    KVM API has neither bit nor an offer.
    """
    if row.topic:
        bit = offered = ""
    elif row.bit is None:
        bit, offered = "-", "-"
    else:
        bit = f"{row.register} {row.bit}" if row.register != "eax" else str(row.bit)
        offered = "yes" if row.offered else "no"
    verdict = "error" if row.error else str(row.verdict)
    return Cells(one_line(row.name), bit, offered, verdict, one_line(row.finding.line))


def one_line(text: str) -> str:
    """Any text as one line that is safe to show: controls appear as `\\x1b`, white space is a single space."""
    return " ".join(printable(text).split())


def aligned(rows: Iterable[tuple[str, ...]], indent: str = "  ") -> Iterator[str]:
    """Rows in aligned columns; the last column is left as long as it is."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    for row in rows:
        yield line(row, widths, indent)


def line(row: tuple[str, ...], widths: Iterable[int], indent: str = "  ") -> str:
    """One row with its columns at these widths; the last column is left as long as it is."""
    padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
    return f"{indent}{'  '.join([*padded, row[-1]])}".rstrip()


def number(value: Any) -> str:
    """A piece of evidence for a person: `4096 (0x1000)`, `2.5`, `yes`, or its text as one line; of several values each,
    `read 0, write 1`, and `none` where there is none.
    """
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, dict):
        return ", ".join(f"{one_line(str(name))} {number(each)}" for name, each in value.items()) or "none"
    if isinstance(value, list | tuple | set):
        return ", ".join(map(number, value)) or "none"
    if not isinstance(value, int | float):
        return one_line(str(value))
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value} ({value:#x})" if abs(value) >= 4096 else str(value)
