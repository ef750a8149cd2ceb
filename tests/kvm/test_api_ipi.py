# SPDX-License-Identifier: GPL-2.0-or-later
"""ipi on this host: every kind arrives where it should; sent as another kind, it does not."""

from __future__ import annotations

import pytest

from vmm.abi.apic import DM_NMI
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict


def test_works():
    rows = prove(find("ipi"))
    assert [row.verdict for row in rows] == [Verdict.WORKS] * 3, [row.finding.reason for row in rows]


@pytest.mark.parametrize("mode", [DM_NMI])
def test_sent_in_another_mode_the_first_is_broken(mode):
    rows = {row.name: row for row in prove(find("ipi"), Options(params={"mode": mode}))}
    assert rows["ipi"].verdict is Verdict.BROKEN
    assert rows["ipi"].finding.reason.startswith("fixed, to APIC id 1")
    assert rows["ipi_init_sipi"].verdict is Verdict.WORKS


def test_smi_works_or_its_capability_is_named(kvm):
    (row,) = prove(find("ipi_smi"))
    if kvm.check_extension("X86_SMM"):
        assert row.verdict is Verdict.WORKS, row.finding.reason
    else:
        assert row.verdict is Verdict.ABSENT
        assert "KVM_CAP_X86_SMM" in row.finding.reason


def test_a_fixed_ipi_in_its_place_is_broken(monkeypatch):
    monkeypatch.setattr("vmm.payload.proof.prove.check_needs", lambda payload: None)
    (row,) = prove(find("ipi_smi"), Options(params={"mode": 0}))
    assert row.verdict is Verdict.BROKEN
    assert row.finding.evidence == {"entered": 0, "answers": 1}
