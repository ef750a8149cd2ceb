# SPDX-License-Identifier: GPL-2.0-or-later
"""What pytest's JUnit file says: how many tests passed, and which did not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .errors import HostFailed


@dataclass(frozen=True)
class Tests:
    """`failed`: failures and errors, `file::test` -> the message's first line; `skipped` alike."""

    passed: int
    failed: Mapping[str, str]
    skipped: Mapping[str, str]

    @property
    def line(self) -> str:
        """`212 tests passed, 1 failed, 3 skipped`."""
        parts = [f"{self.passed} tests passed"]
        parts += [f"{len(self.failed)} failed"] if self.failed else []
        parts += [f"{len(self.skipped)} skipped"] if self.skipped else []
        return ", ".join(parts)


def read(path: Path) -> Tests:
    """Raises: HostFailed, when there is none, it is cut off, or no test ran: nothing would be shown then."""
    try:
        cases = list(ElementTree.parse(path).getroot().iter("testcase"))
    except (OSError, ElementTree.ParseError) as error:
        raise HostFailed(f"the tests left no report: {error}") from error
    failed, skipped, all_of_them = {}, {}, set()
    for case in cases:
        name = f"{case.get('classname', '')}::{case.get('name', '')}"
        all_of_them.add(name)
        for each in case:
            message = ((each.get("message") or "").strip().splitlines() or [""])[0]
            if each.tag in ("failure", "error"):
                failed[name] = message
            elif each.tag == "skipped":
                skipped[name] = message
    passed = len(all_of_them - failed.keys() - skipped.keys())
    if not passed:
        raise HostFailed(f"no test passed, of {len(cases)} that the report names")
    return Tests(passed, failed, skipped)
