# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of `pyvmm probe` in the Test Anything Protocol, version 14, a test point at a time. Values in, text out.

Source: testanything.org, TAP version 14: plan, test points, directives, YAML diagnostics. What follows a colon in the
YAML blocks is JSON, which YAML 1.2 contains; so no text of a guest can end a block.
"""

from __future__ import annotations

import json
from collections.abc import Sized
from typing import Any

from vmm.payload.outcome import plain
from vmm.payload.proof.prove import Row
from vmm.payload.proof.verdict import counted
from vmm.report.columns import cells, one_line

INDENT = "  "


def head(count: int) -> str:
    """The version line and the plan."""
    return f"TAP version 14\n1..{count}\n"


def point(number: int, row: Row) -> str:
    """One test point with its diagnostics; number from 1. What cannot be shown here is a skip, with the reason."""
    shown = cells(row)
    ok = "ok" if row.outcome in ("pass", "skip") else "not ok"
    text = f"{ok} {number} - {escape(shown.feature)}"
    if row.outcome == "skip":
        text += f" # SKIP {escape(shown.verdict)}: {escape(shown.evidence)}".rstrip(": ")
    return f"{text}\n{_diagnostics(row)}"


def tail(deviations: Sized) -> str:
    """What follows the last test point: how many deviations there were, as a comment; nothing for none."""
    return f"# {counted(deviations)}\n" if deviations else ""


def skip_all(reason: str) -> str:
    """The whole of a run that shows nothing here: an empty plan with the reason."""
    return f"TAP version 14\n1..0 # SKIP {escape(reason)}\n"


def bail(reason: str) -> str:
    """The line that ends a run before its plan is done."""
    return f"Bail out! {escape(reason)}\n"


def escape(text: str) -> str:
    """In a description `#` starts a directive, and `\\` escapes it."""
    return one_line(text).replace("\\", "\\\\").replace("#", "\\#")


def _diagnostics(row: Row) -> str:
    found: dict[str, Any] = plain(row.as_json())
    keys = ["verdict", "reason", "summary", "bit", "register", "offered", "payload", "elapsed_s", "error"]
    lines = ["---", *(f"{key}: {value_text(found[key])}" for key in keys if found.get(key) not in ("", None))]
    for key in ("evidence", "refusals", "deviations"):
        if found[key]:
            lines += [f"{key}:", *_items(found[key])]
    lines.append("...")
    return "".join(f"{INDENT}{line}\n" for line in lines)


def _items(found: dict[str, Any] | list[Any]) -> list[str]:
    if isinstance(found, list):
        return [f"{INDENT}- {value_text(each)}" for each in found]
    return [f"{INDENT}{value_text(name)}: {value_text(value)}" for name, value in found.items()]


def value_text(value: Any) -> str:
    """JSON in one line of printable ASCII."""
    return json.dumps(value)
