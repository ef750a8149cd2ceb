# SPDX-License-Identifier: GPL-2.0-or-later
"""MSI_EXT_DEST_ID on this host, and the same proof untranslated, with other address bits, and without 32-bit ids."""

from __future__ import annotations

import pytest

from guest_payloads.pv import ext_dest_id
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict


def run(*, enforce: bool = False, **options) -> Row:
    (row,) = prove(find("ext_dest_id"), Options(**options), enforce=enforce)
    return row


@pytest.mark.parametrize("enforce", [False, True])
def test_an_msi_arrives_at_id_300_and_only_there(enforce):
    row = run(enforce=enforce)
    assert row.verdict is Verdict.WORKS, row.finding.reason
    assert not row.offered, "the VMM offers it, not KVM"
    assert row.finding.evidence["message 1 to 300"] == "address 0xfee2c020, result 1, taken by [300]"
    assert [each.observed for each in row.refusals] == ["not there", "not there", "there"]


def test_masked_and_enforced_it_is_absent():
    row = run(mask=("MSI_EXT_DEST_ID",), enforce=True)
    assert (row.verdict, row.finding.reason) == (Verdict.ABSENT, "masked")


@pytest.mark.sabotage
def test_without_the_translation_it_is_broken(monkeypatch):
    monkeypatch.setattr(ext_dest_id, "translate_ext_dest_id", lambda address: address)
    row = run()
    assert row.verdict is Verdict.BROKEN
    assert "taken by [44]" in row.finding.reason


@pytest.mark.sabotage
@pytest.mark.parametrize("shift", [4, 6, 20])
def test_other_address_bits_are_broken(shift):
    assert run(params={"shift": shift}).verdict is Verdict.BROKEN
