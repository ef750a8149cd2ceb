# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on CPU modes, from evidence made up by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.cpu_modes import CLIMBS, NAMES, Evidence, Seen, Way, judge
from vmm.machine.x86.modes import MODES
from vmm.payload.catalog import find
from vmm.payload.proof.verdict import Verdict

FEATURES = find("cpu_modes").header.proves

MARKER = 0x123


def good(mode: str, emulated: int | None = None) -> Evidence:
    row = MODES[mode]
    seen = Seen(row.bits // 8, row.cr0, row.cr4, row.efer, MARKER if row.paging else None)
    return Evidence(mode, Way(seen, kept=row.cr0), Way(seen), emulated, MARKER)


def shut(mode: str) -> Evidence:
    """As a host without paging outside long mode has it."""
    gone = Way(ended="a triple fault", shutdown=True, moved=False, kept=0x11)
    return Evidence(mode, gone, replace(gone, moved=True, kept=None), 19, MARKER)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("emulated", [None, 0, 19])
def test_works(mode: str, emulated: int | None) -> None:
    finding = judge(good(mode, emulated))
    assert finding.verdict is Verdict.WORKS
    assert f"PUSH takes {MODES[mode].bits // 8} bytes" in finding.summary


@pytest.mark.parametrize("mode", ["paging32", "pae"])
def test_inert_where_paging_needs_long_mode(mode: str) -> None:
    finding = judge(shut(mode))
    assert finding.verdict is Verdict.INERT
    assert "drops CR0.PG" in finding.reason


@pytest.mark.parametrize("mode", ["real", "protected16", "protected32", "long"])
def test_no_other_mode_is_excused(mode: str) -> None:
    assert judge(shut(mode)).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    "evidence",
    [
        replace(shut("pae"), emulated=0),
        replace(shut("pae"), emulated=None),
        replace(shut("pae"), by_registers=replace(shut("pae").by_registers, kept=0x80000011)),
        replace(shut("pae"), by_registers=replace(shut("pae").by_registers, moved=True)),
        replace(shut("pae"), by_registers=replace(shut("pae").by_registers, shutdown=False)),
        replace(shut("pae"), by_guest=good("pae").by_guest),
        replace(shut("pae"), by_guest=replace(shut("pae").by_guest, shutdown=False)),
    ],
)
def test_every_part_of_the_excuse_is_needed(evidence: Evidence) -> None:
    assert judge(evidence).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("mode", "seen", "text"),
    [
        ("real", Seen(4, 0x10, 0, 0), "PUSH takes 4"),
        ("real", Seen(2, 0x11, 0, 0), "CR0 is 0x11"),
        ("protected32", Seen(4, 0x80000011, 0, 0), "CR0"),
        ("paging32", Seen(4, 0x80000011, 0x20, 0, MARKER), "CR4"),
        ("pae", Seen(4, 0x80000011, 0x20, 0, 0), "it read 0x0"),
        ("pae", Seen(4, 0x80000011, 0x20, 0, None), "it read nothing"),
        ("long", Seen(8, 0x80000011, 0x20, 0x100, MARKER), "EFER"),
        ("long", Seen(4, 0x80000011, 0x20, 0x500, MARKER), "PUSH takes 4"),
        ("long", Seen(), "did not come there"),
    ],
)
def test_broken_either_way(mode: str, seen: Seen, text: str) -> None:
    for evidence in (replace(good(mode), by_registers=Way(seen)), replace(good(mode), by_guest=Way(seen))):
        finding = judge(evidence)
        assert finding.verdict is Verdict.BROKEN
        assert text in finding.reason


def test_a_row_for_each_mode() -> None:
    assert list(NAMES) == list(MODES)
    assert len(set(FEATURES)) == len(MODES)
    assert sorted(CLIMBS.values()) == [1, 2, 3]
