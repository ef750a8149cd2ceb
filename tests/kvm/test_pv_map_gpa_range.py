# SPDX-License-Identifier: GPL-2.0-or-later
"""HC_MAP_GPA_RANGE on this host: by KVM_EXIT_HYPERCALL where hypercalls reach KVM, by pyvmm where they do not."""

from __future__ import annotations

import pytest

from guest_payloads.pv import map_gpa_range
from vmm.machine.extra.hypercalls import HypercallService
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict


def run(*, enforce: bool = False, **options) -> Row:
    (row,) = prove(find("map_gpa_range"), Options(**options), enforce=enforce)
    return row


@pytest.mark.parametrize("enforce", [False, True])
def test_ranges_come_to_the_vmm_and_answers_to_the_guest(enforce):
    row = run(enforce=enforce)
    numbers = row.finding.evidence
    assert row.verdict is (Verdict.SERVICED if numbers["served by pyvmm"] else Verdict.WORKS), row.finding.reason
    assert numbers["KVM_EXIT_HYPERCALL"] == (0 if numbers["served by pyvmm"] else 7)
    assert numbers["private frames"] == "0x180, 0x183, 0x185"
    assert [each.observed for each in row.refusals] == ["-KVM_ENOSYS (-1000)", "0"]


def test_masked_and_enforced_it_is_absent():
    row = run(mask=("HC_MAP_GPA_RANGE",), enforce=True)
    assert (row.verdict, row.finding.reason) == (Verdict.ABSENT, "masked")


@pytest.mark.sabotage
@pytest.mark.parametrize("nr", [1, 5, 99])
def test_another_hypercall_is_broken(nr):
    assert run(params={"nr": nr}).verdict is Verdict.BROKEN


@pytest.mark.sabotage
def test_without_the_capability_it_is_broken(monkeypatch):
    monkeypatch.setattr(map_gpa_range, "enable", lambda machine: None)
    assert run().verdict is Verdict.BROKEN


@pytest.mark.sabotage
def test_a_vmm_that_takes_every_attribute_is_broken(monkeypatch):
    monkeypatch.setattr(HypercallService, "_exit_map_gpa_range", lambda self, gpa, pages, attributes, *rest: 0)
    assert run().verdict is Verdict.BROKEN


def test_the_guest_must_see_the_bit(monkeypatch):
    monkeypatch.setattr(map_gpa_range.Lab, "masked", lambda lab, feature: False)
    monkeypatch.setattr(map_gpa_range, "BIT", 1 << 31)
    assert run().verdict is Verdict.BROKEN
