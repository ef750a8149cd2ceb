# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of irqchip_none on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.irqchip_none import ORDER, Evidence, judge
from vmm.payload.proof.verdict import Verdict

RESULTS = {"closed": 0, "first": 1, "second": 1, "open": 1, "woken": 1, "nmi": 1}
GOOD = Evidence(RESULTS, ORDER, windows=2, halts=1)


def test_works() -> None:
    assert judge(GOOD).verdict is Verdict.WORKS


@pytest.mark.parametrize("name", RESULTS)
def test_one_wrong_result_is_broken(name: str) -> None:
    finding = judge(replace(GOOD, results=RESULTS | {name: 1 - RESULTS[name]}))
    assert finding.verdict is Verdict.BROKEN
    assert finding.reason.startswith(f"{name} is")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"order": (0x52, 0x51, 0x53, 0x54)}, "order"), ({"windows": 0}, "window"), ({"halts": 0}, "HLT")],
)
def test_what_the_host_saw_counts(change: dict[str, object], reason: str) -> None:
    finding = judge(replace(GOOD, **change))
    assert finding.verdict is Verdict.BROKEN
    assert reason in finding.reason
