# SPDX-License-Identifier: GPL-2.0-or-later
"""The paravirtual tables: names, decoding, and that they refer to rows that exist."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.abi import msrs, pv


@pytest.mark.parametrize("feature", pv.FEATURES, ids=lambda feature: feature.name)
def test_a_feature_refers_to_rows_that_exist(feature: pv.Feature) -> None:
    assert all(msrs.find(f"MSR_KVM_{name}") for name in feature.msrs)
    assert all(pv.find_hypercall(name) for name in feature.hypercalls)
    assert feature.register in ("eax", "edx")
    assert feature.offered_by in ("kvm", "vmm", "")
    assert feature.offered_by != "vmm" or feature.duty, "what the VMM offers comes with a duty"
    assert pv.find(feature.name) is pv.find(feature.kernel_name) is feature


@pytest.mark.parametrize("call", pv.HYPERCALLS, ids=lambda call: call.name)
def test_a_hypercall_refers_to_rows_that_exist(call: pv.Hypercall) -> None:
    assert pv.find_hypercall(call.kernel_name) is pv.find_hypercall(call.nr) is call
    if call.gate:
        gate = pv.find(call.gate)
        assert gate is not None
        assert call.name in gate.hypercalls


def test_what_a_current_kernel_offers() -> None:
    offered = sum(feature.mask for feature in pv.FEATURES if feature.offered_by == "kvm")
    assert offered == 0x01007EFB


def test_names() -> None:
    assert pv.find("pv-eoi") is pv.find("KVM_FEATURE_PV_EOI")
    assert pv.find("KVM_HINTS_REALTIME") is pv.find("HINTS_REALTIME")
    assert pv.find("nothing") is None
    assert pv.unknown("STEALTIME").startswith("no paravirtual feature is called 'STEALTIME'; did you mean STEAL_TIME")
    assert pv.find_hypercall("nothing") is None
    assert (pv.hypercall_name(10), pv.hypercall_name(99)) == ("SEND_IPI", "hypercall 99")


@given(st.integers(0, 0xFFFFFFFF), st.sampled_from(["eax", "edx"]))
def test_describe_keeps_every_bit(value: int, register: str) -> None:
    masks = {feature.name: feature.mask for feature in pv.FEATURES if feature.register == register}
    assert sum(masks.get(word) or int(word, 16) for word in pv.describe(value, register).split("|")) == value


def test_describe() -> None:
    assert pv.describe(1 << 3 | 1 << 30) == "CLOCKSOURCE2|0x40000000"
    assert pv.describe(1, "edx") == "HINTS_REALTIME"
    assert pv.describe(0) == "0"


@pytest.mark.parametrize(
    ("rax", "words"),
    [
        (0, "0"),
        (3, "3"),
        ((1 << 64) - 1000, "-KVM_ENOSYS (-1000)"),
        (-1, "-KVM_EPERM (-1)"),
        (0xFFFFFC18, "-KVM_ENOSYS (-1000)"),
        ((1 << 64) - 5, "-5"),
    ],
)
def test_return_values(rax: int, words: str) -> None:
    assert pv.return_words(rax) == words
