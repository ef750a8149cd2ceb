# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's state as a value: taken between two runs, put back any number of times, here or in another machine of the
same shape; pickle takes it.

What the guest can tell is in it: CPU, memory, kvmclock, KVM's interrupt controllers and PIT, and each device that has
a state. What the host alone has is not: callbacks, the console's text, a disk's file. Order as in api.rst: devices and
interrupt controllers first (a line that is driven must not reach a LAPIC that is there already), then special registers
(they place the LAPIC), events last.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from vmm.base.record import Record
from vmm.errors import UsageError
from vmm.kvm import irqchip
from vmm.kvm.nested_state import NestedState
from vmm.kvm.state import DebugRegs, Regs, Sregs, VcpuEvents
from vmm.kvm.system import Kvm
from vmm.kvm.vcpu import Vcpu
from vmm.machine import device_state

if TYPE_CHECKING:
    from vmm.machine.whole import Whole

XSAVE_BYTES = 4096


class VcpuContext(Record):
    """One vCPU. `fpu` is the XSAVE area (struct kvm_fpu where `xsave` is False); `msrs` those that KVM lists and reads.

    `lapic` and `mp_state` are None without an in-kernel LAPIC, `nested` where KVM has no nested state to give.
    """

    regs: Regs
    sregs: Sregs
    fpu: bytes
    xsave: bool
    xcrs: dict[int, int]
    debugregs: DebugRegs
    events: VcpuEvents
    msrs: dict[int, int]
    lapic: bytes | None
    mp_state: int | None
    nested: NestedState | None = None


VERSION = 1
"""Of what pickle keeps of a Context; to be counted on when a field changes its meaning."""


