# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory faults on this host: explained by KVM or not, but never passed over."""

from __future__ import annotations

import pytest

from guest_payloads.api import memory_fault
from vmm.payload.catalog import find
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict


def verdicts() -> dict[str, Verdict]:
    return {row.name: row.verdict for row in prove(find("memory_fault"))}


@pytest.fixture(autouse=True)
def needs_the_capability(kvm):
    if not kvm.check_extension("MEMORY_FAULT_INFO"):
        pytest.skip("this KVM lacks KVM_CAP_MEMORY_FAULT_INFO")


def test_the_verdict_is_that_of_the_exit():
    for row in prove(find("memory_fault")):
        if row.verdict is not Verdict.ABSENT:
            bare = row.finding.evidence["exit"] == "EFAULT without one"
            assert row.verdict is (Verdict.INERT if bare else Verdict.WORKS)


def test_a_file_that_is_whole_gives_no_exit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_fault, "cut", lambda file: None)
    assert verdicts()["memory_fault"] is Verdict.BROKEN


def test_a_guest_memfd_that_is_there_gives_no_exit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory_fault, "take_away", lambda memfd: None)
    assert Verdict.WORKS not in verdicts().values()
