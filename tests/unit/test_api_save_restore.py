# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on save and restore, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.save_restore import EXPECTED, Evidence, judge
from vmm.payload.proof.verdict import Verdict

ALONE = {"digest": 7, "ticks": 40, **EXPECTED}
GOOD = Evidence(40, ALONE, ALONE, 8, ALONE)


def test_works() -> None:
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS
    assert "8 moves" in finding.summary


@pytest.mark.parametrize("name", ALONE)
def test_any_difference_breaks_it(name: str) -> None:
    other = ALONE | {name: ALONE[name] + 1}
    for evidence, text in ((replace(GOOD, moved=other), "moved, the guest"), (replace(GOOD, again=other), "put back")):
        finding = judge(evidence)
        assert finding.verdict is Verdict.BROKEN
        assert text in finding.reason
        assert name in finding.reason


@pytest.mark.parametrize("name", ["ticks", *EXPECTED])
def test_equal_and_wrong_is_wrong(name: str) -> None:
    other = ALONE | {name: 1}
    finding = judge(Evidence(40, other, other, 8, other))
    assert finding.verdict is Verdict.BROKEN
    assert "left alone" in finding.reason


@pytest.mark.parametrize("moves", [0, 7, 15])
def test_moves_are_counted(moves: int) -> None:
    assert f"came to {moves} moves" in judge(replace(GOOD, moves=moves)).reason
