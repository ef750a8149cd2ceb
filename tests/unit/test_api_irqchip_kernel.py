# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of irqchip_kernel on made-up evidence: each result that is wrong, and a host that ends at delivery."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.irqchip_kernel import Evidence, judge
from vmm.abi import irq
from vmm.kvm.irqchip import Pic
from vmm.payload.catalog import find
from vmm.payload.proof.verdict import Verdict

RESULTS = {
    "pic_master": 1,
    "pic_slave": 1,
    "pic_masked": 1,
    "pic_latched": 2,
    "edge_up": 1,
    "edge_held": 1,
    "edge_again": 2,
    "level": 3,
    "level_after": 3,
    "rte": 0x805B,
}


def pic(isr: int) -> Pic:
    return Pic(irr=0, imr=0, isr=isr, irq_base=0x20, elcr=0)


GOOD = Evidence(RESULTS, ((0x23, pic(8), pic(0)), (0x2A, pic(4), pic(4)), (0x23, pic(8), pic(0))), (0xC05B,) * 3)


def verdicts(seen: Evidence) -> list[Verdict]:
    found = judge(seen)
    assert tuple(found) == find("irqchip_kernel").header.proves
    return [each.verdict for each in found.values()]


def test_works() -> None:
    assert verdicts(GOOD) == [Verdict.WORKS] * 3


@pytest.mark.parametrize(
    ("name", "value", "row"),
    [
        ("pic_master", 0, 0),
        ("pic_slave", 0, 0),
        ("pic_masked", 2, 0),
        ("pic_latched", 1, 0),
        ("edge_up", 0, 1),
        ("edge_held", 2, 1),
        ("edge_again", 1, 1),
        ("level", 1, 2),
        ("level", 4, 2),
        ("level_after", 4, 2),
        ("rte", 0xC05B, 2),
    ],
)
def test_one_wrong_result_breaks_its_row(name: str, value: int, row: int) -> None:
    wanted = [Verdict.WORKS] * 3
    wanted[row] = Verdict.BROKEN
    assert verdicts(replace(GOOD, results=RESULTS | {name: value})) == wanted


def test_where_an_interrupt_ends_at_delivery_one_more_may_be_latched() -> None:
    for level, verdict in ((3, Verdict.WORKS), (4, Verdict.WORKS), (5, Verdict.BROKEN), (2, Verdict.BROKEN)):
        seen = replace(GOOD, results=RESULTS | {"level": level, "level_after": level}, held=False)
        found = judge(seen)["irq_line_level"]
        assert found.verdict is verdict
        assert ("latched" in found.summary) == (level == 4)


def test_kvms_own_view_counts() -> None:
    assert verdicts(replace(GOOD, pics=((0x23, pic(0), pic(0)), *GOOD.pics[1:])))[0] is Verdict.BROKEN
    edge = 0xC05B & ~irq.RTE_LEVEL
    assert verdicts(replace(GOOD, entries=(0xC05B, edge)))[2] is Verdict.BROKEN
