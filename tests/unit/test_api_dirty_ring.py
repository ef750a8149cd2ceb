# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on the dirty ring, on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.dirty_ring import Evidence, judge
from vmm.payload.proof.verdict import Verdict

ALL = tuple(range(1024))
GOOD = Evidence(1024, 256, (ALL, ALL), others=0, full=10, exits=10, resets=2048)


def test_works():
    assert judge(GOOD).verdict is Verdict.WORKS


def test_a_page_may_come_twice_where_the_ring_was_full():
    assert judge(replace(GOOD, rounds=((*ALL, 5, 6), ALL), resets=2050)).verdict is Verdict.WORKS


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": (ALL,), "resets": 1024},
        {"rounds": (ALL, ALL[:-1]), "resets": 2047},
        {"rounds": (ALL[1:], ALL), "resets": 2047},
        {"rounds": (ALL + ALL, ALL), "resets": 3072},
        {"rounds": (ALL, ())},
        {"others": 1},
        {"full": 0, "exits": 0},
        {"full": 9},
        {"resets": 0},
        {"resets": 2047},
    ],
)
def test_broken(change):
    assert judge(replace(GOOD, **change)).verdict is Verdict.BROKEN
