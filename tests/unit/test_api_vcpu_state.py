# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on a vCPU's state, from evidence made up by hand."""

from __future__ import annotations

import pytest

from guest_payloads.api.vcpu_state import (
    DR1_VALUE,
    DR2_VALUE,
    HALTED,
    ROWS,
    RUNNABLE,
    TPR_GUEST,
    TPR_HOST,
    XMM0_VALUE,
    XMM1_VALUE,
    Evidence,
    judge,
)
from vmm.payload.proof.verdict import Verdict

HOST = {
    "xsave2": 4096, "xmm0": XMM0_VALUE, "xcr0_x87": 1, "xcr0_all": 7, "dr1": DR1_VALUE, "nmi_before": 0,
    "nmi_pending": 1, "tpr": TPR_GUEST, "state_before": RUNNABLE, "waited": 1, "moved": 0, "state_halted": HALTED,
}  # fmt: skip
GUEST = {
    "xmm": XMM1_VALUE, "size_x87": 576, "size_all": 832, "dr2": DR2_VALUE, "nmis": 1, "tpr": TPR_HOST, "awake": 1,
}  # fmt: skip


def verdicts(host: dict[str, int] | None = None, guest: dict[str, int] | None = None, offered: int = 7) -> list[str]:
    """The names that are not `works`."""
    evidence = Evidence(HOST | (host or {}), GUEST | (guest or {}), offered)
    return [name for name in ROWS if judge(name, evidence).verdict is not Verdict.WORKS]


def test_works() -> None:
    assert verdicts() == []
    assert "CPUID tells the guest 576 and 832" in judge("xcrs", Evidence(HOST, GUEST, 7)).summary


def test_a_cpu_without_more_than_sse_has_one_size() -> None:
    assert verdicts({"xcr0_all": 3}, {"size_all": 576}, 3) == []


@pytest.mark.parametrize(
    ("name", "host", "guest"),
    [
        ("xsave", {"xmm0": 0}, {}),
        ("xsave", {}, {"xmm": XMM0_VALUE}),
        ("xcrs", {"xcr0_x87": 7}, {}),
        ("xcrs", {"xcr0_all": 1}, {}),
        ("xcrs", {}, {"size_all": 576}),
        ("debugregs", {"dr1": 0}, {}),
        ("debugregs", {}, {"dr2": 0}),
        ("vcpu_events", {"nmi_before": 1}, {}),
        ("vcpu_events", {"nmi_pending": 0}, {}),
        ("vcpu_events", {}, {"nmis": 0}),
        ("vcpu_events", {}, {"nmis": 2}),
        ("lapic_state", {"tpr": 0}, {}),
        ("lapic_state", {}, {"tpr": TPR_GUEST}),
        ("mp_state", {"state_before": HALTED}, {}),
        ("mp_state", {"waited": 0}, {}),
        ("mp_state", {"moved": 2}, {}),
        ("mp_state", {"state_halted": RUNNABLE}, {}),
        ("mp_state", {}, {"awake": 0}),
    ],
)
def test_each_contradiction_breaks_its_own_row(name: str, host: dict[str, int], guest: dict[str, int]) -> None:
    assert verdicts(host, guest) == [name]
