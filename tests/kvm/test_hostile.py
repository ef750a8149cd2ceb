# SPDX-License-Identifier: GPL-2.0-or-later
"""A few of the guests that `python -m tools.hostile` runs in numbers; and a worker that dies is a finding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools.hostile import programs, worker
from tools.hostile.__main__ import main

pytestmark = pytest.mark.kvm


def test_a_program_is_told_by_its_number():
    assert programs.exits(programs.rng_of(1, 5)) == programs.exits(programs.rng_of(1, 5))
    assert programs.exits(programs.rng_of(1, 5)) != programs.exits(programs.rng_of(2, 5))
    assert {programs.shape(number)[0] for number in range(4)} == set(programs.KINDS)


def test_some_of_each_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    state = tmp_path / "state.json"
    assert main(["48", "--seed", "5", "--jobs", "1", "--state", str(state)]) == 0
    assert capsys.readouterr().out.startswith("48 programs in")
    told = json.loads(state.read_text())
    assert sum(told["ended"].values()) == 48
    assert main(["48", "--seed", "5", "--jobs", "1", "--state", str(state)]) == 0
    assert capsys.readouterr().out.startswith("0 programs in"), "it goes on where it was"


def test_a_worker_that_dies_is_a_finding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    broken = tmp_path / "sitecustomize.py"
    broken.write_text("import os, sys\nif any('hostile' in word for word in sys.orig_argv): os.abort()\n")
    monkeypatch.setattr("tools.hostile.__main__.ROOT", tmp_path)
    with pytest.raises(SystemExit, match=r"workers ended before they had run anything: status -?\d+"):
        main(["4", "--jobs", "1"])


def test_what_a_worker_holds_is_counted_without_the_memory_of_its_guests(tmp_path: Path):
    stand = worker.Stand({}, tmp_path)
    try:
        before = worker.held([stand])
        slot = stand.machine.memory.slots[0]
        stand.machine.memory.write(slot.gpa, b"x" * slot.size)
        after = worker.held([stand])
        assert after["KiB"] - before["KiB"] < slot.size / 1024 / 2
        assert worker.held([])["KiB"] - after["KiB"] > slot.size / 1024 / 2
        assert {**after, "KiB": 0} == {**before, "KiB": 0}
        assert before["files"] >= 3
    finally:
        stand.close()