class Context(Record):
    """All vCPUs, and every memslot as (guest-physical address, bytes): as large as the guest's memory.

    `clock` is kvmclock in ns. `chips` are KVM's PICs and IOAPIC, `pit` its PIT, None where the VM has none. `devices`
    are states by the device's place, `started` the vCPUs that were made to start by hand.
    """

    vcpus: tuple[VcpuContext, ...]
    memory: tuple[tuple[int, bytes], ...]
    clock: int
    chips: tuple[bytes, ...] | None
    pit: bytes | None
    devices: dict[str, Any]
    started: tuple[int, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        # The rest as bytes: a version that is not ours is found before anything is made of them.
        return _unpickled, (VERSION, pickle.dumps(tuple(getattr(self, name) for name in self.__match_args__)))


def _unpickled(version: int, fields: bytes) -> Context:
    if version != VERSION:
        raise UsageError(f"a saved context of version {version}; this pyvmm reads version {VERSION}")
    return Context(*pickle.loads(fields))


def save(machine: Whole, started: Iterable[int]) -> Context:
    """The present state; no vCPU may be running. A vCPU that is inside of an instruction finishes it first, and what
    that still wants of a device or a callback is asked for now.

    Raises:
        UsageError: that instruction would end the run; or pages of its memory are supplied when they are first touched.
        whatever a callback raises.
    """
    if any(slot.mapping.held_back is not None for slot in machine.memory.slots):  # some of it is not there
        raise UsageError("saving the state of a machine whose pages are supplied on demand")
    machine.all_cpus.settle()
    vm, memory, kernel = machine.vm, machine.memory, machine.irqchip == "kernel"
    devices = device_state.get(
        device_state.find(machine.platform, machine.lane)
    )  # first: what they serve they write to memory
    return Context(
        tuple(_save(machine.kvm, cpu.vcpu, machine.irqchip != "none") for cpu in machine.cpus),
        tuple((slot.gpa, memory.read(slot.gpa, slot.size)) for slot in memory.slots),
        clock=vm.get_clock().clock,
        chips=irqchip.get_chips(vm) if kernel else None,
        pit=irqchip.get_pit(vm) if vm.has_pit else None,
        devices=devices,
        started=tuple(sorted(started)),
    )


def restore(context: Context, machine: Whole) -> None:
    """Make the machine what it was. MSRs that KVM does not let the host write stay as they are, and so do devices of
    which the context has no state.

    Raises:
        UsageError: the context is of a machine with other vCPUs, memslots, interrupt controllers, or devices that are
            not here; nothing was changed.
    """
    vm, memory, vcpus = machine.vm, machine.memory, [cpu.vcpu for cpu in machine.cpus]
    slots = [(slot.gpa, slot.size) for slot in memory.slots]
    if len(context.vcpus) != len(vcpus) or [(gpa, len(data)) for gpa, data in context.memory] != slots:
        raise UsageError("this context is of another machine: its vCPUs or its memslots differ")
    if (
        (context.vcpus[0].lapic is None) != (machine.irqchip == "none")
        or (context.chips is None) != (machine.irqchip != "kernel")
        or (context.pit is None) == vm.has_pit
    ):
        raise UsageError(
            f"this context is of another machine: its interrupt controllers or PIT differ from {machine.irqchip}"
        )
    devices = device_state.find(machine.platform, machine.lane)
    device_state.check(context.devices, devices)
    for vcpu in vcpus:
        vcpu.abandon()
    device_state.put(context.devices, devices)
    if context.chips is not None:
        irqchip.set_chips(vm, context.chips)
    if context.pit is not None:
        irqchip.set_pit(vm, context.pit)
    for vcpu, saved in zip(vcpus, context.vcpus, strict=True):
        _restore(vcpu, saved)
    readonly = {slot.gpa for slot in memory.slots if slot.readonly}
    for gpa, data in context.memory:
        if gpa not in readonly:
            memory.write(gpa, data)
    vm.set_clock(context.clock)
    device_state.resume(devices)


def _save(kvm: Kvm, vcpu: Vcpu, irqchip: bool) -> VcpuContext:
    has_xsave = bool(kvm.check_extension("XSAVE"))
    size = max(kvm.check_extension("XSAVE2"), XSAVE_BYTES)
    return VcpuContext(
        regs=vcpu.get_regs(),
        sregs=vcpu.get_sregs(),
        fpu=_fpu(vcpu, size if has_xsave else 0),
        xsave=has_xsave,
        xcrs=vcpu.get_xcrs() if kvm.check_extension("XCRS") else {},
        debugregs=vcpu.get_debugregs(),
        events=vcpu.get_vcpu_events(),
        msrs=_readable(vcpu, kvm.get_msr_index_list()),
        lapic=vcpu.get_lapic() if irqchip else None,
        mp_state=vcpu.get_mp_state() if irqchip else None,
        nested=vcpu.get_nested_state(nested) if (nested := kvm.check_extension("NESTED_STATE")) else None,
    )


def _fpu(vcpu: Vcpu, xsave_bytes: int) -> bytes:
    if not xsave_bytes:
        return vcpu.get_fpu()
    return vcpu.get_xsave2(xsave_bytes) if xsave_bytes > XSAVE_BYTES else vcpu.get_xsave()


def _readable(vcpu: Vcpu, indices: list[int]) -> dict[int, int]:
    """The MSRs that KVM reads, of those it lists: KVM_GET_MSRS stops at the first that it refuses."""
    found: dict[int, int] = {}
    while indices:
        values = vcpu.get_msrs(indices)
        found |= values
        indices = indices[len(values) + 1 :]
    return found


def _restore(vcpu: Vcpu, saved: VcpuContext) -> None:
    if saved.nested is not None:
        vcpu.set_nested_state(saved.nested.outside)  # a guest in the guest that runs now would get the registers
    vcpu.set_sregs(saved.sregs)
    if saved.xcrs:
        vcpu.set_xcrs(saved.xcrs)
    (vcpu.set_xsave if saved.xsave else vcpu.set_fpu)(saved.fpu)
    vcpu.set_regs(saved.regs)
    if saved.lapic is not None:
        vcpu.set_lapic(saved.lapic)
    left = list(saved.msrs.items())
    while left:
        left = left[vcpu.set_msrs(dict(left)) + 1 :]
    vcpu.set_debugregs(saved.debugregs)
    if saved.nested is not None:  # the special registers and MSRs that are set by now say whether it may be
        vcpu.set_nested_state(saved.nested)
    vcpu.set_vcpu_events(saved.events)
    if saved.mp_state is not None:
        vcpu.set_mp_state(saved.mp_state)
