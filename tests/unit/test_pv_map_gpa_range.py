# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on HC_MAP_GPA_RANGE, on made-up evidence: KVM's path and pyvmm's."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.map_gpa_range import ANSWERS, BIT, Evidence, expected_frames, expected_ranges, judge
from vmm.payload.proof.verdict import Verdict

GPA = 0x180000
RANGES = expected_ranges(GPA)
BY_KVM = Evidence(GPA, BIT, dict(ANSWERS), RANGES, expected_frames(GPA), exits=len(RANGES), served=0, kind=0)
BY_PYVMM = replace(BY_KVM, exits=0, served=len(ANSWERS), kind=2)


def test_works_where_kvm_exits():
    assert judge(BY_KVM).verdict is Verdict.WORKS
    assert judge(replace(BY_KVM, kind=1)).verdict is Verdict.WORKS


def test_serviced_where_no_hypercall_reaches_kvm():
    finding = judge(BY_PYVMM)
    assert finding.verdict is Verdict.SERVICED
    assert "no hypercall reaches" in finding.reason


@pytest.mark.parametrize("kind", [0, 2])
def test_one_call_served_by_pyvmm_is_never_works(kind):
    assert judge(replace(BY_KVM, kind=kind, served=1)).verdict is Verdict.SERVICED


@pytest.mark.parametrize("good", [BY_KVM, BY_PYVMM])
@pytest.mark.parametrize("name", ANSWERS)
def test_a_wrong_answer_is_broken(good, name):
    finding = judge(replace(good, rax=good.rax | {name: 5}))
    assert finding.verdict is Verdict.BROKEN
    assert name in finding.reason


@pytest.mark.parametrize("good", [BY_KVM, BY_PYVMM])
@pytest.mark.parametrize(
    "change",
    [
        {"features": 0},
        {"ranges": RANGES[:-1]},
        {"ranges": (*RANGES, (GPA | 1, 1, 0x10))},
        {"ranges": ((GPA, 5, 0x10), *RANGES[1:])},
        {"frames": ()},
        {"frames": (0x180, 0x181, 0x183, 0x185)},
    ],
)
def test_broken(good, change):
    assert judge(replace(good, **change)).verdict is Verdict.BROKEN


@pytest.mark.parametrize("exits", [0, len(RANGES) - 1, len(ANSWERS)])
def test_kvm_exits_once_for_each_valid_range(exits):
    assert judge(replace(BY_KVM, exits=exits)).verdict is Verdict.BROKEN


def test_the_frames_that_stay_private():
    assert expected_frames(GPA) == (0x180, 0x183, 0x185)
