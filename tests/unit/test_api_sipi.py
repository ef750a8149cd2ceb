# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on INIT and SIPI, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.sipi import Evidence, Started, judge
from vmm.payload.proof.verdict import Verdict

ONE = Started(0x800, 0, 0x60000010, 0xD01)
GOOD = Evidence(1, 1, 3, 3, 3, (ONE, ONE))


def test_works() -> None:
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS
    assert "2 CPUs from real mode at 0x0800:0" in finding.summary


@pytest.mark.parametrize(
    ("evidence", "text"),
    [
        (replace(GOOD, after_init=3), "after INIT and before SIPI"),
        (replace(GOOD, arrived=1, again=1), "1 of 3 CPUs"),
        (replace(GOOD, again=5), "start again"),
        (replace(GOOD, started=(ONE, replace(ONE, cs=0))), "CPU 2 started at 0x0000"),
        (replace(GOOD, started=(replace(ONE, ip=2), ONE)), "0x0800:0x2"),
        (replace(GOOD, started=(replace(ONE, cr0=0x11), ONE)), "not real mode"),
        (replace(GOOD, started=(ONE, replace(ONE, efer=0x100))), "not in long mode"),
    ],
)
def test_broken(evidence: Evidence, text: str) -> None:
    finding = judge(evidence)
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason
