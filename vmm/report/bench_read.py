# SPDX-License-Identifier: GPL-2.0-or-later
"""A document of `pyvmm bench --json` that somebody brings, checked: who reads it afterwards finds every key, of its
type. What an older pyvmm did not write is as if it had been unknown.
"""

from __future__ import annotations

import math
from typing import Any

from vmm.errors import UsageError
from vmm.report.bench import GROUPS, SCHEMA, Document

UNITS = ("ns", "bytes", "1/s")
TEXTS = {"group": "exits", "what": "", "cost": "", "unit": "ns", "peer": "", "goal_text": "", "goal_of": "",
         "better": "lower", "disturbed": "", "why": ""}  # fmt: skip
NUMBERS = ("median", "mad", "floor", "ratio", "error", "goal", "margin", "n", "turns", "turns_needed")
FLAGS = ("met", "close", "noisy")


def read(found: Any, what: str) -> Document:
    """The document with every key. `what` begins the message of an error.

    Raises:
        UsageError: it is none, or a value in it is of another kind.
    """
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not isinstance(found.get("rows"), list):
        raise UsageError(f"{what}: no document of `pyvmm bench --json`")
    doc: Document = {
        "schema": SCHEMA,
        "host": _text(found, "host", "", what),
        "quick": found.get("quick") is True,
        "elapsed_s": _number(found, "elapsed_s", what) or 0.0,
        "noise": _text(found, "noise", "", what) or None,
        "when": _text(found, "when", "", what),
        "pyvmm": _text(found, "pyvmm", "", what),
        "machine": _machine(found.get("machine", {}), what),
        "rows": [_row(row, what) for row in found["rows"]],
    }
    rows = doc["rows"]
    return doc | {
        "met": sum(row["met"] is True for row in rows),
        "missed": [row["name"] for row in rows if row["met"] is False and not row["close"]],
        "close": [row["name"] for row in rows if row["close"]],
    }


def _row(row: Any, what: str) -> Document:
    if not isinstance(row, dict) or not {"name", "median", "ratio"} <= row.keys():
        raise UsageError(f"{what}: a row in it is none of `pyvmm bench --json`")
    where = f"{what}: row {row['name']!r:.40}"
    made: Document = {"name": _text(row, "name", "", where)}
    made |= {key: _text(row, key, default, where) for key, default in TEXTS.items()}
    made |= {key: _number(row, key, where) for key in NUMBERS}
    made |= {key: row.get(key) if isinstance(row.get(key), bool) else None for key in FLAGS}
    made["close"], made["noisy"] = bool(made["close"]), bool(made["noisy"])
    made["n"], made["turns"] = int(made["n"] or 0), int(made["turns"] or 0)
    if made["unit"] not in UNITS or made["group"] not in GROUPS:
        raise UsageError(f"{where}: the unit or the group is none of `pyvmm bench --json`")
    time = made["unit"] == "ns"
    made |= {f"{key}_ns": made[key] if time else None for key in ("median", "mad", "floor")}
    made["points"] = _points(row.get("points", []), where)
    return made


def _points(found: Any, where: str) -> list[list[float]]:
    rows: list[Any] = found if isinstance(found, list) else [None]
    if not all(isinstance(row, list) and len(row) == 3 and all(map(_is_number, row)) for row in rows):
        raise UsageError(f"{where}: its points are no list of size, median and MAD")
    return rows


def _machine(found: Any, what: str) -> dict[str, str]:
    if not isinstance(found, dict) or not all(isinstance(value, str | int) for value in found.values()):
        raise UsageError(f"{what}: its machine is no list of facts")
    return {str(name): str(value) for name, value in found.items()}


def _text(of: dict[str, Any], key: str, default: str, what: str) -> str:
    value = of.get(key, default)
    if value is None:
        return default
    if not isinstance(value, str):
        raise UsageError(f"{what}: {key} is no text")
    return value


def _number(of: dict[str, Any], key: str, what: str) -> float | None:
    value = of.get(key)
    if value is not None and not _is_number(value):
        raise UsageError(f"{what}: {key} is no number")
    return value


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and abs(value) < 1e300
    )
