# SPDX-License-Identifier: GPL-2.0-or-later
"""action.yml read as the runner reads it, its shell run with stand-ins for what would touch the host. And docs/ci.md.

The steps that need the device are in tests/kvm/test_action.py.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import runner

ROOT = Path(__file__).resolve().parents[2]
ACTION = runner.load()
STEPS = {step["id"]: step for step in ACTION["runs"]["steps"]}
PAGE = (ROOT / "docs/ci.md").read_text(encoding="utf-8")


def run(step: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The step's shell as the runner starts it, with nothing of this machine's PATH but the basics."""
    plain = {
        "PATH": f"{folder / 'bin'}:/usr/bin:/bin",
        "HOME": str(folder),
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(folder),
        "RUNNER_TEMP": str(folder),
    }
    return subprocess.run(
        runner.command(STEPS[step]["run"], folder),
        cwd=folder,
        env=plain | runner.files(folder) | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def stub(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    file.chmod(0o755)


@pytest.fixture
def host(tmp_path: Path) -> Path:
    """A folder with a sudo and a udevadm that write down what they were asked for, and do nothing."""
    stub(
        tmp_path, "bin/sudo", 'echo "sudo $*" >>"$RUNNER_TEMP/asked"; case $1 in tee) cat >>"$RUNNER_TEMP/asked";; esac'
    )
    stub(tmp_path, "bin/udevadm", 'echo "udevadm $*" >>"$RUNNER_TEMP/asked"')
    return tmp_path


def asked(folder: Path) -> str:
    file = folder / "asked"
    return file.read_text(encoding="utf-8") if file.exists() else ""


# The file ---------------------------------------------------------------------------------------------------------


def test_it_is_a_composite_action() -> None:
    assert ACTION["runs"]["using"] == "composite"
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert "${{" not in step["run"], "an input reaches the shell by its environment, never as text of the script"
    for each in (*ACTION["inputs"].values(), *ACTION["outputs"].values()):
        assert each["description"]


def test_every_expression_names_what_there_is() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    inputs = set(re.findall(r"inputs\.([\w-]+)", text))
    assert inputs == ACTION["inputs"].keys(), "each input is used, and no other"
    for step, output in re.findall(r"steps\.(\w+)\.outputs\.(\w+)", text):
        assert f"{output}=" in STEPS[step]["run"]


def test_every_variable_of_a_step_is_given() -> None:
    runner = {"RUNNER_TEMP", "GITHUB_PATH", "GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"}
    for step in STEPS.values():
        used = set(re.findall(r"\$\{?([A-Z_]+)", step["run"]))
        given = {name for name in step.get("env", {}) if name != "PYVMM_REQUIRE_KVM"}
        assert used - runner == given, step["id"]


def test_the_page_has_six_lines_to_copy() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    steps = yaml.safe_load(example)
    assert len(example.splitlines()) == 6
    assert steps[0]["uses"].startswith("OWNER/pyvmm@")
    assert steps[1]["with"]["path"] == "pyvmm.*"
    assert {Path(ACTION["inputs"][name]["default"]).stem for name in ("json", "junit")} == {"pyvmm"}


def test_the_page_tells_every_input_and_its_default() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (?:`([^`]*)`)? ?\|", PAGE, re.M))
    assert rows == {name: each["default"] for name, each in ACTION["inputs"].items()}


def test_the_workflow_uses_the_action() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    used = [step.get("uses") for job in workflow["jobs"].values() for step in job["steps"]]
    assert "./" in used


# The device -------------------------------------------------------------------------------------------------------


def test_a_device_that_opens_is_left_alone(host: Path) -> None:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        pytest.skip("no /dev/kvm that can be opened")
    done = run("device", host, DEVICE=STEPS["device"]["env"]["DEVICE"])
    assert (done.returncode, done.stdout) == (0, "/dev/kvm can be opened as it is\n")
    assert asked(host) == ""


def test_a_device_that_does_not_open_gets_a_rule(host: Path) -> None:
    (host / "kvm").mkdir()  # there, and no device: so for root too
    done = run("device", host, DEVICE=str(host / "kvm"))
    assert done.returncode == 0, done.stderr
    lines = asked(host).splitlines()
    assert lines[0] == "sudo tee /etc/udev/rules.d/99-kvm4all.rules"
    assert lines[1].startswith('KERNEL=="kvm", GROUP="kvm", MODE="0666"')
    assert lines[2:] == [
        "sudo udevadm control --reload-rules",
        "sudo udevadm trigger --name-match=kvm",
        "sudo udevadm settle",
    ]


def test_without_a_device_nothing_is_done(host: Path) -> None:
    done = run("device", host, DEVICE=str(host / "nothing"))
    assert done.returncode == 0
    assert "does not exist" in done.stdout
    assert asked(host) == ""


# Install and doctor -----------------------------------------------------------------------------------------------


def test_install(host: Path) -> None:
    stub(
        host,
        "bin/mypython",
        'echo "python $*" >>"$RUNNER_TEMP/asked"; mkdir -p "$3/bin"; '
        '{ echo "#!/bin/sh"; echo \'echo "venv $*" >>"$RUNNER_TEMP/asked"\'; } >"$3/bin/python"; '
        'chmod +x "$3/bin/python"',
    )
    what = str(host / "a folder")
    done = run("install", host, PYTHON="mypython", WHAT=what)
    assert done.returncode == 0, done.stderr
    assert asked(host).splitlines() == [
        f"python -m venv {host}/pyvmm",
        f"venv -m pip --quiet --disable-pip-version-check install {what}",
    ]
    assert (host / "path").read_text(encoding="utf-8") == f"{host}/pyvmm/bin\n"


@pytest.mark.parametrize(
    ("status", "usable", "ends"), [(0, "true", 0), (77, "false", 0), (99, "false", 99), (2, "false", 2)]
)
def test_doctor(host: Path, status: int, usable: str, ends: int) -> None:
    stub(host, "pyvmm/bin/pyvmm", f'echo "$*"; exit {status}')
    done = run("doctor", host)
    assert (done.returncode, done.stdout) == (ends, "doctor --ci\n")
    assert (host / "output").read_text(encoding="utf-8") == f"usable={usable}\n"
    summary = host / "step_summary"
    assert summary.exists() == (status == 77)


# Probe and gate ---------------------------------------------------------------------------------------------------

SAY = 'for each in "$@"; do echo "<$each>"; done; exit ${STATUS:-0}'


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"<(.*)>", done.stdout)


@pytest.mark.parametrize(
    ("features", "words"), [("", []), ("STEAL_TIME  PV_EOI", ["STEAL_TIME", "PV_EOI"]), ("*", ["*"])]
)
def test_probe(host: Path, features: str, words: list[str]) -> None:
    stub(host, "pyvmm/bin/pyvmm", SAY)
    done = run("probe", host, FEATURES=features, JSON="a b.json", JUNIT="x.xml")
    assert done.returncode == 0, done.stderr
    assert said(done) == ["probe", "--ci", "--markdown", "--junit", "x.xml", "--save", "a b.json", *words]
    assert (host / "step_summary").read_text(encoding="utf-8") == done.stdout


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"COMPARE_WITH": "old.json"}, ["diff", "old.json", "new.json", "--ci", "--markdown"]),
        (
            {"COMPARE_WITH": "old.json", "REQUIRE": "A B"},
            ["diff", "old.json", "new.json", "--ci", "--markdown", "--require", "A", "B"],
        ),
        ({"REQUIRE": "A"}, ["baseline", "new.json", "--ci", "--markdown", "--require", "A"]),
    ],
)
def test_gate(host: Path, given: dict[str, str], words: list[str]) -> None:
    stub(host, "pyvmm/bin/pyvmm", SAY)
    done = run("gate", host, **{"COMPARE_WITH": "", "REQUIRE": "", "JSON": "new.json"} | given)
    assert said(done) == words
    assert (host / "step_summary").read_text(encoding="utf-8") == done.stdout


@pytest.mark.parametrize("step", ["probe", "gate"])
def test_the_status_is_not_lost_in_the_pipe(host: Path, step: str) -> None:
    stub(host, "pyvmm/bin/pyvmm", SAY)
    environment = {"FEATURES": "", "JSON": "j", "JUNIT": "x", "COMPARE_WITH": "o", "REQUIRE": "", "STATUS": "1"}
    assert run(step, host, **environment).returncode == 1


def test_the_parts_of_the_command_that_it_uses_exist(capsys: pytest.CaptureFixture[str]) -> None:
    from vmm import cli

    shell = "".join(step["run"] for step in ACTION["runs"]["steps"])
    for command, options in {"doctor": ["--ci"], "probe": ["--ci", "--markdown", "--junit", "--save"]}.items():
        found: Any = re.search(rf'bin/pyvmm" {command} (.*)', shell)
        assert all(option in found[1] for option in options)
    for command in ("doctor", "probe", "diff", "baseline"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        assert "--ci" in capsys.readouterr().out
