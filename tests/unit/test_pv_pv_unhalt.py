# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on PV_UNHALT, on made-up evidence: who kicked, what woke, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.pv_unhalt import Evidence, Rest, judge
from vmm.payload.proof.verdict import Verdict

RESTS = (Rest(1, 1, 0), Rest(1, 1, 0), Rest(3, 3, 2), Rest(4, 4, 3))
BY_KVM = Evidence(
    RESTS, nobody=0, kick=0, woken=1, microseconds=25.0, early=0, kept=2, icr=3, msi=4, msi_result=1, flags=0, kind=0,
    served=0,
)  # fmt: skip
BY_PYVMM = replace(BY_KVM, kind=2, served=3)


def test_works():
    finding = judge(BY_KVM)
    assert finding.verdict is Verdict.WORKS, finding
    assert "25 us" in finding.line


def test_serviced():
    finding = judge(BY_PYVMM)
    assert finding.verdict is Verdict.SERVICED
    assert "KVM_SIGNAL_MSI mode 3" in finding.reason
    assert judge(replace(BY_KVM, served=1)).verdict is Verdict.SERVICED
    assert judge(replace(BY_KVM, kind=2)).verdict is Verdict.SERVICED


@pytest.mark.parametrize("good", [BY_KVM, BY_PYVMM])
@pytest.mark.parametrize(
    "change",
    [
        {"nobody": -1000},
        {"kick": -1000},
        {"kick": -1},
        {"woken": 0},
        {"woken": 2},
        {"early": -1000},
        {"kept": 1},
        {"icr": 2},
        {"msi": 3},
        {"flags": 0x200},
        {"rests": ()},
        {"rests": RESTS[:3]},
    ],
)
def test_broken(good, change):
    assert judge(replace(good, **change)).verdict is Verdict.BROKEN


@pytest.mark.parametrize("look", range(4))
def test_awake_before_the_kick_is_broken(look):
    rests = list(RESTS)
    rests[look] = replace(rests[look], woken=rests[look].number)
    finding = judge(replace(BY_KVM, rests=tuple(rests)))
    assert finding.verdict is Verdict.BROKEN
    assert "before any kick" in finding.reason


@pytest.mark.parametrize("look", range(4))
def test_never_asleep_is_broken(look):
    rests = list(RESTS)
    rests[look] = replace(rests[look], halts=rests[look].number - 1)
    finding = judge(replace(BY_KVM, rests=tuple(rests)))
    assert finding.verdict is Verdict.BROKEN
    assert "never slept" in finding.reason
