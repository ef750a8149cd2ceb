# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on a guest that moves, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.migration import ROUNDS, Answers, Evidence, judge
from vmm.payload.proof.verdict import Verdict

HOT, COLD, OTHERS = frozenset(range(4)), frozenset(range(4, 12)), frozenset({20, 21})
ANSWERS = Answers(laps=103, stale=0, sum=7, found=7, cold_first=9, cold=9)
GOOD = Evidence((HOT | COLD | OTHERS, *(HOT | OTHERS,) * ROUNDS), HOT, COLD, 100, 3, 0.01, ANSWERS)


def test_works() -> None:
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS
    assert "after 100 laps: 14 pages, then 6, 6, 6, 6 that it had written" in finding.summary


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"answers": replace(ANSWERS, laps=102)}, "go on for 3 there"),
        ({"answers": replace(ANSWERS, laps=104)}, "go on for 3 there"),
        ({"answers": replace(ANSWERS, stale=1)}, "1 pages are there as they were"),
        ({"answers": replace(ANSWERS, found=8)}, "their sum is another one's"),
        ({"answers": replace(ANSWERS, cold=8)}, "written once, before it moved"),
        ({"answers": replace(ANSWERS, cold=0, cold_first=0)}, "written once, before it moved"),
        ({"answers": None, "refused": "no room"}, "does not take it: no room"),
        ({"ended": "the guest crashed"}, "over there: the guest crashed"),
        ({"sent": GOOD.sent[:-1]}, "nothing was written meanwhile"),
        ({"sent": (HOT | OTHERS, *GOOD.sent[1:])}, "8 pages are not among those that were sent first"),
        ({"sent": (*GOOD.sent[:2], HOT - {3}, *GOOD.sent[3:])}, "round 3: 1 of 4 pages that were written"),
        ({"sent": (*GOOD.sent[:4], HOT | {7, 8})}, "round 5: 2 pages that were only read"),
    ],
)
def test_any_of_it_breaks_it(change: dict[str, object], text: str) -> None:
    finding = judge(replace(GOOD, **change))  # type: ignore[arg-type]
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason
