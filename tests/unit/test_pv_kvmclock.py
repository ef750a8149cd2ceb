# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on the paravirtual clock, on made-up evidence: what works, and every way to contradict the ABI."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.kvmclock import SET_TO, Evidence, Reading, judge
from vmm.abi.structs import pvclock_khz, pvclock_nanoseconds
from vmm.kvm.vm import Clock
from vmm.payload.proof.verdict import Verdict

MS = 1_000_000
EPOCH = 1_700_000_000 * 10**9  # time of day when the guest's clock was 0
STABLE = 2 | 4 | 8  # KVM_CLOCK_TSC_STABLE, REALTIME, HOST_TSC
PAGE = {
    "version": 4,
    "tsc_timestamp": 5_000_000,
    "system_time": 30 * MS,
    "tsc_to_system_mul": 3_308_717_899,
    "tsc_shift": -1,
    "flags": 1,
}
LAST_TSC = PAGE["tsc_timestamp"] + 2_596_152  # a millisecond later
LAST_NS = pvclock_nanoseconds(PAGE, LAST_TSC)


def reading(ns: int, flags: int = STABLE) -> Reading:
    return Reading(Clock(ns, flags, 0, 0), EPOCH + ns)


def good(flags: int = STABLE) -> Evidence:
    clocks = {
        1: 1 * MS,
        2: 2 * MS,
        3: 30 * MS,
        4: 32 * MS,
        5: SET_TO + 10,
        6: SET_TO + MS,
        7: 2 * SET_TO,
        8: 3 * SET_TO,
    }
    guest = {
        "features": 0x01007EFB,
        "wall_version": 2,
        "wall_version_2": 4,
        "cross_samples": 500,
        "cross_switches": 40,
        "cross_backward": 0,
        "cross_worst": 0,
        "first_ns": 30 * MS + 1,
        "backward": 0,
        "worst": 0,
        "last_ns": LAST_NS,
        "last_tsc": LAST_TSC,
        "version": 4,
        "set_ns": SET_TO + 500,
        "set_version": 6,
        "flags": flags >> 1 & 1,
        "flags_stopped": 2 | flags >> 1 & 1,
        "flags_kept": 2 | flags >> 1 & 1,
        "flags_cleared": flags >> 1 & 1,
    }
    return Evidence(3, guest, PAGE, EPOCH, {n: reading(ns, flags) for n, ns in clocks.items()}, 2_596_152, 3)


def with_guest(evidence: Evidence, **changes: int) -> Evidence:
    return replace(evidence, guest=evidence.guest | changes)


def test_a_right_clock_works():
    finding = judge(good())
    assert (finding.verdict, finding.reason) == (Verdict.WORKS, "")
    assert finding.summary.startswith("2596152 kHz, between two KVM_GET_CLOCK and the host's time of day")
    assert finding.evidence["khz"] == finding.evidence["kvm_get_tsc_khz"] == 2_596_152
    assert finding.evidence["wall_clock_lowest"] <= EPOCH <= finding.evidence["wall_clock_highest"]


def test_a_clock_without_a_master_is_no_better_than_its_readings():
    finding = judge(with_guest(good(flags=0), backward=3, worst=900, cross_backward=5, cross_worst=3 * MS))
    assert finding.verdict is Verdict.WORKS
    assert "within 100 ms" in finding.summary
    assert "5 steps back, which only a stable clock rules out, in 500 readings on two vCPUs" in finding.summary
    assert "no step back in 500 readings" in judge(good(flags=0)).summary


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"features": 0x01007EF3}, "without bit 3"),
        ({"wall_version": 0, "wall_version_2": 0}, "versions of the wall clock are 0 and 0"),
        ({"wall_version": 3}, "versions of the wall clock are 3 and 4"),
        ({"wall_version_2": 2}, "versions of the wall clock are 2 and 2"),
        ({"version": 0}, "it was never written"),
        ({"version": 5}, "it was never written"),
        ({"first_ns": 30 * MS - 1}, "between 30000000 and 32000000"),
        ({"last_ns": 32 * MS + 1}, "between 30000000 and 32000000"),
        ({"last_ns": LAST_NS + 1}, "the guest's reader says"),
        ({"backward": 1, "worst": 1}, "stepped back 1 times on vCPU 0, by up to 1 ns"),
        ({"cross_backward": 2, "cross_worst": 1}, "stepped back 2 times across vCPUs"),
        ({"cross_switches": 2}, "compares nothing"),
        ({"set_ns": 33 * MS}, "after KVM_SET_CLOCK"),
        ({"set_ns": SET_TO - 1}, "after KVM_SET_CLOCK"),
        ({"set_ns": SET_TO + MS + 1}, "after KVM_SET_CLOCK"),
        ({"set_version": 4}, "version 4 became 4"),
        ({"set_version": 7}, "version 4 became 7"),
        ({"flags": 3}, "was set before KVM_KVMCLOCK_CTRL"),
        ({"flags_stopped": 1}, "was not set by KVM_KVMCLOCK_CTRL"),
        ({"flags_kept": 1}, "went away"),
        ({"flags_cleared": 3}, "came back"),
    ],
)  # fmt: skip
def test_what_the_guest_saw_contradicts_the_abi(changes, reason):
    finding = judge(with_guest(good(), **changes))
    assert finding.verdict is Verdict.BROKEN
    assert reason in finding.reason


@pytest.mark.parametrize(
    "changes", [{"worst": 100 * MS + 1}, {"set_ns": SET_TO - 100 * MS - 1}, {"set_ns": SET_TO + 101 * MS + 1}]
)
def test_without_a_master_not_everything_is_forgiven(changes):
    assert judge(with_guest(good(flags=0), **changes)).verdict is Verdict.BROKEN


def test_the_old_pair_is_asked_for_its_own_bit():
    old = replace(good(flags=0), bit=0)
    assert judge(old).verdict is Verdict.WORKS
    assert "without bit 0" in judge(with_guest(old, features=0x01007EFA)).reason


@pytest.mark.parametrize("off", [-3, 3])
def test_a_wall_clock_that_is_off_is_broken(off):
    finding = judge(replace(good(), wall=EPOCH + off * MS))
    assert finding.verdict is Verdict.BROKEN
    assert "the wall clock says" in finding.reason


def test_system_time_that_does_not_fit_the_time_of_day_is_broken():
    """Wall clock and KVM_GET_CLOCK agree with themselves, and CLOCK_REALTIME has gone on by a second more."""
    evidence = good()
    late = {n: replace(evidence.at[n], realtime=evidence.at[n].realtime + 10**9) for n in (3, 4)}
    finding = judge(replace(evidence, at=evidence.at | late))
    assert finding.verdict is Verdict.BROKEN
    assert "wall clock + system time" in finding.reason


@pytest.mark.parametrize(("khz", "verdict"), [(2_596_151, Verdict.WORKS), (2_596_150, Verdict.BROKEN)])
def test_the_rate_is_right_within_a_kilohertz(khz, verdict):
    finding = judge(replace(good(), tsc_khz=khz))
    assert finding.verdict is verdict
    assert pvclock_khz(PAGE["tsc_to_system_mul"], PAGE["tsc_shift"]) == 2_596_152
    assert ("KVM_GET_TSC_KHZ" in finding.reason) is (verdict is Verdict.BROKEN)


def test_evidence_is_kept_when_broken():
    finding = judge(with_guest(good(), cross_backward=2, cross_worst=17))
    assert finding.evidence["steps_back_on_both"] == 2
    assert "by up to 17 ns" in finding.reason
