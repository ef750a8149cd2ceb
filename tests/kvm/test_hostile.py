# SPDX-License-Identifier: GPL-2.0-or-later
"""A few of the guests that `python -m tools.hostile` runs in numbers; and a worker that dies is a finding."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tools.hostile import programs, worker
from tools.hostile.__main__ import GROWS, Run, main
from vmm.abi.x86 import PAGE

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
    told = capsys.readouterr().out
    assert told.startswith("0 programs in"), "it goes on where it was"
    assert told.splitlines()[1].startswith("48 programs in"), "and tells of all that it has run"
    with pytest.raises(SystemExit, match="is of a run without --asan"):
        Run(argparse.Namespace(seed=5, state=state, asan=True, first=0, count=48), tmp_path, None)


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
        for page in range(0, slot.size, PAGE):  # as many bytes at once would be of this process, which may keep them
            stand.machine.memory.write(slot.gpa + page, b"x" * PAGE)
        after = worker.held([stand])
        assert after["KiB"] - before["KiB"] < slot.size / 1024 / 2
        assert worker.held([])["KiB"] - after["KiB"] > slot.size / 1024 / 2
        assert {**after, "KiB": 0} == {**before, "KiB": 0}
        assert before["files"] >= 3
    finally:
        stand.close()


# By mov al; out 0x70, al; mov al; out 0x71, al, registers A and B of the clock: it runs, and has an alarm at midnight.
RTC_ALARM = bytes.fromhex("b00a e670 b023 e671  b00b e670 b022 e671  e6f4")


def test_a_pcs_alarms_begin_one_thread_that_a_reset_keeps_and_a_close_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What the thread was that a worker had more after a million programs."""
    before = worker.threads().get("device timers", 0)
    monkeypatch.setattr(programs, "put", lambda machine, *_: machine.memory.write(programs.CODE, RTC_ALARM))
    monkeypatch.setattr(worker, "TIMEOUT", 10.0)  # it ends by the debug exit
    stand = worker.Stand({"board": "pc"}, tmp_path)
    try:
        assert worker.threads().get("device timers", 0) == before
        for _ in range(3):
            assert worker.run(stand, "exits", None) == "debug exit"
            assert worker.threads()["device timers"] == before + 1
        assert sum(worker.threads().values()) == worker.held([stand])["threads"]
    finally:
        stand.close()
    assert worker.threads().get("device timers", 0) == before


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({"MainThread": 1}, []),
        ({"MainThread": 1, "device timers": 1}, []),
        ({"MainThread": 1, "device timers": 2}, ["threads named 'device timers' grew from 0 to 2"]),
        ({"MainThread": 1, "virtio-rng": 1}, ["threads named 'virtio-rng' grew from 0 to 1"]),
    ],
)
def test_a_thread_more_is_a_finding_by_its_name(tmp_path: Path, names: dict[str, int], found: list[str]):
    run = Run(argparse.Namespace(seed=1, state=None, asan=False, first=0, count=0), tmp_path, None)
    at_first: dict[str, int] = {"MainThread": 1}
    grown: Any = SimpleNamespace(held=[dict.fromkeys(GROWS, 1)] * 4, threads=[at_first] * 3 + [names], number=7)
    run._grown(grown)
    assert run.state["findings"] == [[7, text] for text in found]
