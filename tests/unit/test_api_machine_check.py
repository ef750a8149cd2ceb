# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of machine_check on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.machine_check import ADDRESS, CORRECTED, IN_PROGRESS, MISC, UNCORRECTED, Evidence, judge
from vmm.abi import irq

RESULTS = {
    "banks": 5,
    "ctl_p": 1,
    "quiet": 0,
    "status": CORRECTED,
    "addr": ADDRESS,
    "misc": MISC,
    "over": CORRECTED | irq.MCI_STATUS_OVER,
    "cleared": 0,
    "disabled": 0,
    "mc": 1,
    "mc_status": UNCORRECTED,
    "mcg_status": IN_PROGRESS,
}
UNCORRECTED_ROW = {"disabled", "mc", "mc_status", "mcg_status"}
GOOD = Evidence(RESULTS, "shutdown")


def verdicts(seen: Evidence) -> list[str]:
    return [str(each.verdict) for each in judge(seen).values()]


def test_works() -> None:
    assert verdicts(GOOD) == ["works", "works"]


@pytest.mark.parametrize("name", RESULTS)
def test_one_wrong_result_breaks_its_row(name: str) -> None:
    seen = replace(GOOD, results=RESULTS | {name: RESULTS[name] + 1})
    assert verdicts(seen) == (["works", "broken"] if name in UNCORRECTED_ROW else ["broken", "works"])


def test_a_second_error_without_overflow_is_broken() -> None:
    assert verdicts(replace(GOOD, results=RESULTS | {"over": CORRECTED}))[0] == "broken"


def test_a_guest_that_does_not_take_it_must_not_go_on() -> None:
    assert verdicts(replace(GOOD, without_mce="exit port")) == ["works", "broken"]
