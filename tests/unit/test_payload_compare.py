# SPDX-License-Identifier: GPL-2.0-or-later
"""Results beside what must hold: numbers, ranges, choices, lower limits; the first that fails gives the reason."""

from __future__ import annotations

import pytest

from vmm.payload.proof.compare import AtLeast, Wanted, compare, holds
from vmm.payload.proof.verdict import Verdict


@pytest.mark.parametrize(
    ("wanted", "good", "bad", "text"),
    [(3, 3, 4, "3"), (range(3, 6), 5, 6, "3 to 5"), ((3, 7), 7, 5, "3 or 7"), (AtLeast(3), 3, 2, "at least 3")],
)
def test_each_kind(wanted: Wanted, good: int, bad: int, text: str) -> None:
    assert holds(good, wanted)
    assert not holds(bad, wanted)
    finding = compare({"n": bad, "m": 1}, {"m": 1, "n": wanted}, "fine")
    assert (finding.verdict, finding.reason) == (Verdict.BROKEN, f"n is {bad}, and should be {text}")


def test_works_with_evidence() -> None:
    finding = compare({"n": 3, "other": 9}, {"n": 3}, "three", {"more": "x"})
    assert (finding.verdict, finding.reason, finding.summary) == (Verdict.WORKS, "", "three")
    assert finding.evidence == {"n": 3, "more": "x"}
