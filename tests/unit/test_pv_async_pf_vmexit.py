# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of ASYNC_PF_VMEXIT on synthetic evidence: what the MSR answers, and what a nested guest's L1 saw."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from guest_payloads.pv import async_pf_vmexit
from guest_payloads.pv.async_pf_vmexit import AS_VMEXIT, CONTENT, PLAIN, WRITTEN, Gate, Seen, judge
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

SHOWN = Gate(feature=True, refused=False, read_back=WRITTEN, refused_without=False)
HIDDEN = Gate(feature=False, refused=True, read_back=None, refused_without=False)
BY_SVM = Seen(
    hypervisor=1, broadcast=0xFFFFFFFF, exit=0x4E, event=0, error=0, token=0x1000, rip=0x21000, flags=1, early=0,
    ready=0x1000, readies=1, last=0x78, loaded=CONTENT, others=0, load=0x21000, asked=1, fetched=1, untold=0,
)  # fmt: skip
BY_VMX = replace(BY_SVM, hypervisor=2, exit=0, event=0x80000B0E, last=12)
NOT_TOLD = {"rip": 0x21008, "flags": 0, "token": 0, "ready": 0, "readies": 0, "untold": 1}
WAITED = {1: replace(BY_SVM, exit=0x78, **NOT_TOLD), 2: replace(BY_VMX, exit=12, event=0, **NOT_TOLD)}
# As Linux 6.1 and 7.2 do it: flags, and the token by interrupt, but no exit.
LOST = {kind: replace(each, flags=1, early=1, readies=1, ready=0x1000, others=1) for kind, each in WAITED.items()}
BOTH = pytest.mark.parametrize("good", [BY_SVM, BY_VMX], ids=["svm", "vmx"])


def seen(*guests: Seen) -> Finding:
    return judge(SHOWN, HIDDEN, guests)


def test_the_value_is_all_three_flags() -> None:
    assert WRITTEN & 0x3F == PLAIN | AS_VMEXIT == 0b1101


def test_without_nesting_it_is_inert_and_says_why() -> None:
    finding = judge(SHOWN, HIDDEN, None)
    assert finding.verdict is Verdict.INERT
    assert "neither VMX nor SVM" in finding.reason
    assert finding.evidence["refused_when_enforced"] == 1


@BOTH
def test_works(good: Seen) -> None:
    finding = seen(good, good, good)
    assert finding.verdict is Verdict.WORKS, finding.reason
    assert f"{good.by.name}: #PF exit" in finding.summary
    assert "token 0x1000" in finding.summary


@BOTH
def test_a_guest_that_waited_now_and_then_does_not_count(good: Seen) -> None:
    """KVM need not deliver: an event that is being injected makes it wait for the page."""
    assert seen(WAITED[good.hypervisor], good).verdict is Verdict.WORKS


@BOTH
def test_one_exit_that_was_lost_is_broken(good: Seen) -> None:
    finding = seen(good, LOST[good.hypervisor], good)
    assert finding.verdict is Verdict.BROKEN
    assert "never left the nested guest with a #PF exit, 1 times of 3" in finding.reason


@BOTH
def test_exits_that_come_with_the_interrupt_window_alone_are_a_deviation(good: Seen) -> None:
    lost = LOST[good.hypervisor]
    finding = judge(SHOWN, HIDDEN, [lost] * 3, [good] * 3)
    assert finding.verdict is Verdict.WORKS, finding.reason
    assert "alone, 3 of 3 were lost" in finding.summary
    (deviation,) = finding.of("ASYNC_PF_VMEXIT").deviations
    assert "Request event processing" in deviation.commit
    assert finding.evidence["exits"] != finding.evidence["window.exits"]


@BOTH
def test_exits_that_are_lost_with_the_window_too_are_broken(good: Seen) -> None:
    lost = LOST[good.hypervisor]
    for helped in ([lost] * 3, [good, good, lost], [WAITED[good.hypervisor], good], [replace(good, ready=0x2000)]):
        finding = judge(SHOWN, HIDDEN, [lost] * 3, helped)
        assert finding.verdict is Verdict.BROKEN
        assert "3 times of 3" in finding.reason


