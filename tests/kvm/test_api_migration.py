# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that moves to another process on this host, and what must not be taken for that."""

from __future__ import annotations

import time

import pytest

from guest_payloads.api.migration import PATIENCE, BadLine, Line, move
from tests.left_behind import files_before, open_files
from vmm.machine import migration
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

pytestmark = pytest.mark.kvm
PAYLOAD = find("migration")


def run(**params: int) -> Row:
    (row,) = prove(PAYLOAD, Options(timeout=5, params=params), refusals=False)
    return row


@pytest.mark.every_host
@pytest.mark.on_demand
def test_works_and_leaves_nothing_open() -> None:
    before = files_before()
    (row,) = prove(PAYLOAD, Options(mask=("STEAL_TIME",)))  # what is hidden there is hidden over there
    assert row.verdict is Verdict.WORKS, row.finding
    assert [each.holds for each in row.refusals] == [True]
    assert open_files() == before


def test_pages_that_are_written_are_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real = migration._written
    monkeypatch.setattr(migration, "_written", lambda machine, slots: real(machine, slots)[:-20])
    row = run()
    assert row.verdict is Verdict.BROKEN
    assert "before the last lap" in row.finding.reason


def test_a_guest_that_is_not_told_runs_into_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = prove(PAYLOAD, Options(timeout=0.3, params={"arrives": 0}), refusals=False)
    assert row.verdict is Verdict.BROKEN
    assert "over there: the guest did not end within its time limit" in row.finding.reason


def test_a_guest_that_ends_before_it_has_moved_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copier waits for a lap that never comes; the thread that runs the guest tells it so."""
    waits: list[float] = []
    real = Line.sendall

    def timed(line: Line, data: bytes) -> None:
        if data[:1] == b"P" and line._machine.all_cpus.running:
            line._machine.stop("it ends here")
        begin = time.monotonic()
        real(line, data)
        waits.append(time.monotonic() - begin)

    monkeypatch.setattr(Line, "sendall", timed)
    refused = move(Lab(PAYLOAD)).refused
    assert "its guest ended before" in refused
    assert max(waits) < PATIENCE / 2, waits


def test_what_changed_on_the_way_is_not_run() -> None:
    assert "sums differ" in move(Lab(PAYLOAD), BadLine).refused
