# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on halt polling, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.poll_control import Count, Evidence, Phase, judge
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(
    phases=(Phase(21, 20, 1), Phase(20, 0, 20), Phase(20, 20)),
    seen=0x01007EFB,
    reset=1,
    off=0,
    on=1,
    slept=61,
    woken=61,
)


def polls(*counts: int) -> Evidence:
    return replace(GOOD, phases=tuple(Phase(20, count, 20 - count) for count in counts))


def test_works_with_the_numbers_beside_it() -> None:
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS
    assert "+20 in 21 HLTs at reset, +0 in 20 with 0, +20 in 20 with 1 again" in finding.summary
    assert finding.evidence["halt_attempted_poll_with_0"] == 0
    assert finding.evidence["halt_exits_with_0"] == 20


def test_a_busy_host_polls_less() -> None:
    assert judge(polls(1, 0, 2)).verdict is Verdict.WORKS


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (replace(GOOD, seen=0x01006EFB), "does not see"),
        (replace(GOOD, reset=0), "at reset"),
        (replace(GOOD, reset=3), "at reset"),
        (replace(GOOD, off=1), "after 0"),
        (replace(GOOD, on=0), "after 1"),
        (replace(GOOD, woken=60), "timer interrupts"),
        (polls(19, 1, 20), "attempted it 1 times"),
        (polls(20, 20, 20), "attempted it 20 times"),
        (polls(19, 0, 0), "only one of them"),
        (polls(0, 0, 20), "only one of them"),
    ],
)
def test_broken(evidence: Evidence, text: str) -> None:
    finding = judge(evidence)
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason


def test_inert_where_the_host_never_polls() -> None:
    finding = judge(polls(0, 0, 0))
    assert finding.verdict is Verdict.INERT
    assert "never polls" in finding.reason


def test_unproven_where_no_hlt_reaches_kvm() -> None:
    finding = judge(replace(GOOD, phases=(Phase(0, 0),) * 3))
    assert finding.verdict is Verdict.UNPROVEN
    assert "took no HLT" in finding.reason


def test_unproven_where_no_vcpu_was_ever_halted() -> None:
    """Every timer had ended by then: halt_exits counts such a HLT, and KVM had no chance to poll."""
    for late in range(3):
        phases = [*GOOD.phases]
        phases[late] = Phase(100, 0, 0)
        finding = judge(replace(GOOD, phases=tuple(phases)))
        assert finding.verdict is Verdict.UNPROVEN
        assert "nothing to poll for" in finding.reason


def test_a_hlt_counts_by_what_came_of_it() -> None:
    """Statistics: halt_exits, halt_attempted_poll, halt_wait_ns."""
    allowed = Count(may_poll=True, now=(5, 3, 100))
    assert [allowed.add(each) for each in ((6, 3, 100), (7, 3, 250), (8, 4, 250), (9, 5, 300))] == [
        False, False, True, True,
    ]  # fmt: skip
    assert (allowed.halts, allowed.polls, allowed.waits, allowed.counted) == (4, 2, 2, 2)
    forbidden = Count(may_poll=False, now=(5, 3, 100))
    assert [forbidden.add(each) for each in ((6, 3, 100), (7, 3, 250), (8, 4, 250))] == [False, True, False]
    assert (forbidden.polls, forbidden.counted) == (1, 1)
