# SPDX-License-Identifier: GPL-2.0-or-later
"""ASYNC_PF_VMEXIT on the device: the MSR's answers with the feature, without, and with a wrong MSR."""

from __future__ import annotations

import pytest

from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import supported
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

pytestmark = pytest.mark.kvm


@pytest.fixture(autouse=True)
def _offered() -> None:
    if not all(supported().has(name) for name in ("ASYNC_PF", "ASYNC_PF_INT", "ASYNC_PF_VMEXIT")):
        pytest.skip("this KVM does not offer ASYNC_PF_VMEXIT")


def row(*, mask: tuple[str, ...] = (), enforce: bool = False, **params: int) -> Row:
    return prove(find("async_pf_vmexit"), Options(mask=mask, params=params), enforce=enforce)[0]


def test_the_bit_is_gated_and_the_rest_needs_nesting() -> None:
    made = row()
    assert made.finding.evidence["accepted_with_feature"] == 1
    assert made.finding.evidence["refused_when_enforced"] == 1
    assert all(each.holds for each in made.refusals)
    nesting = supported().has("svm") or supported().has("vmx")
    assert made.finding.evidence["guest_sees_vmx_or_svm"] == int(nesting)
    if not nesting:
        assert made.verdict is Verdict.INERT, made.finding.reason
        assert len(made.refusals) == 4
        return
    assert made.verdict is Verdict.WORKS, made.finding.reason
    if made.finding.deviations:  # this kernel looks at what it queued while the window is asked for: docs/hosts.md
        assert set(made.finding.evidence["exits"]) != set(made.finding.evidence["window.exits"])
    assert len(made.refusals) == 6


def test_without_nesting_it_is_inert() -> None:
    made = row(mask=("svm", "vmx"))
    assert made.verdict is Verdict.INERT, made.finding.reason
    assert len(made.refusals) == 4


@pytest.mark.parametrize("enforce", [False, True])
@pytest.mark.parametrize("mask", ["ASYNC_PF_VMEXIT", "ASYNC_PF", "ASYNC_PF_INT"])
def test_masked(mask: str, enforce: bool) -> None:
    wanted = Verdict.ABSENT if mask == "ASYNC_PF_VMEXIT" else Verdict.INERT
    assert row(mask=(mask,), enforce=enforce).verdict is wanted


@pytest.mark.parametrize("msr", [0x4B564D00, 0x4B564D01, 0x4B564D03], ids=hex)
def test_a_wrong_msr_is_broken(msr: int) -> None:
    assert row(msr=msr).verdict is Verdict.BROKEN


# On every host only one of them: each proof runs several nested guests, which takes a minute where the CPU is emulated,
# and the proof as it should be is a row of the table that each host gives.
@pytest.mark.sabotage
@pytest.mark.parametrize(
    "control",
    [
        pytest.param(0b1011, id="without bit 2", marks=pytest.mark.every_host),
        pytest.param(0b1101, id="in ring 0 without bit 1"),
    ],
)
def test_a_nested_guest_that_is_not_told_is_broken(control: int) -> None:
    if not (supported().has("svm") or supported().has("vmx")):
        pytest.skip("this KVM offers neither SVM nor VMX to its guests")
    made = row(control=control)
    assert made.verdict is Verdict.BROKEN
    assert "waited in its load" in made.finding.reason
