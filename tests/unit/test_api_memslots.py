# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdicts on memslots, on made-up evidence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api import memslots
from guest_payloads.api.memslots import HOLE_ANSWER, ROM, WRITTEN, Evidence, judge
from vmm.payload.catalog import find
from vmm.payload.proof.verdict import Verdict

READ = {
    "hole": HOLE_ANSWER,
    "first": memslots.FIRST,
    "across": memslots.BESIDE << 32 | memslots.LAST,
    "rom": ROM,
    "rom_after": ROM,
    "alias": memslots.ALIAS,
    "alias_back": memslots.ALIAS_BACK,
    "moved_new": memslots.FIRST,
    "moved_old": HOLE_ANSWER,
    "shrunk_in": memslots.FIRST,
    "shrunk_out": HOLE_ANSWER,
    "grown": memslots.SECOND,
    "deleted": HOLE_ANSWER,
    "turns": 100,
}
GOOD = Evidence(READ, 5, 0, (WRITTEN,), ROM, "EINVAL", 6)
ROW = {
    "hole": "memslots", "first": "memslots", "across": "memslots", "rom": "readonly_slots",
    "rom_after": "readonly_slots", "alias": "aliased_slots", "alias_back": "aliased_slots",
}  # fmt: skip


def broken(seen: Evidence) -> set[str]:
    return {name for name, row in judge(seen).items() if row.verdict is Verdict.BROKEN}


def test_works():
    assert {row.verdict for row in judge(GOOD).values()} == {Verdict.WORKS}
    assert tuple(judge(GOOD)) == find("memslots").header.proves


@pytest.mark.parametrize("name", [name for name in READ if name != "turns"])
def test_another_value_breaks_its_row_alone(name):
    assert broken(replace(GOOD, read=READ | {name: 0xBAD})) == {ROW.get(name, "moved_slots")}


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ({"holes_read": 0}, "memslots"),
        ({"rom_writes": ()}, "readonly_slots"),
        ({"rom_reads": 1}, "readonly_slots"),
        ({"rom_writes": (WRITTEN, WRITTEN)}, "readonly_slots"),
        ({"rom_writes": (1,)}, "readonly_slots"),
        ({"rom": WRITTEN}, "readonly_slots"),
        ({"read": READ | {"turns": 3}}, "moved_slots"),
    ],
)
def test_broken(change, row):
    assert broken(replace(GOOD, **change)) == {row}
