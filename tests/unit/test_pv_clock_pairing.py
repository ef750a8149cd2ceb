# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on KVM_HC_CLOCK_PAIRING, on made-up evidence of both paths: KVM's own, and pyvmm's service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.clock_pairing import Evidence, judge
from vmm.abi.structs import KVM_CLOCK_PAIRING
from vmm.payload.proof.verdict import Verdict

SEC, NSEC, TSC = 1_700_000_000, 500_000_000, 9_000_000
NOW = SEC * 10**9 + NSEC
KHZ = 2_000_000  # two ticks a nanosecond
PAIR = KVM_CLOCK_PAIRING.pack(sec=SEC, nsec=NSEC, tsc=TSC, flags=0)
BY_KVM = Evidence(
    result=0,
    served=False,
    host_pairs=True,
    pair=PAIR,
    before=TSC - 1000,
    after=TSC + 1000,
    realtime=(NOW - 50_000, NOW + 50_000),
    tsc_khz=KHZ,
    paired=(NOW + 20_000, TSC + 40_000),
)


def pair(**changes: int) -> bytes:
    return KVM_CLOCK_PAIRING.pack(**(KVM_CLOCK_PAIRING.unpack(PAIR) | changes))


def test_a_pair_by_kvm_works():
    finding = judge(BY_KVM)
    assert (finding.verdict, finding.reason) == (Verdict.WORKS, "")
    assert finding.evidence["off_line_ns"] == 0
    assert "inside 1 us" in finding.summary


def test_a_pair_by_pyvmm_is_serviced_and_never_works():
    finding = judge(replace(BY_KVM, served=True))
    assert finding.verdict is Verdict.SERVICED
    assert "never reach KVM" in finding.reason
    assert finding.evidence["served_by_pyvmm"] is True


def test_a_host_that_does_not_count_by_the_tsc_is_unproven():
    finding = judge(replace(BY_KVM, result=-95, host_pairs=False, pair=b"\xff" * 64))
    assert finding.verdict is Verdict.UNPROVEN
    assert "TSC" in finding.reason
    assert "pair_ns" not in finding.evidence  # nothing was written


def test_a_host_that_cannot_tell_the_tsc_offset_loses_the_second_witness_only():
    finding = judge(replace(BY_KVM, paired=None))
    assert finding.verdict is Verdict.WORKS
    assert finding.evidence["off_line_ns"] is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"result": -95}, "gives -KVM_EOPNOTSUPP (-95), and the host can pair"),
        ({"result": -1000}, "gives -KVM_ENOSYS (-1000)"),
        ({"result": -1}, "gives -KVM_EPERM (-1)"),
        ({"pair": b"\xff" * 64}, "is not between"),
        ({"pair": pair(tsc=TSC - 1001)}, "is not between"),
        ({"pair": pair(tsc=TSC + 1001)}, "is not between"),
        ({"pair": pair(nsec=10**9)}, "nsec is 1000000000"),
        ({"pair": pair(nsec=-1)}, "nsec is -1"),
        ({"pair": pair(sec=SEC - 1)}, "CLOCK_REALTIME went from"),
        ({"pair": pair(sec=SEC + 1)}, "CLOCK_REALTIME went from"),
        ({"pair": pair(flags=1)}, "flags are 0x1"),
        ({"pair": PAIR[:28] + b"\xff" * 36}, "padding was not cleared"),
        ({"pair": PAIR[:63] + b"\x01"}, "padding was not cleared"),
        ({"paired": (NOW + 20_000 + 100_021, TSC + 40_000)}, "of different moments"),
        ({"paired": (NOW + 20_000 - 100_021, TSC + 40_000)}, "of different moments"),
    ],
)
@pytest.mark.parametrize("served", [False, True])
def test_what_contradicts_the_abi_is_broken_whoever_answers(changes, reason, served):
    finding = judge(replace(BY_KVM, served=served, **changes))
    assert finding.verdict is Verdict.BROKEN
    assert reason in finding.reason


@pytest.mark.parametrize(("off", "verdict"), [(2_100_000, Verdict.WORKS), (2_100_001, Verdict.BROKEN)])
@pytest.mark.parametrize("sign", [1, -1])
def test_two_rates_may_differ_the_more_the_further_apart_the_pairs_are(off, verdict, sign):
    """A slow host asks KVM_GET_CLOCK two seconds later; the TSC's rate is told in kHz, as the host measured it."""
    seconds = 2
    paired = (NOW + seconds * 10**9 + sign * off, TSC + seconds * KHZ * 1000)
    assert judge(replace(BY_KVM, paired=paired)).verdict is verdict
