# SPDX-License-Identifier: GPL-2.0-or-later
"""The removed paravirtual MMU on this host: neither offered nor answered, whoever sets the bit."""

from __future__ import annotations

import pytest

from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict


def test_it_is_absent_and_its_hypercall_unknown():
    (row,) = prove(find("mmu_op"))
    if row.offered:
        assert row.verdict is Verdict.UNPROVEN
        return
    assert row.verdict is Verdict.ABSENT, row.finding.reason
    assert (row.finding.evidence["vapic_poll_irq"], row.finding.evidence["mmu_op"]) == (0, -1000)


@pytest.mark.parametrize("enforce", [False, True])
def test_setting_the_bit_brings_nothing_back(enforce):
    with Lab(find("mmu_op")).guest(expose=("MMU_OP",), enforce=enforce) as guest:
        guest.run()
        assert guest["features"] >> 2 & 1
        assert (guest["poll"], guest["result"]) == (0, -1000)


@pytest.mark.sabotage
def test_a_hypercall_that_is_answered_is_not_absent():
    (row,) = prove(find("mmu_op"), Options(params={"number": 1}))
    assert row.verdict is Verdict.BROKEN
    assert "hypercall 2 gives 0" in row.finding.reason
