# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin's skip rule and tests/conftest.py: skip, pass or error, and when the coverage floor counts. On a stand-in
for vmm.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ERRORS = "class HostError(Exception): ...\n"
KVM = """
import contextlib, os
from vmm.errors import HostError

class Kvm(contextlib.nullcontext):
    @classmethod
    def open(cls):
        if os.environ["STAND_IN"] == "closed":
            raise HostError("open /dev/kvm: Permission denied")
        return cls()
    def __enter__(self):
        return self
    def create_vm(self):
        if os.environ["STAND_IN"] == "useless":
            raise HostError("KVM_CREATE_VM: Device or resource busy")
        return contextlib.nullcontext()

def never_called():
    return 1
"""


UNUSABLE = """
from types import SimpleNamespace

def why_unusable(error):
    return SimpleNamespace(one_line=f"{error}; try: ask the owner")
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "vmm/__init__.py": "",
        "vmm/errors.py": ERRORS,
        "vmm/kvm.py": KVM,
        "vmm/host/unusable.py": UNUSABLE,
        "vmm/pytest_plugin.py": (ROOT / "vmm/pytest_plugin.py").read_text(encoding="utf-8"),
        "tests/conftest.py": (ROOT / "tests/conftest.py").read_text(encoding="utf-8"),
        "tests/kvm/test_guest.py": "def test_guest(): ...\n",
        "tests/unit/test_pure.py": "def test_pure(): ...\n",
        "pytest.ini": "[pytest]\naddopts = -rs --strict-markers -p no:pyvmm\n",
        ".coveragerc": "[run]\nsource = vmm\nomit = vmm/pytest_plugin.py\n[report]\nfail_under = 99\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def run(project: Path, device: str, *arguments: str, require: str = "") -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST"))}
    environment = {"PYTHONPATH": str(project), "STAND_IN": device, "PYVMM_REQUIRE_KVM": require, "COLUMNS": "200"}
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(
        command, cwd=project, env=inherited | environment, capture_output=True, text=True, check=False
    )


def test_usable(project: Path) -> None:
    done = run(project, "open", require="1")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


@pytest.mark.parametrize(("device", "reason"), [("closed", "Permission denied"), ("useless", "KVM_CREATE_VM")])
def test_unusable_is_a_skip_with_the_reason(project: Path, device: str, reason: str) -> None:
    done = run(project, device)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    assert reason in done.stdout
    assert "try: ask the owner" in done.stdout


@pytest.mark.parametrize("device", ["closed", "useless"])
def test_unusable_is_an_error_where_it_is_required(project: Path, device: str) -> None:
    done = run(project, device, require="1")
    assert done.returncode == 1
    assert "1 passed, 1 error" in done.stdout
    assert "PYVMM_REQUIRE_KVM=1" in done.stdout


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_the_coverage_floor_is_lifted_only_by_that_skip(project: Path, workers: tuple[str, ...]) -> None:
    with_device = run(project, "open", "--cov", *workers)
    assert with_device.returncode == 1, with_device.stdout
    assert "less than fail-under=99" in with_device.stdout
    without = run(project, "closed", "--cov", *workers)
    assert without.returncode == 0, without.stdout
    assert "coverage floor not applied" in without.stdout
