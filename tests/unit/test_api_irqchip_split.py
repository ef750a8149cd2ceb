# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of irqchip_split on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.irqchip_split import Evidence, judge
from vmm.payload.catalog import find
from vmm.payload.proof.verdict import Verdict

RESULTS = {
    "version": 0x170011,
    "id": 0x0F000000,
    "edge_up": 1,
    "edge_held": 1,
    "edge_masked": 1,
    "edge_again": 2,
    "level": 3,
    "level_after": 3,
    "rte": 0x805B,
    "nmi": 1,
}
GOOD = Evidence(RESULTS, 3, held=True)


def verdicts(seen: Evidence) -> list[Verdict]:
    found = judge(seen)
    assert tuple(found) == find("irqchip_split").header.proves
    return [each.verdict for each in found.values()]


def test_works() -> None:
    assert verdicts(GOOD) == [Verdict.WORKS] * 2


@pytest.mark.parametrize("name", RESULTS)
def test_one_wrong_result_breaks_its_row(name: str) -> None:
    level = name in ("level", "level_after", "rte")
    seen = replace(GOOD, results=RESULTS | {name: RESULTS[name] + 1})
    assert verdicts(seen) == ([Verdict.WORKS, Verdict.BROKEN] if level else [Verdict.BROKEN, Verdict.WORKS])


@pytest.mark.parametrize("eois", [0, 2, 4])
def test_each_interrupt_of_a_level_has_one_exit(eois: int) -> None:
    assert verdicts(replace(GOOD, eois=eois)) == [Verdict.WORKS, Verdict.BROKEN]


def test_a_level_that_comes_once_is_broken() -> None:
    seen = Evidence(RESULTS | {"level": 1, "level_after": 1}, 0, held=True)
    assert judge(seen)["ioapic_eoi_exit"].reason == "level is 1, and should be 3"
