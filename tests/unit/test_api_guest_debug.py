# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on debugging, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.guest_debug import KINDS, VECTORS, WANTED, Evidence, judge
from vmm.errors import UsageError
from vmm.kvm.vcpu import Watchpoint
from vmm.payload.proof.verdict import Verdict


def good(kind: str) -> Evidence:
    vector = VECTORS.get(kind, 1)
    return Evidence(kind, tuple((label, vector) for label in WANTED[kind]), "", "", (3, 3))


@pytest.mark.parametrize("kind", KINDS)
def test_works(kind: str) -> None:
    finding = judge(good(kind))
    assert finding.verdict is Verdict.WORKS
    assert WANTED[kind][0] in finding.summary


@pytest.mark.parametrize("kind", KINDS)
def test_inert_where_nothing_strikes(kind: str) -> None:
    finding = judge(replace(good(kind), found=()))
    assert finding.verdict is Verdict.INERT
    assert "none ever gives" in finding.reason


@pytest.mark.parametrize("kind", KINDS)
def test_inert_where_the_guest_takes_it(kind: str) -> None:
    vector = VECTORS.get(kind, 1)
    evidence = replace(good(kind), found=(), ended="an exception", sums=(1, 0), taken=vector)
    assert "the guest itself takes" in judge(evidence).reason
    assert judge(evidence).verdict is Verdict.INERT
    assert judge(replace(evidence, taken=13)).verdict is Verdict.BROKEN
    assert judge(replace(evidence, found=good(kind).found)).verdict is Verdict.BROKEN


def test_an_int3_that_cannot_be_emulated() -> None:
    evidence = Evidence("sw_breakpoints", (), "KVM gave up", "two", (1, 0))
    assert judge(evidence).verdict is Verdict.INERT
    assert judge(replace(evidence, failed="three")).verdict is Verdict.BROKEN
    assert judge(replace(evidence, kind="singlestep")).verdict is Verdict.BROKEN


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"found": (("one", 1),)}, "struck at one"),
        ({"found": (("two", 13),)}, "it should be"),
        ({"sums": (1, 3)}, "the guest came to"),
        ({"ended": "a triple fault"}, "a triple fault"),
    ],
)
def test_broken(kind: str, change: dict[str, object], text: str) -> None:
    finding = judge(replace(good(kind), **change))
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason


def test_watchpoints_as_dr7_has_them() -> None:
    assert [Watchpoint(0, size).control for size in (1, 2, 4, 8)] == [0b0001, 0b0101, 0b1101, 0b1001]
    assert Watchpoint(0x1000, 4, reads=True).control == 0b1111
    for address, size in ((0, 3), (0, 16), (2, 4)):
        with pytest.raises(UsageError, match="aligned"):
            assert Watchpoint(address, size).control
