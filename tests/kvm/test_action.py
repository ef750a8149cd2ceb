# SPDX-License-Identifier: GPL-2.0-or-later
"""The action's steps one after another on this host, as the runner would, with pyvmm from its wheel: summary, files,
outputs, annotations. Nothing of the host is touched: its first step has its own tests, with stand-ins.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from tools import runner

if TYPE_CHECKING:
    from tests.kvm.conftest import Wheel

ACTION = runner.load()
TWO = "POLL_CONTROL NOP_IO_DELAY"


@pytest.fixture
def action(wheel: Wheel, tmp_path: Path) -> Callable[..., dict[str, subprocess.CompletedProcess[str]]]:
    """`action(features="...")` runs the steps that follow the first; each step that was started, by its id."""
    (tmp_path / "temp").mkdir()
    (tmp_path / "temp/pyvmm").symlink_to(wheel.venv)
    plain = wheel.environment | {
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(tmp_path),
        "RUNNER_TEMP": str(tmp_path / "temp"),
    }

    def start(step: str, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=tmp_path, env=plain | environment, capture_output=True, text=True, check=False, timeout=100
        )

    def run(**given: str) -> dict[str, subprocess.CompletedProcess[str]]:
        inputs = {name.replace("_", "-"): text for name, text in given.items()}
        return runner.run(ACTION, start, inputs, tmp_path, skip=("device", "install"))

    return run


def test_from_doctor_to_the_gate(
    action: Callable[..., dict[str, subprocess.CompletedProcess[str]]], tmp_path: Path
) -> None:
    done = action(features=TWO)
    assert list(done) == ["doctor", "probe"]
    assert all(each.returncode == 0 for each in done.values()), done
    assert "KVM is usable" in done["doctor"].stdout
    summary = (tmp_path / "step_summary").read_text(encoding="utf-8")
    assert summary.startswith("### KVM paravirtual features\n")
    assert "| POLL\\_CONTROL | 12 | yes | works |" in summary
    doc = json.loads((tmp_path / "pyvmm.json").read_text(encoding="utf-8"))
    assert [each["name"] for each in doc["features"]] == ["NOP_IO_DELAY", "POLL_CONTROL"]
    assert len(list(ElementTree.parse(tmp_path / "pyvmm.xml").iter("testcase"))) == 2
    assert "::" not in done["probe"].stderr

    (tmp_path / "pyvmm.json").rename(tmp_path / "before.json")
    again = action(features=TWO, compare_with="before.json", require="POLL_CONTROL")
    assert again["gate"].returncode == 0, again["gate"].stderr
    assert "all there" in again["gate"].stdout


def test_a_regression_fails_the_gate(
    action: Callable[..., dict[str, subprocess.CompletedProcess[str]]], tmp_path: Path
) -> None:
    action(features=TWO)
    (tmp_path / "pyvmm.json").rename(tmp_path / "before.json")
    done = action(features="NOP_IO_DELAY", compare_with="before.json")
    assert done["gate"].returncode == 1
    assert "::error title=KVM feature POLL_CONTROL::works -> not probed" in done["gate"].stderr
    assert "**regression**" in (tmp_path / "step_summary").read_text(encoding="utf-8")
    assert action(features="NOP_IO_DELAY", require="PV_EOI")["gate"].returncode == 1


@pytest.mark.parametrize(("required", "status", "level"), [("", 77, "warning"), ("1", 99, "error")])
def test_doctor_without_kvm(wheel: Wheel, tmp_path: Path, required: str, status: int, level: str) -> None:
    device = str(tmp_path / "none")
    done = wheel.run("pyvmm", "doctor", "--ci", "--device", device, cwd=tmp_path, PYVMM_REQUIRE_KVM=required)
    assert done.returncode == status
    assert done.stderr.startswith(f"::{level} title=KVM cannot be used here::")
    assert "try%3A" not in done.stderr
    assert done.stdout.startswith("KVM is not usable")
    plain = wheel.run("pyvmm", "doctor", "--device", device, cwd=tmp_path)
    assert (plain.returncode, plain.stderr) == (99, "")


def test_installing_for_real(wheel: Wheel, tmp_path: Path) -> None:
    """The step itself, with the wheel in place of the sources and no network: the venv's pip must not need one."""
    step = next(each for each in ACTION["runs"]["steps"] if each["id"] == "install")
    environment = wheel.environment | {
        "RUNNER_TEMP": str(tmp_path), "GITHUB_PATH": str(tmp_path / "path"), "PYTHON": sys.executable,
        "WHAT": str(wheel.file), "PIP_NO_DEPS": "1",
    }  # fmt: skip
    command = runner.command(step["run"], tmp_path)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    pyvmm = Path((tmp_path / "path").read_text(encoding="utf-8").strip()) / "pyvmm"
    listed = subprocess.run([pyvmm, "--version"], capture_output=True, text=True, check=False)
    assert listed.stdout.startswith("pyvmm 0."), listed.stderr
