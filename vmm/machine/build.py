# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of a machine and their order: made one by one from nothing (`build`), or around what a plain machine has
already (`make_whole`, see plain.py). It knows who needs whom; what a part does is the part's.
"""

from __future__ import annotations

from _signal import SIG_BLOCK, SIG_SETMASK, pthread_sigmask, valid_signals  # type: ignore[import-not-found]

from vmm.base.light import partial
from vmm.errors import UsageError
from vmm.kvm import kick
from vmm.kvm.decode import PENDING
from vmm.kvm.lean import Core
from vmm.kvm.system import Kvm
from vmm.kvm.vcpu import Vcpu
from vmm.kvm.vm import Vm
from vmm.kvm.words import Finish
from vmm.machine.boards.own import OwnBoard
from vmm.machine.bus.reach import Reach
from vmm.machine.memory import layout
from vmm.machine.memory.slots import GuestMemory
from vmm.machine.run import cpu as cpus
from vmm.machine.run.all_cpus import AllCpus
from vmm.machine.run.cpu import Cpu, current
from vmm.machine.run.lean import LeanLane
from vmm.machine.x86.owed_cpuid import exposed, unedited

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from vmm.machine.boards.board import Board
    from vmm.machine.bus.platform import Platform
    from vmm.machine.devices.sink import Sink
    from vmm.machine.plain import Plain
    from vmm.machine.whole import Whole
    from vmm.machine.x86.cpuid import CpuidModel

    class Unbuilt(Whole, Protocol):
        """A machine whose parts are made."""

        strict: bool
        sink: Sink
        board: Board
        reach: Reach
        cpuid_not_taken: tuple[str, ...]

        @property
        def cpuid(self) -> CpuidModel: ...
        def hook(self, platform: Platform, lane: LeanLane, told: Vm | None) -> None: ...
        def close_parts(self) -> None: ...
        def close_kvm(self) -> None: ...
        def release_parts(self) -> None: ...
        def is_whole(self) -> None: ...


LAST_XAPIC_ID = 254  # 255 is the broadcast


def build(
    machine: Unbuilt,
    ids: list[int],
    board: str,
    cpuid: Callable[[CpuidModel], object] | None,
    before_vcpus: Callable[[Any], object] | None,
    kvm: Kvm | None,
    fast: bool,
) -> None:
    """Make the VM and all around it, by one ioctl after the other.

    Raises:
        HostError: KVM refuses something.
        UsageError: a board or an interrupt controller that there is not.
    """
    machine.kvm = kvm or Kvm.open()
    try:
        machine.vm = machine.kvm.create_vm()
    except BaseException:
        machine.close_kvm()
        raise
    try:
        machine.memory = GuestMemory(machine.vm)
        for base, length in machine.ram:
            machine.memory.add(base, length)
        _create_irqchip(machine)
        _wire(machine, board, Finish(), fast)
        machine.board.attach(machine, len(ids))
        if before_vcpus:
            before_vcpus(machine)
        _create_vcpus(machine, ids, cpuid)
    except BaseException:
        machine.close_parts()
        machine.vm.close()
        machine.close_kvm()
        raise


def _create_irqchip(machine: Unbuilt) -> None:
    vm, irqchip = machine.vm, machine.irqchip
    if irqchip == "none":
        return
    # Real mode on VMX without unrestricted guest needs these pages; elsewhere they cost nothing.
    vm.set_identity_map_addr(layout.REGIONS["identity_map"].base)
    vm.set_tss_addr(layout.REGIONS["kvm_tss"].base)
    if irqchip == "kernel":
        vm.create_irqchip()
    elif irqchip == "split":
        from vmm.abi.irq import IOAPIC_PINS

        vm.require("SPLIT_IRQCHIP", "irqchip=split")
        vm.enable_cap("SPLIT_IRQCHIP", IOAPIC_PINS)
    else:
        raise UsageError(f"irqchip={irqchip}: choose none, kernel or split")


def _wire(machine: Unbuilt, board: str, finish: Finish, fast: bool) -> None:
    """The board, who knows what can be reached, the ways through KVM_RUN."""
    kind: type[Board]
    if board == "own":
        kind = OwnBoard
    else:
        from vmm.machine.boards.others import board_class

        kind = board_class(board)
    drive = machine.irq_line if machine.irqchip != "none" or board != "own" else None
    machine.board = made = kind(
        machine.sink, lambda stop: machine.all_cpus.end(current(), stop), strict=machine.strict, irq=drive
    )
    platform = made.platform
    machine.reach = Reach(machine.vm, machine.memory, platform, irqchip=machine.irqchip, ram=machine.ram)
    platform.ports.check, platform.mmio.check = machine.reach.port, machine.reach.mmio
    machine.memory.check = machine.reach.slot
    lines = (machine.irq_line, machine.vm) if machine.irqchip == "kernel" else None
    machine.hook(platform, LeanLane(platform, machine.sink, finish, lines), machine.vm)
    machine.all_cpus = AllCpus(platform, machine.lane if fast else None)


def _create_vcpus(machine: Unbuilt, ids: list[int], edit: Callable[[CpuidModel], object] | None) -> None:
    vm, lapic = machine.vm, machine.irqchip != "none"
    if edit is not None:
        edit(machine.cpuid)
    if lapic and ids[0] != 0:
        vm.set_boot_cpu_id(ids[0])
    if lapic and max(ids) > LAST_XAPIC_ID and "X2APIC_API" not in vm.enabled:
        # Without it an INIT finds a vCPU that is still in xAPIC mode by the low 8 bits of its id only. A caller
        # that wants other flags, or none, has enabled those.
        vm.require("X2APIC_API", f"APIC id {max(ids)}")
        from vmm.abi.flags import X2APIC_API

        vm.enable_cap("X2APIC_API", sum(row.value for row in X2APIC_API))
    for index, apic_id in enumerate(ids):
        vcpu = vm.create_vcpu(apic_id)
        own = unedited(machine.kvm, apic_id, lapic=lapic) if edit is None else machine.cpuid.of_vcpu(apic_id)
        vcpu.set_cpuid2(own)
        machine.cpus.append(Cpu(vcpu, index, Core(vcpu, machine.lane.finish)))
    if edit is not None:
        _compare_cpuid(machine, exposed(machine.kvm, lapic=lapic))


def _compare_cpuid(machine: Unbuilt, before: CpuidModel) -> None:
    """Say what of an edited CPUID KVM did not take. All vCPUs were given the same, but for their APIC ids."""
    from vmm.machine.x86.cpuid import CpuidModel, not_taken

    got = CpuidModel(machine.cpus[0].vcpu.get_cpuid2())
    machine.cpuid_not_taken = tuple(not_taken(before, machine.cpuid, got))
    if machine.cpuid_not_taken:
        import warnings

        from vmm.errors import NotTaken

        text = f"CPUID: KVM did not take all of it, by KVM_GET_CPUID2: {'; '.join(machine.cpuid_not_taken)}"
        warnings.warn(text, NotTaken, stacklevel=5)


def make_whole(machine: Unbuilt, plain: Plain) -> None:
    """The parts of a machine that has been plain, around its VM; from any thread, also while it runs.

    No signal handler of Python's comes in between on this thread: it would find half of a machine.
    """
    with plain.lock:
        if plain.whole:
            return
        before = pthread_sigmask(SIG_BLOCK, valid_signals())
        try:
            _around(machine, plain)
        finally:
            pthread_sigmask(SIG_SETMASK, before)


def _around(machine: Unbuilt, plain: Plain) -> None:
    c, closed = plain.c, plain.closed
    machine.kvm, machine.vm = Kvm(c.kvm), Vm(c.vm, c.run_size)
    vcpu = Vcpu(c.vcpu, 0, c.run_size, c.run)
    for handle in (machine.kvm, machine.vm, vcpu):
        handle.opened_by(c.pid, closed=closed)
    mapping = plain.memory()
    machine.vm.adopt(vcpu, mapping)
    machine.memory = GuestMemory(machine.vm, spaces=c.spaces)
    machine.memory.adopt(0, mapping)
    _wire(machine, "own", Finish(plain.finish), fast=True)
    core = Core(vcpu, machine.lane.finish, plain.core)
    cpu = Cpu(vcpu, 0, core)
    machine.cpus.append(cpu)
    machine.all_cpus.take_over(plain.running)
    if closed:
        machine.all_cpus.closed()
        machine.release_parts()
    else:
        vcpu.pending = bool(plain.begun and not plain.core.error and c.run.exit_reason in PENDING)
        core.has_had(plain.others())
        if c.thread:
            cpu.thread_id = c.thread
            if c.thread == kick.thread_id():
                plain.leave = partial(cpus.enter, current())
                cpus.enter(cpu)
        elif not plain.running.locked():  # else its run is about to go on here
            core.keep_held()
    plain.whole = True
    plain.core.attention = 1
    machine.is_whole()