@BOTH
def test_no_exit_at_all_is_broken(good: Seen) -> None:
    finding = seen(*[WAITED[good.hypervisor]] * 3)
    assert finding.verdict is Verdict.BROKEN
    assert "waited in its load" in finding.reason


@BOTH
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"broadcast": 0}, "first token after switching on"),
        ({"flags": 0}, "flags 0"),
        ({"error": 4}, "error code 0x4"),
        ({"token": 0x1001}, "no token of vCPU 0"),
        ({"token": 0x1FF000 + 1, "ready": 0x1FF000 + 1}, "no token of vCPU 0"),
        ({"token": 0, "ready": 0}, "no token of vCPU 0"),
        ({"ready": 0x2000}, "the exit's was 0x1000"),
        ({"readies": 0, "ready": 0}, "0 page-ready interrupts"),
        ({"readies": 2}, "2 page-ready interrupts"),
        ({"rip": 0x21008}, "and the load is at 0x21000"),
        ({"early": 1}, "before the page was supplied"),
        ({"last": 0x7F}, "should be for its HLT"),
        ({"loaded": 0}, "the nested guest loaded 0x0"),
        ({"loaded": CONTENT ^ 1}, "and the page holds"),
    ],
    ids=str,
)
def test_one_wrong_number_is_broken(good: Seen, change: dict[str, int], words: str) -> None:
    finding = seen(good, replace(good, **change))
    assert finding.verdict is Verdict.BROKEN, finding
    assert words in finding.reason


@pytest.mark.parametrize(
    "other", [replace(BY_SVM, exit=0x4D), replace(BY_VMX, event=0x80000B0D), replace(BY_VMX, exit=48)]
)
def test_another_exit_is_none(other: Seen) -> None:
    assert "never left the nested guest with a #PF exit" in seen(other).reason


@BOTH
def test_a_host_that_was_too_slow_proves_nothing(good: Seen) -> None:
    late = replace(good, untold=1, early=1)
    finding = seen(late, late)
    assert finding.verdict is Verdict.UNPROVEN
    assert "too slow" in finding.reason
    assert seen(late, good).verdict is Verdict.WORKS


def test_a_userfaultfd_that_nobody_asked_proves_nothing() -> None:
    assert seen(replace(BY_SVM, asked=0, fetched=0)).verdict is Verdict.UNPROVEN


@pytest.mark.parametrize(
    ("shown", "hidden", "words"),
    [
        ({"feature": False}, {}, "CPUID bit 10 reads 0"),
        ({}, {"feature": True}, "1 when masked"),
        ({"refused": True}, {}, "#GP although the guest has the feature"),
        ({"read_back": WRITTEN & ~4}, {}, "the MSR reads"),
        ({"read_back": None}, {}, "the MSR reads #GP"),
        ({}, {"refused": False}, "accepted although the feature is hidden"),
        ({}, {"refused_without": True}, "says nothing of the bit"),
    ],
    ids=str,
)
@pytest.mark.parametrize("guests", [None, [BY_SVM]], ids=["no nesting", "nesting"])
def test_broken(shown: dict[str, int], hidden: dict[str, int], words: str, guests: list[Seen] | None) -> None:
    finding = judge(replace(SHOWN, **shown), replace(HIDDEN, **hidden), guests)
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
    monkeypatch.setattr("vmm.payload.proof.lab.supported", lambda: SimpleNamespace(has=lambda name: True))
    lab = Lab(find("async_pf_vmexit"), Options(mask=(mask,)))
    finding = async_pf_vmexit.prove(lab)
    assert finding.verdict is verdict
    assert words in finding.reason
    if mask != "ASYNC_PF_VMEXIT":
        assert async_pf_vmexit.refusals(lab) == []


@pytest.mark.parametrize(("mask", "left"), [((), True), (("svm",), True), (("svm", "vmx"), False)])
def test_masked_nesting_is_none(monkeypatch: pytest.MonkeyPatch, mask: tuple[str, ...], left: bool) -> None:
    monkeypatch.setattr(async_pf_vmexit, "supported", lambda: SimpleNamespace(has=lambda name: True))
    assert async_pf_vmexit.nesting(Lab(find("async_pf_vmexit"), Options(mask=mask))) is left
