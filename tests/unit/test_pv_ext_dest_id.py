# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on MSI_EXT_DEST_ID, on made-up evidence: where each message arrived."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv.ext_dest_id import BIT, FAR, IDS, MESSAGES, NEAR, Came, Evidence, judge
from vmm.abi.apic import msi_address
from vmm.payload.proof.verdict import Verdict

CAME = tuple(
    Came(each.destination, True, msi_address(each.destination, extended=True), int(bool(each.targets)), each.targets)
    for each in MESSAGES
)
RAW = Came(FAR, False, CAME[0].address, 1, (NEAR,))
GOOD = Evidence(BIT, IDS, CAME, RAW)


def with_row(row: int, **change) -> Evidence:
    came = list(CAME)
    came[row] = replace(came[row], **change)
    return replace(GOOD, came=tuple(came))


def test_works():
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS, finding
    assert "0xfee2c020" in finding.line
    assert judge(replace(GOOD, untranslated=replace(RAW, targets=(), result=0))).verdict is Verdict.WORKS


@pytest.mark.parametrize(
    "targets", [(), (NEAR,), (FAR, NEAR), (FAR, FAR)], ids=["lost", "low bits only", "also at 44", "twice"]
)
def test_an_msi_that_does_not_arrive_there_and_only_there_is_broken(targets):
    finding = judge(with_row(0, targets=targets))
    assert finding.verdict is Verdict.BROKEN
    assert str(FAR) in finding.reason


@pytest.mark.parametrize("row", range(len(MESSAGES)))
def test_a_result_that_contradicts_the_delivery_is_broken(row):
    assert judge(with_row(row, result=1 - CAME[row].result)).verdict is Verdict.BROKEN


def test_a_message_for_nobody_that_somebody_takes_is_broken():
    row = next(row for row, each in enumerate(MESSAGES) if not each.targets)
    assert judge(with_row(row, targets=(NEAR,), result=1)).verdict is Verdict.BROKEN


@pytest.mark.parametrize("change", [{"features": 0}, {"ids": (0, NEAR, NEAR)}, {"came": CAME[:-1]}])
def test_broken(change):
    assert judge(replace(GOOD, **change)).verdict is Verdict.BROKEN
