# SPDX-License-Identifier: GPL-2.0-or-later
"""tools/runner.py: GitHub's expressions, and a job of steps."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from tools import runner

NAMES = {"inputs.a": "yes", "inputs.empty": "", "steps.one.outputs.x-y": "true"}


@pytest.mark.parametrize(
    ("expression", "given"),
    [
        ("inputs.a", "yes"),
        ("inputs.empty || inputs.a", "yes"),
        ("inputs.a || 'other'", "yes"),
        ("inputs.a == 'yes' && '1' || ''", "1"),
        ("inputs.a == 'no' && '1' || ''", ""),
        ("inputs.a != 'no' && '1' || 'z'", "1"),
        ("'a' || 'b' && ''", "a"),  # && binds closer
        ("('a' || 'b') && ''", ""),
        ("steps.one.outputs.x-y == 'true' && (inputs.empty != '' || inputs.a != '')", "true"),
        ("inputs.empty == ''", "true"),
    ],
)
def test_value(expression: str, given: str) -> None:
    assert runner.value(expression, NAMES) == given


@pytest.mark.parametrize("expression", ["inputs.a ==", "(inputs.a", "inputs.a 'b'", "a + b", "== 'a'", "", "&&"])
def test_what_cannot_be_read_is_an_error(expression: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        runner.value(expression, NAMES)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"inputs\.b"):
        runner.filled("x ${{ inputs.b }}", NAMES)
    assert runner.filled("x ${{ inputs.a }}-${{inputs.empty}}.", NAMES) == "x yes-."


def test_a_step_is_a_file_with_its_text(tmp_path: Path) -> None:
    *options, file = runner.command("echo x\n", tmp_path)
    assert options == ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"]
    assert Path(file).read_text(encoding="utf-8") == "echo x\n"


def job(folder: Path, *steps: dict[str, Any], **inputs: str) -> dict[str, subprocess.CompletedProcess[str]]:
    action = {"inputs": {"n": {"default": "7"}}, "runs": {"steps": list(steps)}}

    def start(step: str, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    return runner.run(action, start, inputs, folder)


DOCTOR = {"id": "doctor", "env": {"N": "${{ inputs.n }}"}, "run": 'echo "usable=$N" >>"$GITHUB_OUTPUT"'}
PROBE = {"id": "probe", "if": "steps.doctor.outputs.usable == '8'", "run": "false | true; echo not reached"}
LAST = {"id": "last", "run": "true"}


def test_a_condition_leaves_a_step_out_and_a_failure_ends_the_job(tmp_path: Path) -> None:
    assert list(job(tmp_path, DOCTOR, PROBE, LAST)) == ["doctor", "last"]
    done = job(tmp_path, DOCTOR, PROBE, LAST, n="8")
    assert [(name, each.returncode, each.stdout) for name, each in done.items()] == [
        ("doctor", 0, ""),
        ("probe", 1, ""),
    ]
    assert list(job(tmp_path, DOCTOR, PROBE, LAST, n="8")) == ["doctor", "probe"]  # the same value, written again
    assert list(job(tmp_path, PROBE, LAST)) == ["last"]
    silent = DOCTOR | {"run": "true"}
    assert list(job(tmp_path, silent, PROBE, LAST, n="8")) == ["doctor", "last"]  # what an earlier job wrote is not its


def test_an_input_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        job(tmp_path, LAST, m="8")
