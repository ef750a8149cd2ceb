# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on stolen time, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.steal_time import Evidence, Look, judge
from vmm.payload.verdict import Verdict

MS = 1_000_000


def look(delay: int, version: int, hog: int, *, steal: int | None = None, flags: int = 0) -> Look:
    """A tight look: the thread had waited `delay` ns when KVM wrote the area."""
    return Look(delay, delay, delay if steal is None else steal, version, flags, hog)


# A beginning, two turns of which the second lost 9 ms, and one HLT in which the hog had the CPU.
LOOKS = (
    look(3 * MS, 2, 1 * MS),
    look(3 * MS, 4, 1 * MS),
    look(12 * MS, 8, 10 * MS),
    look(12 * MS + 5_000, 10, 40 * MS),
)
GOOD = Evidence(
    looks=LOOKS,
    seen=0x01007EFB,
    wanted=8 * MS,
    turns=2,
    stolen=9 * MS,
    own_preempted=0,
    samples=700,
    preempted=0,
    halt=30 * MS,
    halt_stolen=5_000,
    off_moved=0,
    reported=0,
    other=2,
)


def with_look(index: int, **changes: int) -> Evidence:
    looks = list(LOOKS)
    looks[index] = replace(looks[index], **changes)
    return replace(GOOD, looks=tuple(looks))


def test_works_with_the_numbers_beside_it() -> None:
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS
    assert finding.reason == ""
    numbers = finding.evidence
    assert (numbers["stolen_ns"], numbers["run_delay_ns"], numbers["hog_ns"]) == (9 * MS, 9 * MS, 9 * MS)
    assert (numbers["halt_ns"], numbers["halt_stolen_ns"], numbers["halt_hog_ns"]) == (30 * MS, 5_000, 30 * MS)
    assert (numbers["version_first"], numbers["version_last"], numbers["version_steps"]) == (2, 10, "2 to 4")
    assert numbers["equal_to_run_delay"] == numbers["looks"] == 4
    assert "preempted never seen" in finding.summary


def test_preempted_is_evidence_either_way() -> None:
    finding = judge(replace(GOOD, preempted=3, reported=5))
    assert finding.verdict is Verdict.WORKS
    assert "preempted seen 3x" in finding.summary
    assert finding.evidence["preemption_reported"] == 5


def test_a_kernel_without_statistics_is_no_hindrance() -> None:
    finding = judge(replace(GOOD, reported=None, other=None))
    assert finding.verdict is Verdict.WORKS
    assert "preemption_other" not in finding.evidence


def test_what_the_thread_waited_before_does_not_matter() -> None:
    """Some kernels count from the MSR's write, others from the thread's beginning: growth is what is judged."""
    looks = tuple(replace(each, steal=each.steal - 3 * MS) for each in LOOKS)
    assert judge(replace(GOOD, looks=looks)).verdict is Verdict.WORKS


def test_a_late_awakening_is_stolen_and_the_sleep_before_it_is_not() -> None:
    assert judge(replace(GOOD, halt_stolen=20 * MS)).verdict is Verdict.WORKS


def test_bounds_may_be_loose() -> None:
    assert judge(with_look(2, before=3 * MS, after=15 * MS)).verdict is Verdict.WORKS


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (replace(GOOD, seen=0x01007EDB), "does not see bit 5"),
        (with_look(0, version=0), "never wrote"),
        (with_look(1, version=5), "odd"),
        (with_look(1, version=2), "moved by 0"),
        (with_look(2, version=2), "moved by -2"),
        (with_look(2, flags=1), "flags"),
        (with_look(2, steal=12 * MS + 1), "steal grew"),
        (with_look(2, steal=12 * MS - 1), "steal grew"),
        (with_look(3, steal=42 * MS), "steal grew"),  # a HLT counted as stolen
        (replace(GOOD, own_preempted=1), "running vCPU"),
        (replace(GOOD, off_moved=2), "switched off"),
    ],
)
def test_broken(evidence: Evidence, text: str) -> None:
    finding = judge(evidence)
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (replace(GOOD, looks=tuple(replace(each, hog=0) for each in LOOKS)), "no other process"),
        (replace(GOOD, stolen=7 * MS), "took only 7.0 ms"),
        (replace(GOOD, halt_stolen=27 * MS), "too busy"),
        (replace(GOOD, halt_stolen=30 * MS), "too busy"),
    ],
)
def test_unproven(evidence: Evidence, text: str) -> None:
    finding = judge(evidence)
    assert finding.verdict is Verdict.UNPROVEN
    assert text in finding.reason
    assert finding.evidence["looks"] == 4


def test_nothing_at_all_is_broken_not_an_error() -> None:
    """What a wrong MSR leaves: an area that nobody writes."""
    looks = tuple(replace(each, steal=0, version=0) for each in LOOKS)
    assert judge(replace(GOOD, looks=looks)).verdict is Verdict.BROKEN
