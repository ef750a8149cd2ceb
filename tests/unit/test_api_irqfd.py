# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of irqfd on made-up evidence: four rows from one guest."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.irqfd import Evidence, judge
from vmm.payload.catalog import find
from vmm.payload.proof.verdict import Verdict

FEATURES = find("irqfd").header.proves

RESULTS = {
    "msi": 1,
    "routed": 1,
    "rerouted": 1,
    "old_route": 1,
    "unrouted": 2,
    "by_eventfd": 1,
    "unbound": 1,
    "level": 2,
    "rte": 0x8065,
}
ROW = {"msi": "msi", "by_eventfd": "irqfd", "unbound": "irqfd", "level": "irqfd_resample", "rte": "irqfd_resample"}
GOOD = Evidence(RESULTS, (1, 0), (1, 1))


def broken(seen: Evidence) -> set[str]:
    found = judge(seen)
    assert set(found) == set(FEATURES)
    assert all(each.verdict in (Verdict.WORKS, Verdict.BROKEN) for each in found.values())
    return {name for name, each in found.items() if each.verdict is Verdict.BROKEN}


def test_works() -> None:
    assert broken(GOOD) == set()


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("name", RESULTS)
def test_one_wrong_result_breaks_its_row(name: str, change: int) -> None:
    seen = replace(GOOD, results=RESULTS | {name: RESULTS[name] + change})
    assert broken(seen) == {ROW.get(name, "gsi_routing")}


@pytest.mark.parametrize("resamples", [(), (1,), (0, 1), (2, 1)])
def test_each_eoi_signals_the_resample_eventfd_once(resamples: tuple[int, ...]) -> None:
    assert broken(replace(GOOD, resamples=resamples)) == {"irqfd_resample"}


@pytest.mark.parametrize("signalled", [(0, 0), (1, 1)])
def test_the_return_value_tells_who_was_there(signalled: tuple[int, int]) -> None:
    assert broken(replace(GOOD, signalled=signalled)) == {"msi"}


def test_without_the_capability_resample_is_absent() -> None:
    found = judge(replace(GOOD, results=RESULTS | {"level": 0, "rte": 0}, resamples=(), resample=False))
    assert [each.verdict for each in found.values()].count(Verdict.WORKS) == 3
    assert found["irqfd_resample"].verdict is Verdict.ABSENT
    assert "KVM_CAP_IRQFD_RESAMPLE" in found["irqfd_resample"].reason
