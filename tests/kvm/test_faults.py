# SPDX-License-Identifier: GPL-2.0-or-later
"""Each call by which the host gives something fails once, errno by errno: the machine closes cleanly, nothing leaks,
and the message names the call. `PYVMM_FAULTS=all` takes every scenario with every errno; else a few with one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.kvm

ROOT = Path(__file__).resolve().parents[2]
ERRNOS = ("ENOMEM", "EMFILE", "EINTR", "EINVAL", "ENOSPC", "EBUSY", "EFAULT")
ALL = os.environ.get("PYVMM_FAULTS") == "all"
# The calls that a machine of each makes at least: of a plain one the first of a process makes more than those after it.
CALLS = {"first": 10, "plain": 7, "chips": 10, "devices": 10, "board": 10, "snapshots": 10}
ROWS = [("first", "ENOMEM"), ("plain", "EMFILE"), ("chips", "EMFILE"), ("devices", "ENOMEM"), ("board", "EINVAL")]
WHOLE = [(each, ",".join(ERRNOS)) for each in CALLS]
# A refusal that is part of an answer: another call says it, or it is asked again.
OTHERS = {("snapshots", "KVM_GET_MSRS")}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("needs gcc")
    made = tmp_path_factory.mktemp("faults") / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(
        [gcc, "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o", made, source, "-ldl", "-lpthread"], check=True
    )
    return made


def faults(shim: Path, scenario: str, errnos: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.kvm.faults", scenario, errnos], cwd=ROOT, capture_output=True, text=True,
        timeout=600, check=False, env=os.environ | {"LD_PRELOAD": str(shim)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(("scenario", "errnos"), WHOLE if ALL else ROWS, ids=lambda each: each)
def test_each_call_fails_once(shim: Path, scenario: str, errnos: str) -> None:
    rows = faults(shim, scenario, errnos)
    assert len({row["at"] for row in rows}) >= CALLS[scenario]
    for row in rows:
        assert not row["more"], row
        assert not row["said"], row
        assert not row["kind"].startswith("not ours"), row
        if row["kind"] and row["kind"] != "another end" and (scenario, row["call"]) not in OTHERS:
            assert row["call"] in row["text"], row
            assert f"({row['errno']})" in row["text"], row


def test_a_fault_that_is_told_wrongly_would_be_seen(shim: Path) -> None:
    """The call that fails is the one that is named: most of them end a machine in words."""
    rows = faults(shim, "board", "ENOSPC")
    told = [row for row in rows if row["kind"]]
    assert len(told) > len(rows) // 2
    assert {"KVM_CREATE_VM", "KVM_CREATE_VCPU", "mmap"} <= {row["call"] for row in told}
