# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on pages that the host supplies, on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.demand_paging import PAGES, TOUCHED, WANT, Evidence, judge, source
from vmm.abi.x86 import PAGE
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(WANT, TOUCHED, tuple(sorted(TOUCHED)))


def test_works():
    assert judge(GOOD).verdict is Verdict.WORKS


@pytest.mark.parametrize("name", WANT)
def test_another_value_is_broken(name):
    assert judge(replace(GOOD, read=WANT | {name: 1})).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    "change",
    [{"asked": ()}, {"asked": (*TOUCHED, 12)}, {"asked": TOUCHED[::-1]}, {"supplied": (2, 5, 9)}, {"supplied": (1,)}],
)
def test_broken(change):
    assert judge(replace(GOOD, **change)).verdict is Verdict.BROKEN


def test_every_page_of_the_source_is_whole():
    assert {len(data) for page in range(PAGES) if (data := source(page))} == {PAGE}
    assert source(11) is None
