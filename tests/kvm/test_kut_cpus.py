# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of QEMU's CPU models beside QEMU itself: query-cpu-model-expansion over QMP, with KVM."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from vmm.abi import cpuid
from vmm.abi.qemu_cpus import BESIDE, MODELS

QEMU = "qemu-system-x86_64"
OF_ANOTHER_NAME = {"sse3": "pni", "xd": "nx", "i64": "lm"}


class Qmp:
    """A QEMU without a machine, asked over its standard input and output."""

    def __init__(self) -> None:
        command = [QEMU, "-machine", "none", "-accel", "kvm", "-nodefaults", "-display", "none", "-qmp", "stdio"]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            _, said = self.process.communicate(timeout=20)
            pytest.skip(f"{QEMU} does not run with KVM here: {said.strip().splitlines()[-1:]}")
        self.ask("qmp_capabilities")

    def ask(self, what: str, **arguments: object) -> dict[str, object]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"execute": what, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            answer = json.loads(line)
            if "event" not in answer:
                return answer
        raise AssertionError(f"QEMU ended at {what}")

    def close(self) -> None:
        self.ask("quit")
        self.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def qmp() -> Iterator[Qmp]:
    if not shutil.which(QEMU):
        pytest.skip(f"{QEMU} is not installed")
    asked = Qmp()
    yield asked
    asked.close()


def features_of(qmp: Qmp, model: str) -> set[str]:
    """Names of vmm.abi.cpuid that QEMU shows to a guest of this model."""
    answer = qmp.ask("query-cpu-model-expansion", type="full", model={"name": model})
    assert "return" in answer, answer
    props = answer["return"]["model"]["props"]
    names = {OF_ANOTHER_NAME.get(name, name.replace("-", "_")) for name, value in props.items() if value is True}
    return names & set(cpuid.features())


@pytest.mark.parametrize("model", MODELS)
def test_a_row_is_what_qemu_shows(qmp, model):
    assert features_of(qmp, model) - BESIDE == MODELS[model] - BESIDE


def test_what_a_model_does_not_decide_is_in_each(qmp):
    """With KVM: x2apic and hypervisor, whatever the model says."""
    for model in MODELS:
        assert {"x2apic", "hypervisor"} <= features_of(qmp, model)


def test_a_model_that_qemu_does_not_have_is_an_error(qmp):
    assert "error" in qmp.ask("query-cpu-model-expansion", type="full", model={"name": "no_such_model"})
