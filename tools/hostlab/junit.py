# SPDX-License-Identifier: GPL-2.0-or-later
"""What pytest's JUnit file says: how many tests passed, and which did not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .errors import HostFailed


@dataclass(frozen=True)
class Tests:
    """`failed`: `file::test: message` of each failure and error; `skipped` alike."""

    passed: int
    failed: tuple[str, ...]
    skipped: tuple[str, ...]

    @property
    def line(self) -> str:
        """`212 tests passed, 1 failed, 3 skipped`."""
        parts = [f"{self.passed} tests passed"]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{len(self.skipped)} skipped"] if self.skipped else []
        return ", ".join(parts)


def read(path: Path) -> Tests:
    """Raises: HostFailed, when there is none, or it is cut off."""
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        raise HostFailed(f"the tests left no report: {error}") from error
    failed, skipped = [], []
    for case in cases:
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        for each in case:
            message = (each.get("message") or "").strip().splitlines()[:1]
            if each.tag in ("failure", "error"):
                failed.append(": ".join([name, *message]))
            elif each.tag == "skipped":
                skipped.append(": ".join([name, *message]))
    bad = {line.split(": ")[0] for line in (*failed, *skipped)}
    return Tests(len(cases) - len(bad), tuple(failed), tuple(skipped))
