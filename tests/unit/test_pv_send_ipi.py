# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on PV_SEND_IPI, on made-up evidence: who took what of each call."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.send_ipi import CALLS, Came, Evidence, judge
from vmm.payload.proof.verdict import Verdict

CAME = tuple(Came(call.result, () if call.nmi else call.targets, call.targets if call.nmi else ()) for call in CALLS)
BY_KVM = Evidence(CAME, kind=0, served=0)
BY_PYVMM = Evidence(CAME, kind=2, served=len(CALLS))


def with_row(good: Evidence, row: int, **change) -> Evidence:
    came = list(good.came)
    came[row] = replace(came[row], **change)
    return replace(good, came=tuple(came))


def test_works():
    finding = judge(BY_KVM)
    assert finding.verdict is Verdict.WORKS, finding
    assert judge(replace(BY_KVM, kind=1)).verdict is Verdict.WORKS


def test_serviced():
    assert judge(BY_PYVMM).verdict is Verdict.SERVICED
    assert judge(replace(BY_KVM, served=1)).verdict is Verdict.SERVICED


@pytest.mark.parametrize("good", [BY_KVM, BY_PYVMM])
@pytest.mark.parametrize("row", range(len(CALLS)), ids=lambda row: CALLS[row].what)
def test_one_wrong_row_is_broken(good, row):
    right = good.came[row]
    for change in (
        {"result": right.result + 1},
        {"result": -1000},
        {"interrupts": (*right.interrupts, 70)},  # one too many
        {"nmis": (*right.nmis, 1)},
    ):
        finding = judge(with_row(good, row, **change))
        assert finding.verdict is Verdict.BROKEN
        assert CALLS[row].what in finding.reason


@pytest.mark.parametrize("row", [row for row, call in enumerate(CALLS) if call.targets])
def test_an_ipi_at_the_wrong_vcpu_or_at_none_is_broken(row):
    field = "nmis" if CALLS[row].nmi else "interrupts"
    for took in ((), CALLS[row].targets[:-1], (5,), CALLS[row].targets * 2):
        assert judge(with_row(BY_KVM, row, **{field: took})).verdict is Verdict.BROKEN


def test_an_nmi_as_an_interrupt_is_broken():
    row = next(row for row, call in enumerate(CALLS) if call.nmi)
    assert judge(with_row(BY_KVM, row, interrupts=CALLS[row].targets, nmis=())).verdict is Verdict.BROKEN


def test_too_few_calls():
    assert judge(replace(BY_KVM, came=CAME[:-1])).verdict is Verdict.BROKEN


def test_the_calls_cover_what_the_row_promises():
    assert any(call.args[1] and 70 in call.targets for call in CALLS), "64 apart: the second word"
    assert any(call.args[2] and call.targets for call in CALLS), "an offset"
    assert any(call.nmi for call in CALLS)
    assert sum(call.result == -22 for call in CALLS) == 4
