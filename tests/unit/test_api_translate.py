# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on KVM_TRANSLATE, from evidence made up by hand; and that the random tables have what they should."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from guest_payloads.api.translate import PAGES, POOL, TAGGED, Evidence, One, judge, random_address, random_tables
from vmm.machine.x86.page_entries import NX, PRESENT, PSE
from vmm.payload.proof.verdict import Verdict

PAGE = One(0x8000001000, 0x201000, 0x201000, "", 0x201000)
HOLE = One(0x8000002000, None, None, "not present", None)
FAR = One(0x8000003000, 0x5000000, 0x5000000, "", -1)


def test_works() -> None:
    finding = judge(Evidence([PAGE, HOLE, FAR]))
    assert finding.verdict is Verdict.WORKS
    assert "3 random addresses" in finding.summary
    assert finding.evidence["of which pages"] == 2
    assert finding.evidence["read by the guest"] == 2


@pytest.mark.parametrize(
    ("one", "text"),
    [
        (replace(PAGE, kvm=0x202000), "KVM_TRANSLATE says 0x202000"),
        (replace(PAGE, kvm=None), "KVM_TRANSLATE says no page"),
        (replace(HOLE, kvm=0x1000), "pyvmm's walk no page not present"),
        (replace(PAGE, cpu=0x202000), "the guest finds 0x202000"),
        (replace(PAGE, cpu=None), "the guest finds no page"),
        (replace(HOLE, cpu=0x201000), "KVM_TRANSLATE and pyvmm no page"),
    ],
)
def test_any_difference_is_broken(one: One, text: str) -> None:
    finding = judge(Evidence([PAGE, HOLE, one]))
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason


@pytest.mark.parametrize("found", [[], [PAGE], [HOLE], [FAR, replace(HOLE, cpu=-1)]])
def test_too_little_to_judge(found: list[One]) -> None:
    assert judge(Evidence(found)).verdict is Verdict.UNPROVEN


def test_the_tables_have_everything() -> None:
    rng = random.Random(3)
    entries: dict[int, set[int]] = {level: set() for level in PAGES}
    for _ in range(40):
        tables = random_tables(rng, 40, True)
        at = POOL
        for level, count in PAGES.items():
            for _ in range(count):
                entries[level] |= {tables.pages[at][index] for index in tables.filled[level]}
                at += 0x1000
        for _ in range(50):
            va = random_address(rng, tables)
            assert 1 << 39 <= va < 5 << 39
            assert va % 8 == 0
    for level, found in entries.items():
        assert any(not each & PRESENT for each in found)
        assert any(each & NX for each in found)
        assert any(each & PRESENT and each >> 40 & 0xFFF for each in found), "no reserved address bit"
        assert any(each & PRESENT and each & PSE for each in found) == (level > 1)
    assert all(each & 0xF_FFFF_F000 in TAGGED for each in entries[1] if each & PRESENT)
