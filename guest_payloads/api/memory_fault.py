# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of memory_fault: takes the memory behind a slot away, reads the exit, and where it can be given back, the
guest goes on.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass

from vmm.abi import flags
from vmm.abi.x86 import PAGE
from vmm.errors import KvmCallError, errno_name
from vmm.kvm.exits import MemoryFault
from vmm.kvm.guest_memfd import GuestMemfd
from vmm.kvm.memory import Mapping
from vmm.machine.ends import Why
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, GuestBroke, Verdict

PAGES, SLOT = 8, 64
CONTENT = 0x0BAD_CAFE_F00D_0003
SHARED = sum(row.value for row in flags.GUEST_MEMFD)


@dataclass(frozen=True)
class Evidence:
    """Where the guest touched the slot; the exit, None where KVM_RUN failed with EFAULT and said no more; what the
    guest read after the repair, None where there is none.
    """

    gpa: int
    fault: MemoryFault | None
    read: int | None


def prove(lab: Lab) -> dict[str, Finding]:
    return {"memory_fault": judge(file_cut(lab)), "memory_fault_memfd": memfd_gone(lab)}


def file_cut(lab: Lab) -> Evidence:
    """The slot's file has become too short, and then gets its length and contents back."""
    base, page = lab.param("base"), lab.param("page")
    file = os.memfd_create("pyvmm-memory-fault", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, PAGES * PAGE)
        with lab.guest() as guest:
            guest.machine.memory.add(base, PAGES * PAGE, mapping=Mapping(PAGES * PAGE, shared=True, fd=file))
            guest.open_to_ring3(base)
            cut(file)
            fault = fault_of(guest)
            os.ftruncate(file, PAGES * PAGE)
            os.pwrite(file, struct.pack("<Q", CONTENT), page * PAGE)
            run_to_pass(guest)
            return Evidence(base + page * PAGE, fault, guest.machine.memory.read_u64(REGIONS["user"].base))
    finally:
        os.close(file)


def cut(file: int) -> None:
    """Leave no page behind the slot."""
    os.ftruncate(file, 0)


def memfd_gone(lab: Lab) -> Finding:
    """The slot's guest_memfd has been closed, and with it the memory is gone for good."""
    base = lab.param("base")
    with lab.guest() as guest:
        vm = guest.machine.vm
        if vm.check_extension("GUEST_MEMFD_FLAGS") & SHARED != SHARED:
            return Finding(Verdict.ABSENT, "KVM offers no guest_memfd for a VM of the default type (Linux 6.18)")
        memfd = GuestMemfd(vm, PAGES * PAGE, SHARED)
        try:
            vm.set_user_memory_region2(SLOT, base, Mapping(PAGES * PAGE), guest_memfd=memfd.fd)
            guest.open_to_ring3(base)
            take_away(memfd)
            return judge(Evidence(base + lab.param("page") * PAGE, fault_of(guest), None))
        finally:
            memfd.close()


def take_away(memfd: GuestMemfd) -> None:
    memfd.close()


def fault_of(guest: Guest) -> MemoryFault | None:
    """Run until the guest touches the page: the exit, or None for an EFAULT that says nothing.

    Raises:
        GuestBroke: the guest went on.
    """
    try:
        stop = guest.run().stop
    except KvmCallError as error:
        if (error.call, error.errno) != ("KVM_RUN", errno.EFAULT):
            raise
        return None
    if stop.why is not Why.MEMORY_FAULT or not isinstance(stop.exit, MemoryFault):
        raise GuestBroke(f"no KVM_EXIT_MEMORY_FAULT for a page that is not there: {stop.text}")
    return stop.exit


def judge(seen: Evidence) -> Finding:
    """The exit names the page, and the access was done once it was there."""
    fault = seen.fault
    shown = "EFAULT without one"
    if fault is not None:
        shown = f"gpa {fault.gpa:#x}, size {fault.size:#x}, flags {fault.flags:#x}, {errno_name(fault.errno)}"
    numbers = {"touched": hex(seen.gpa), "exit": shown}
    if seen.read is not None:
        numbers["read afterwards"] = hex(seen.read)
        if seen.read != CONTENT:
            text = f"after the repair the guest read {seen.read:#x}, not {CONTENT:#x}"
            return Finding(Verdict.BROKEN, text, numbers)
    if fault is None:
        text = "KVM_RUN fails with EFAULT, and no KVM_EXIT_MEMORY_FAULT says where"
        return Finding(Verdict.INERT, text + "; repaired, the access went through" * (seen.read is not None), numbers)
    if not fault.gpa <= seen.gpa < fault.gpa + fault.size:
        text = f"the exit names {fault.size:#x} bytes at {fault.gpa:#x}, and the guest touched {seen.gpa:#x}"
        return Finding(Verdict.BROKEN, text, numbers)
    if fault.errno != errno.EFAULT or fault.flags:
        text = f"flags {fault.flags:#x} and {errno_name(fault.errno)}, where 0 and EFAULT should be"
        return Finding(Verdict.BROKEN, text, numbers)
    summary = f"the exit names {fault.size:#x} bytes at {fault.gpa:#x}"
    return Finding(
        Verdict.WORKS, "", numbers, summary + "; repaired, the access went through" * (seen.read is not None)
    )
