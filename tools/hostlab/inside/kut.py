# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm kut DIR --qemu --json` in a host, a few tests at a time: what there is comes back after each few, so where the
emulator dies of a test only those are lost.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.hostlab.inside import host
from vmm.payload.kut import suite

LIMIT = 4100.0  # seconds of the host's; a little less than the step may take
FEW = 3  # tests of one `pyvmm kut`: on an emulated CPU it takes seconds to start
LATE = 30.0  # seconds that a test may take longer than its own limit, at its start and its end


def names(folder: Path, given: Mapping[str, str]) -> list[str]:
    """The tests that KUT_TESTS means, by names and patterns as a shell would take them; all where it is empty."""
    entries = suite.load(suite.find_cfg(folder))
    return [entry.name for entry in suite.select(entries, shlex.split(given.get("KUT_TESTS", "")), ())]


def few(folder: Path, tests: Sequence[str], logs: Path, timeout: float) -> dict[str, Any]:
    """The document of these tests. Raises: RuntimeError, where there is none."""
    words = ["pyvmm", "kut", str(folder), *tests, "--qemu", "--json", "--timeout", f"{timeout:g}", "--logs", str(logs)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise RuntimeError(f"status {done.returncode}, and no document: {shlex.join(words)}") from None
    return found


def run(
    tests: Sequence[str],
    ask: Callable[[Sequence[str]], dict[str, Any]],
    document: Path,
    timeout: float,
    limit: float = LIMIT,
) -> int:
    """The status: 0, or 1 where some had no document. As long as there is surely time for a few more."""
    begun, found, rest, status = time.monotonic(), list[dict[str, Any]](), list(tests), 0
    while rest and time.monotonic() - begun + 2 * FEW * (timeout + LATE) < limit:
        now, rest = rest[:FEW], rest[FEW:]
        try:
            new = ask(now)["tests"]
        except RuntimeError as error:
            print(error, flush=True)
            new, status = [], 1
        found += new
        for each in new:
            beside = each["qemu"]["verdict"] if "qemu" in each else "-"
            print(f"{time.monotonic() - begun:6.0f} s  {each['name']}: {each['verdict']}, QEMU: {beside}", flush=True)
        write(document, found, tests)
        host.hand_back()
    if rest:
        print(f"no more time: {len(rest)} are left out", flush=True)
    return status


def write(document: Path, found: Sequence[dict[str, Any]], tests: Sequence[str]) -> None:
    """As `pyvmm kut --json` has it, as far as somebody reads it: `tests`, `counts`, `not_run`."""
    there = {each["name"] for each in found}
    counts = Counter(each["verdict"] for each in found)
    told = {"tests": list(found), "counts": counts, "not_run": [name for name in tests if name not in there]}
    document.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def main(lab: Path, out: Path) -> int:
    """kut.json is left in `out`, and in kut/ what each test printed in pyvmm."""
    folder, timeout = lab / "kut", float(os.environ["KUT_TIMEOUT"])
    tests = names(folder, os.environ)
    write(out / "kut.json", [], tests)
    return run(tests, lambda now: few(folder, now, out / "kut", timeout), out / "kut.json", timeout)


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["LAB"]), Path(os.environ["OUT"])))
