# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm kut DIR --qemu --json` in a host, for as long as there is time: what it had by then comes back.

`pyvmm kut` writes its document at the end, also when it is interrupted; so it is, before the lab would end the host.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

BUDGET = 3600.0  # seconds of the host's; below the limit of steps/kut.sh by what one test may still take after it
LOOK = 2.0  # seconds between two looks at what has ended
FINE = (0, 1, 77, 130)  # a verdict of each test is in the document; what else there may be is an error of pyvmm's own


def command(folder: Path, logs: Path, given: Mapping[str, str]) -> list[str]:
    """By the host's parameters: KUT_TESTS, names as a shell would take them, and KUT_TIMEOUT."""
    tests = shlex.split(given.get("KUT_TESTS", ""))
    limit = given.get("KUT_TIMEOUT") or "60"
    return ["pyvmm", "kut", str(folder), *tests, "--qemu", "--json", "--timeout", limit, "--logs", str(logs)]


def run(words: list[str], document: Path, logs: Path, budget: float = BUDGET, look: float = LOOK) -> int:
    """Its status, which is 0 for every one that comes with a document. Each test is told when it is done."""
    begun, told, asked = time.monotonic(), set[str](), False
    with document.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=file)
        while True:
            try:
                status: int | None = process.wait(look)
            except subprocess.TimeoutExpired:
                status = None
            for name in sorted({path.stem for path in logs.glob("*.log")} - told):
                told.add(name)
                print(f"{time.monotonic() - begun:6.0f} s  {name}", flush=True)
            if status is not None:
                return 0 if status in FINE else status
            if not asked and time.monotonic() - begun > budget:
                asked = True
                print(f"no more time: it is interrupted after {budget:g} s", flush=True)
                process.send_signal(signal.SIGINT)


def main(lab: Path, out: Path) -> int:
    """kut.json is left in `out`."""
    logs = out / "kut"
    return run(command(lab / "kut", logs, os.environ), out / "kut.json", logs)


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["LAB"]), Path(os.environ["OUT"])))
