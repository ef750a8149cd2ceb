# SPDX-License-Identifier: GPL-2.0-or-later
"""What disturbed a row is told from looks at the clocks; what a killed bench left is swept up, and nothing else."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from vmm.bench import ending
from vmm.bench.quiet import Look, Watch, look, mhz, verdict

BEGIN = Look(wall=10.0, waited=1.0, idle=5.0, stolen=0.0, busy=20.0, own=3.0, cpus=2)
ALONE = replace(BEGIN, wall=12.0, idle=7.0, busy=22.0, own=5.0)  # one of two CPUs for two seconds


@pytest.mark.parametrize(
    ("changed", "said"),
    [({}, ""), ({"waited": 1.05}, ""), ({"waited": 2.0}, "waited for a CPU 50% of the time: other programs run"),
     ({"waited": 9.0}, "waited for a CPU 100% of the time: other programs run"),
     ({"stolen": 1.0}, "the hypervisor below took 25% of the CPU time"),
     ({"busy": 24.0, "idle": 5.0}, "other programs had 1.0 of 2 CPUs"),
     ({"busy": 23.0, "idle": 6.0}, ""), ({"wall": 10.0}, "")],
)  # fmt: skip
def test_what_disturbed_a_row(changed: dict[str, float], said: str) -> None:
    assert verdict(BEGIN, replace(ALONE, **changed)) == said  # type: ignore[arg-type]


def test_a_look_at_this_host() -> None:
    found = look()
    assert 0 < found.cpus <= len(os.sched_getaffinity(0))
    assert found.own > 0
    assert verdict(found, found) == ""
    assert mhz(set()) == 0


def test_a_cpu_that_became_slower_is_said() -> None:
    watch = Watch()
    assert watch.slower(0) == watch.slower(3000) == watch.slower(2900) == watch.slower(3100) == ""
    assert watch.slower(1500) == "the CPU runs at 1500 of 3100 MHz"


def test_only_what_a_dead_bench_left_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    stay = [f"pyvmm-bench-{os.getpid()}-abc", "pyvmm-bench-notes", "pyvmm-bench-1-ab c", "other"]
    for name in (*stay, "pyvmm-bench-4194305-dead"):  # beyond the highest pid there is
        (tmp_path / name).mkdir()
        (tmp_path / name / "cache").write_text("")
    ending.sweep()
    assert {each.name for each in tmp_path.iterdir()} == set(stay)
    with ending.folder() as folder:
        assert folder.name.startswith(f"pyvmm-bench-{os.getpid()}-")
