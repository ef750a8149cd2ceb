# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of ASYNC_PF_VMEXIT on synthetic evidence: what the MSR answers, and what nesting there is."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from guest_payloads.pv import async_pf_vmexit
from guest_payloads.pv.async_pf_vmexit import WRITTEN, Evidence, judge
from vmm.payload.catalog import find
from vmm.payload.lab import Lab
from vmm.payload.options import Options
from vmm.payload.verdict import Verdict

SHOWN = Evidence(feature=1, nesting=0, refused=0, read_back=WRITTEN, refused_without=0)
HIDDEN = Evidence(feature=0, nesting=0, refused=1, read_back=0, refused_without=0)


def test_the_value_is_all_three_flags() -> None:
    assert WRITTEN & 0x3F == 0b1101


def test_without_nesting_it_is_inert_and_says_why() -> None:
    finding = judge(SHOWN, HIDDEN)
    assert finding.verdict is Verdict.INERT
    assert "neither VMX nor SVM" in finding.reason
    assert finding.evidence["refused_when_enforced"] == 1


def test_with_nesting_it_is_unproven_and_says_what_is_missing() -> None:
    finding = judge(replace(SHOWN, nesting=1), replace(HIDDEN, nesting=1))
    assert finding.verdict is Verdict.UNPROVEN
    assert "needs a hypervisor in the guest" in finding.reason


@pytest.mark.parametrize(
    ("shown", "hidden", "words"),
    [
        ({"feature": 0}, {}, "CPUID bit 10 reads 0"),
        ({}, {"feature": 1}, "1 when masked"),
        ({"refused": 1}, {}, "#GP although the guest has the feature"),
        ({"read_back": WRITTEN & ~4}, {}, "the MSR reads"),
        ({}, {"refused": 0}, "accepted although the feature is hidden"),
        ({}, {"refused_without": 1}, "says nothing of the bit"),
    ],
    ids=str,
)
def test_broken(shown: dict[str, int], hidden: dict[str, int], words: str) -> None:
    finding = judge(replace(SHOWN, **shown), replace(HIDDEN, **hidden))
    assert finding.verdict is Verdict.BROKEN
    assert words in finding.reason


@pytest.mark.parametrize(
    ("mask", "verdict", "words"),
    [
        ("ASYNC_PF_VMEXIT", Verdict.ABSENT, "masked"),
        ("ASYNC_PF", Verdict.INERT, "without ASYNC_PF "),
        ("ASYNC_PF_INT", Verdict.INERT, "without ASYNC_PF_INT"),
    ],
)
def test_masked(monkeypatch: pytest.MonkeyPatch, mask: str, verdict: Verdict, words: str) -> None:
    monkeypatch.setattr("vmm.payload.lab.supported", lambda: SimpleNamespace(has=lambda name: True))
    lab = Lab(find("async_pf_vmexit"), Options(mask=(mask,)))
    finding = async_pf_vmexit.prove(lab)
    assert finding.verdict is verdict
    assert words in finding.reason
    if mask != "ASYNC_PF_VMEXIT":
        assert async_pf_vmexit.refusals(lab) == []
