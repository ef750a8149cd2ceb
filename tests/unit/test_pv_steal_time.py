# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on stolen time, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.steal_time import Evidence, Look, judge
from vmm.payload.proof.verdict import Verdict

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
    first_steal=3 * MS,
    stolen=9 * MS,
    own_reads=900,
    own_preempted=0,
    samples=700,
    watched=16,
    preempted=0,
    halt=30 * MS,
    halt_stolen=5_000,
    watch=16,
    off_moved=0,
    reported=0,
    other=2,
)
SEEN = replace(GOOD, watched=2, preempted=1, reported=2)
# 40 more returns to the CPU, at which nobody looked.
BUSY = replace(GOOD, looks=(*LOOKS[:2], *(replace(each, version=each.version + 80) for each in LOOKS[2:])))


def with_look(index: int, **changes: int) -> Evidence:
    looks = list(LOOKS)
    looks[index] = replace(looks[index], **changes)
    return replace(GOOD, looks=tuple(looks))


def test_works_with_the_numbers_beside_it() -> None:
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS
    assert finding.reason == ""
    numbers = finding.evidence
    assert (numbers["stolen_ns"], numbers["run_delay_ns"], numbers["hog_ns"]) == (
        9 * MS,
        f"{9 * MS} to {9 * MS}",
        9 * MS,
    )
    assert (numbers["halt_ns"], numbers["halt_stolen_ns"], numbers["halt_hog_ns"]) == (30 * MS, 5_000, 30 * MS)
    assert (numbers["version_first"], numbers["version_last"], numbers["version_steps"]) == (2, 10, "2 to 4")
    assert numbers["equal_to_run_delay"] == numbers["looks"] == 4
    assert finding.summary == (
        "9.0 ms stolen where run_delay grew 9.0 ms to 9.0 ms; 0.0 ms in a HLT of 30.0 ms; "
        "preempted never seen set in 16 losses of the CPU: KVM counts 0 as reported"
    )


def test_preempted_seen_set_and_clear() -> None:
    finding = judge(SEEN)
    assert finding.verdict is Verdict.WORKS
    assert finding.summary.endswith("preempted seen set in 1 of 2 losses of the CPU, clear in 900 readings of its own")
    assert finding.evidence["preemption_reported"] == 2


def test_reports_that_may_all_have_been_unwatched_are_no_contradiction() -> None:
    """Two turns with three returns to the CPU between them, none of which vCPU 1 need have watched twice."""
    assert judge(replace(GOOD, watched=1, watch=1, reported=0)).verdict is Verdict.WORKS


def test_a_kernel_without_statistics_is_no_hindrance() -> None:
    finding = judge(replace(GOOD, reported=None, other=None))
    assert finding.verdict is Verdict.WORKS
    assert "preemption_other" not in finding.evidence
    assert finding.summary.endswith("preempted never seen set in 16 losses of the CPU")


def test_what_the_thread_waited_before_does_not_matter() -> None:
    """Some kernels count from the MSR's write, others from the thread's beginning: growth is what is judged."""
    looks = tuple(replace(each, steal=each.steal - 3 * MS) for each in LOOKS)
    assert judge(replace(GOOD, looks=looks, first_steal=0)).verdict is Verdict.WORKS


def test_a_late_awakening_is_stolen_and_the_sleep_before_it_is_not() -> None:
    assert judge(replace(GOOD, halt_stolen=20 * MS)).verdict is Verdict.WORKS


def test_bounds_may_be_loose() -> None:
    finding = judge(with_look(2, before=3 * MS, after=15 * MS))
    assert finding.verdict is Verdict.WORKS
    assert finding.evidence["run_delay_ns"] == f"0 to {12 * MS}"


def test_what_is_said_of_a_look_lies_within_what_is_said_of_run_delay() -> None:
    """The guest reads after the host has looked: what was lost in between is its own to say, and not the look's."""
    finding = judge(replace(GOOD, stolen=9 * MS + 4_000))
    assert finding.verdict is Verdict.WORKS
    assert finding.evidence["stolen_ns"] == 9 * MS


def test_each_pair_may_hold_and_the_whole_may_not() -> None:
    """Bounds that are loose at both ends of every step, and steal that drifts by 1 ms in each."""
    looks = tuple(
        Look(n * MS, n * MS + MS // 2, steal, 2 * n + 2, 0, n * MS)
        for n, steal in enumerate((0, int(1.4 * MS), int(2.8 * MS)))
    )
    finding = judge(replace(GOOD, looks=looks, turns=1, first_steal=0, stolen=2 * MS, wanted=MS))
    assert finding.verdict is Verdict.BROKEN
    assert "drifts" in finding.reason


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
        (replace(GOOD, stolen=9 * MS - 1), "the guest read"),
        (replace(GOOD, stolen=9 * MS + 5_001), "the guest read"),
        (replace(GOOD, reported=1), "was clear in all 16"),  # KVM says that it set the byte, and nobody ever saw it
        (replace(GOOD, reported=16), "was clear in all 16"),
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
        (replace(GOOD, wanted=10 * MS), "took only 9.0 ms"),
        (replace(GOOD, watched=15), "during 15 losses"),
        (replace(GOOD, watched=0, reported=None, other=None), "during 0 losses"),
        (replace(BUSY, reported=16), "clear in all 16 that another vCPU watched; all of those"),
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
