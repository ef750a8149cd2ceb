# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole table of a host again and again: whether each row says each time what it said first.

What was seen is written down after each table, so that one that takes the host down costs only itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .host import Seen

TIMES = 20
LIMIT = 3600.0  # seconds for one table: the slowest host takes a tenth of it
FILE = "repeat.json"


def table() -> dict[str, Any]:
    """The document of `pyvmm probe --api --json`. Raises: ValueError, with what it said in place of one."""
    words = [sys.executable, "-m", "vmm", "probe", "--api", "--json"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = " / ".join((done.stdout + done.stderr).splitlines()[-3:])
        raise ValueError(f"status {done.returncode}, no document: {last}") from None
    return found


def verdicts(document: Mapping[str, Any]) -> dict[str, str]:
    """Row -> verdict, with how many deviations it has."""
    rows = [*document["features"], *document["topics"]]
    return {row["name"]: f"{row['verdict']}, {len(row.get('deviations', []))} deviations" for row in rows}


def differences(first: Mapping[str, str], now: Mapping[str, str], document: Mapping[str, Any]) -> list[str]:
    """A line for each row that is not as it was first, with its reason."""
    told = {row["name"]: row["reason"] or row["summary"] for row in [*document["features"], *document["topics"]]}
    return [
        f"{name}: first {first.get(name, 'no row')}, now {now.get(name, 'no row')}: {told.get(name, '')}"
        for name in {**first, **now}
        if first.get(name) != now.get(name)
    ]


def look(seen: Seen, file: Path, ask: Callable[[], dict[str, Any]] = table, times: int = TIMES) -> None:
    """One check for each table; the first has only to be one."""
    first: dict[str, str] = {}
    for run in range(1, times + 1):
        try:
            document = ask()
        except (ValueError, subprocess.TimeoutExpired) as error:
            seen(f"table {run} comes", False, str(error))
        else:
            now = verdicts(document)
            first = first or now
            lines = differences(first, now, document)
            took = f"{len(now)} rows in {document['elapsed_s']:.0f} s"
            seen(f"table {run} says what the first said", not lines, "; ".join(lines) or took)
        file.write_text(json.dumps({"checks": seen.checks}, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    seen, file = Seen(), Path(os.environ["OUT"]) / FILE
    return seen.tell(lambda: look(seen, file), file)


if __name__ == "__main__":
    sys.exit(main())
