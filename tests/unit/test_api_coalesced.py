# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdicts on coalesced writes, on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.coalesced import Counts, Evidence, judge
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(tuple(range(1, 525)), 524, Counts(440, 2), Counts(40, 0), Counts(20, 20), Counts(20, 20), pio=True)


def verdicts(seen: Evidence) -> tuple[Verdict, Verdict]:
    rows = judge(seen)
    return rows["coalesced_mmio"].verdict, rows["coalesced_pio"].verdict


def test_works():
    assert verdicts(GOOD) == (Verdict.WORKS, Verdict.WORKS)


@pytest.mark.parametrize(
    "order",
    [GOOD.order[:-1], (*GOOD.order, 525), (2, 1, *GOOD.order[2:]), (1, 1, *GOOD.order[2:]), ()],
)
def test_lost_doubled_or_out_of_order_is_broken(order):
    assert verdicts(replace(GOOD, order=order)) == (Verdict.BROKEN, Verdict.BROKEN)


@pytest.mark.parametrize("counts", [Counts(440, 440), Counts(440, 5), Counts(0, 0)])
def test_exits_for_collected_mmio_are_broken(counts):
    assert verdicts(replace(GOOD, mmio=counts)) == (Verdict.BROKEN, Verdict.WORKS)


@pytest.mark.parametrize("counts", [Counts(40, 40), Counts(40, 1), Counts(0, 0)])
def test_exits_for_collected_port_writes_are_broken(counts):
    assert verdicts(replace(GOOD, ports=counts)) == (Verdict.WORKS, Verdict.BROKEN)


@pytest.mark.parametrize("counts", [Counts(20, 0), Counts(20, 19), Counts(0, 0)])
def test_without_the_zone_every_write_exits(counts):
    assert verdicts(replace(GOOD, mmio_alone=counts))[0] is Verdict.BROKEN
    assert verdicts(replace(GOOD, ports_alone=counts))[1] is Verdict.BROKEN


def test_without_the_capability_ports_are_absent():
    assert verdicts(replace(GOOD, pio=False, ports=Counts(40, 40))) == (Verdict.WORKS, Verdict.ABSENT)
