# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's state as a value: taken between two runs, and put back any number of times. It knows no device.

What the guest sees of CPU and memory is in it. What the host has is not: devices, callbacks, the console, the VM's
clock, and KVM's own PIC and IOAPIC. Order as in api.rst: special registers first (they place the LAPIC), events last.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmm.abi.record import record
from vmm.errors import UsageError
from vmm.kvm.nested_state import NestedState
from vmm.kvm.state import DebugRegs, Regs, Sregs, VcpuEvents
from vmm.kvm.system import Kvm
from vmm.kvm.vcpu import Vcpu
from vmm.machine.memory import GuestMemory

XSAVE_BYTES = 4096


@record
class VcpuContext:
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


@record
class Context:
    """All vCPUs, and every memslot as (guest-physical address, bytes): as large as the guest's memory."""

    vcpus: tuple[VcpuContext, ...]
    memory: tuple[tuple[int, bytes], ...]


def save(kvm: Kvm, vcpus: Sequence[Vcpu], memory: GuestMemory, *, irqchip: bool) -> Context:
    """The present state; no vCPU may be running.

    Raises:
        UsageError: a vCPU is inside a string instruction, part of which KVM holds.
    """
    slots = tuple((slot.gpa, memory.read(slot.gpa, slot.size)) for slot in memory.slots)
    return Context(tuple(_save(kvm, vcpu, irqchip) for vcpu in vcpus), slots)


def restore(context: Context, vcpus: Sequence[Vcpu], memory: GuestMemory) -> None:
    """Make the machine what it was. MSRs that KVM does not let the host write stay as they are.

    Raises:
        UsageError: the context is of a machine with other vCPUs or memslots; nothing was changed.
    """
    slots = [(slot.gpa, slot.size) for slot in memory.slots]
    if len(context.vcpus) != len(vcpus) or [(gpa, len(data)) for gpa, data in context.memory] != slots:
        raise UsageError("this context is of another machine: its vCPUs or its memslots differ")
    for vcpu, saved in zip(vcpus, context.vcpus, strict=True):
        _restore(vcpu, saved)
    readonly = {slot.gpa for slot in memory.slots if slot.readonly}
    for gpa, data in context.memory:
        if gpa not in readonly:
            memory.write(gpa, data)


def _save(kvm: Kvm, vcpu: Vcpu, irqchip: bool) -> VcpuContext:
    vcpu.complete()
    if vcpu.stored is not None:
        raise UsageError(f"{vcpu.what} is inside a string instruction; run on to its end before saving")
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
    vcpu.abandon()
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
