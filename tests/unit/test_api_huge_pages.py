# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on huge pages, on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

from guest_payloads.api.huge_pages import Evidence, judge
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(given=4, large=4, large_4k=2, small=0, small_4k=4)


def test_works():
    assert judge(GOOD).verdict is Verdict.WORKS
    assert judge(replace(GOOD, given=2, large=2)).verdict is Verdict.WORKS


def test_unproven_where_the_host_has_none_to_give():
    assert judge(replace(GOOD, given=0, large=0)).verdict is Verdict.UNPROVEN


def test_inert_where_kvm_maps_small_ones():
    assert judge(replace(GOOD, large=0, large_4k=4)).verdict is Verdict.INERT


def test_large_mappings_over_small_pages_are_broken():
    assert judge(replace(GOOD, small=1)).verdict is Verdict.BROKEN
