# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tools.oracle COUNT [--seed S] [--first N] [--state FILE] [--limit SECONDS]`

COUNT random programs, each in ring 0 and in ring 3 of a guest and on Unicorn. With --state a run that ended early goes
on where it was. Status 0: each state is the same, or the difference is one of the table's (explain.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tools.oracle.compare import Comparison
from tools.oracle.explain import TABLE

CHUNK = 2000
RINGS = (0, 3)
SHOWN = 20


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.oracle", description=__doc__)
    parser.add_argument("count", type=int, help="programs; each runs in both rings")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first program")
    parser.add_argument("--state", help="a file from which a run goes on")
    parser.add_argument("--limit", type=float, default=float("inf"), help="seconds, after which it ends where it is")
    asked = parser.parse_args(words)
    state = _state(asked)
    begin, ran, last = time.monotonic(), 0, 0.0
    while state["next"] < asked.first + asked.count and time.monotonic() - begin < asked.limit:
        numbers = range(state["next"], min(state["next"] + CHUNK, asked.first + asked.count))
        for ring in RINGS:
            done = Comparison(ring)
            done.run(asked.seed, numbers)
            row = state["rings"][str(ring)]
            row["ran"] += done.ran
            row["same"] += done.same
            row["known"] = dict(Counter(row["known"]) + done.known)
            row["findings"] += done.findings
            ran += done.ran
        state["next"] = numbers.stop
        _keep(asked, state)
        if time.monotonic() - last > 10:
            last = time.monotonic()
            findings = sum(len(row["findings"]) for row in state["rings"].values())
            print(f"{state['next']} of {asked.first + asked.count}, {ran / (last - begin):.0f}/s, {findings} findings",
                  file=sys.stderr, flush=True)  # fmt: skip
    seconds = time.monotonic() - begin
    print(f"{ran} programs in {seconds:.1f} s, {ran / seconds if seconds else 0:.0f}/s; programs {asked.first} to "
          f"{state['next'] - 1} of seed {asked.seed} are done")  # fmt: skip
    return _tell(state)


def _state(asked: argparse.Namespace) -> dict[str, Any]:
    fresh: dict[str, Any] = {"seed": asked.seed, "next": asked.first, "rings": {
        str(ring): {"ran": 0, "same": 0, "known": {}, "findings": []} for ring in RINGS
    }}  # fmt: skip
    if asked.state and Path(asked.state).exists():
        found: dict[str, Any] = json.loads(Path(asked.state).read_text())
        if found["seed"] != asked.seed:
            raise SystemExit(f"{asked.state} is of seed {found['seed']}: give --seed {found['seed']}")
        return found
    return fresh


def _keep(asked: argparse.Namespace, state: dict[str, Any]) -> None:
    if asked.state:
        path = Path(asked.state)
        path.with_suffix(".new").write_text(json.dumps(state))
        path.with_suffix(".new").replace(path)


def _tell(state: dict[str, Any]) -> int:
    whose = {row.name: row.whose for row in TABLE}
    status = 0
    for ring, row in state["rings"].items():
        print(f"ring {ring}: {row['ran']} programs, {row['same']} the same, {sum(row['known'].values())} explained, "
              f"{len(row['findings'])} findings")  # fmt: skip
        for name, count in Counter(row["known"]).most_common():
            print(f"  {count:8}  {name} ({whose.get(name, '?')})")
        for number, text in row["findings"][:SHOWN]:
            print(f"  program {number}: {text}")
        status |= bool(row["findings"])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
