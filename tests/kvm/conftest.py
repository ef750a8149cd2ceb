# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests for the tests on /dev/kvm: a bare vCPU in real mode for the binding, a booted machine for everything above."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from vmm.kvm import Kvm, Vcpu, Vm
from vmm.kvm import memory as host
from vmm.machine import boot, layout
from vmm.machine.machine import Machine

REAL_CODE = 0x1000
REAL_SIZE = 0x1_0000


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    with Kvm.open() as kvm:
        yield kvm


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
            boot.write_tables(machine.memory, len(machine.runners))
            base = layout.REGIONS["code"].base
            machine.memory.write(base, code)
            machine.start(0, base)
            for index, offset in (aps or {}).items():
                machine.start(index, base + offset)
            return machine

        yield make
