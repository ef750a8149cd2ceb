# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a feature that is broken on purpose is noticed: the tests of marker `sabotage` hand a guest a wrong
MSR, number or answer, and want a verdict that says so. One check for each that this host can run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from .host import Seen

MARKER = "sabotage"
TESTS = Path("tests/kvm")
FILE = "sabotage.json"
LIMIT = 3000.0  # seconds for all of them; one test may take 900


def report(files: list[str], into: Path) -> str:
    """Run the tests; the text of pytest's JUnit report. Raises: ValueError, with what it said in place of one."""
    words = [sys.executable, "-m", "pytest", *files, "-m", MARKER, "-p", "no:cacheprovider", "-o", "timeout=900", "-v"]
    done = subprocess.run([*words, f"--junitxml={into}"], stdin=subprocess.DEVNULL, timeout=LIMIT, check=False)
    if done.returncode not in (0, 1):
        raise ValueError(f"pytest ended with status {done.returncode}")
    return into.read_text(encoding="utf-8")


def look(seen: Seen, junit: str) -> None:
    """A check for each test that was not skipped."""
    for case in ElementTree.fromstring(junit).iter("testcase"):
        said = {each.tag: (each.get("message") or "").strip() for each in case}
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        if "skipped" not in said:
            wrong = said.get("failure") or said.get("error")
            seen(name, not said.keys() & {"failure", "error"}, (wrong or "noticed").splitlines()[0])


def marked(folder: Path = TESTS) -> list[str]:
    """The files that name the marker: to import the rest takes minutes on an emulated CPU."""
    return sorted(str(path) for path in folder.glob("test_*.py") if f"mark.{MARKER}" in path.read_text())


def main() -> int:
    seen = Seen()
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "junit.xml"
        return seen.tell(lambda: look(seen, report(marked(), into)), Path(os.environ["OUT"]) / FILE)


if __name__ == "__main__":
    sys.exit(main())
