# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of inject_events on made-up evidence: five rows from two guests."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.inject_events import ADDRESS, Evidence, judge
from vmm.payload.catalog import find
from vmm.payload.proof.verdict import Verdict

FEATURES = find("inject_events").header.proves

RESULTS = {
    "ud": 1,
    "ud_rip": 0,
    "gp": 1,
    "gp_code": 0x1238,
    "pf": 2,
    "pf_code": 6,
    "cr2_before": 0,
    "cr2": ADDRESS,
    "db": 1,
    "dr6": 0x4000,
    "interrupt": 1,
    "nmi": 1,
}
ROW = dict.fromkeys(("cr2", "db", "dr6"), "inject_exception_payload")
ROW |= {"interrupt": "inject_interrupt", "nmi": "inject_nmi"}
GOOD = Evidence(RESULTS, payload=True, triple="shutdown")


def broken(seen: Evidence) -> set[str]:
    found = judge(seen)
    assert tuple(found) == FEATURES
    return {name for name, each in found.items() if each.verdict is Verdict.BROKEN}


def test_works() -> None:
    assert broken(GOOD) == set()
    assert all(each.verdict is Verdict.WORKS for each in judge(GOOD).values())


@pytest.mark.parametrize("name", RESULTS)
def test_one_wrong_result_breaks_its_row(name: str) -> None:
    seen = replace(GOOD, results=RESULTS | {name: RESULTS[name] + 1})
    assert broken(seen) == {ROW.get(name, "inject_exception")}


def test_what_kvm_does_not_have_is_absent() -> None:
    without = RESULTS | {"pf": 1, "cr2": 0, "db": 0, "dr6": 0}
    found = judge(Evidence(without, payload=False, triple=""))
    absent = {name for name, each in found.items() if each.verdict is Verdict.ABSENT}
    assert absent == {"inject_exception_payload", "triple_fault_event"}
    assert found["inject_exception"].verdict is Verdict.WORKS


def test_a_guest_that_survives_its_triple_fault_is_broken() -> None:
    assert broken(replace(GOOD, triple="exit port")) == {"triple_fault_event"}
