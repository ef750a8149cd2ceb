# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests for the tests on /dev/kvm: a bare vCPU in real mode for the binding, a booted machine for everything above.
And pyvmm as a stranger has it: a wheel in a venv.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from vmm.kvm import Kvm, Vcpu, Vm
from vmm.kvm import memory as host
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.machine.x86 import boot

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCES = (".*", "build", "dist", "docs", "tests", "*.egg-info", "__pycache__", "*.so")
REAL_CODE = 0x1000
REAL_SIZE = 0x1_0000


@pytest.fixture
def vm(kvm: Kvm) -> Iterator[Vm]:
    with kvm.create_vm() as vm:
        yield vm


@dataclass
class RealMode:
    """A vCPU in real mode at 0x1000 of 64 KiB of memory, segments at 0; the binding alone, nothing of vmm.machine."""

    vm: Vm
    vcpu: Vcpu
    memory: host.Mapping

    def start(self, code: bytes) -> None:
        self.memory.bytes[REAL_CODE : REAL_CODE + len(code)] = code
        sregs = self.vcpu.get_sregs()
        sregs.cs.base = sregs.cs.selector = 0
        self.vcpu.set_sregs(sregs)
        regs = self.vcpu.get_regs()
        regs.rip, regs.rflags = REAL_CODE, 2
        self.vcpu.set_regs(regs)


@pytest.fixture
def real_mode(vm: Vm) -> Callable[..., RealMode]:
    def make(code: bytes = b"\xf4", *, before: Callable[[Vm], object] = lambda vm: None) -> RealMode:
        vm.set_identity_map_addr(layout.REGIONS["identity_map"].base)
        vm.set_tss_addr(layout.REGIONS["kvm_tss"].base)
        before(vm)
        memory = host.Mapping(REAL_SIZE)
        vm.set_user_memory_region(0, 0, memory)
        guest = RealMode(vm, vm.create_vcpu(0), memory)
        guest.start(code)
        return guest

    return make


@pytest.fixture
def booted() -> Iterator[Callable[..., Machine]]:
    """A maker of machines in long mode: vCPU 0 starts at the code's first byte, vCPU i at offset `aps[i]`."""
    with ExitStack() as stack:

        def make(code: bytes, *, aps: Mapping[int, int] | None = None, **options) -> Machine:
            machine = stack.enter_context(Machine(**options))
            boot.write_tables(machine.memory, len(machine.cpus))
            base = layout.REGIONS["code"].base
            machine.memory.write(base, code)
            machine.start(0, base)
            for index, offset in (aps or {}).items():
                machine.start(index, base + offset)
            return machine

        yield make


@dataclass(frozen=True)
class Wheel:
    """The wheel, and what a command needs in its environment to run in the venv that has it."""

    file: Path
    venv: Path
    environment: dict[str, str]

    def run(self, *command: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.venv / "bin" / command[0]), *map(str, command[1:])],
            cwd=cwd, env=self.environment | more, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """pyvmm's wheel, built from a copy of the sources, in a venv of its own that finds pytest and the dependencies
    where this process has them. Nothing is downloaded. A skip where a venv or the wheel cannot be made.
    """
    root = tmp_path_factory.mktemp("wheel")
    source, venv = root / "source", root / "venv"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST", "PYTHON"))}
    environment = inherited | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1", "COLUMNS": "200"}
    pip = [sys.executable, "-m", "pip", "--quiet"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(root), str(source)]
    for what, command in (
        ("build a wheel", [*pip, *build]),
        ("make a venv", [sys.executable, "-m", "venv", "--without-pip", str(venv)]),
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot {what} here: {done.stderr.strip()[-300:]}")
    (file,) = root.glob("*.whl")
    (site,) = venv.glob("lib/python*/site-packages")
    # A path line, and not addsitedir: an editable pyvmm of this process is not to be found there.
    (site / "dependencies.pth").write_text(sysconfig.get_path("platlib") + "\n", encoding="utf-8")
    subprocess.run(
        [*pip, "--python", str(venv / "bin/python"), "install", "--no-deps", str(file)], env=environment, check=True
    )
    return Wheel(file, venv, environment | {"XDG_CACHE_HOME": str(root / "cache")})
