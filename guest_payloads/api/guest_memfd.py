# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of guest_memfd: one memslot with two memories behind it, and which of them the guest reads and writes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vmm.abi import flags
from vmm.abi.x86 import PAGE
from vmm.kvm.guest_memfd import GuestMemfd
from vmm.kvm.memory import Mapping
from vmm.kvm.vm import Vm
from vmm.machine.memory.layout import REGIONS
from vmm.payload.guest import Guest
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Verdict

SHARED = sum(row.value for row in flags.GUEST_MEMFD)
PROTECTED_VM = next(row.value for row in flags.VM_TYPES if row.name.endswith("SW_PROTECTED_VM"))
SIZE, SLOT = 4 * PAGE, 64
IN_MEMFD, IN_DECOY, WRITTEN = 0x1111, 0xDDDD, 0x2222


@dataclass(frozen=True)
class Evidence:
    """What the guest read; what it wrote, as the guest_memfd and as the other memory has it."""

    read: int
    memfd: int
    decoy: int


def prove(lab: Lab) -> dict[str, Finding]:
    with lab.guest() as guest:
        vm = guest.machine.vm
        return {"guest_memfd": _shared(lab, guest), "guest_memfd_private": private(vm)}


def _shared(lab: Lab, guest: Guest) -> Finding:
    vm = guest.machine.vm
    offered = vm.check_extension("GUEST_MEMFD_FLAGS")
    if offered & SHARED != SHARED:
        text = f"KVM offers no guest_memfd that the VMM can map: flags {offered:#x}, not {SHARED:#x} (Linux 6.18)"
        return Finding(Verdict.ABSENT, text)
    with GuestMemfd(vm, SIZE, SHARED) as memfd:
        mapping = memfd.map()
        try:
            decoy = Mapping(SIZE)
            _put(mapping, PAGE, IN_MEMFD)
            _put(decoy, PAGE, IN_DECOY)
            attach(vm, lab.param("base"), decoy, memfd)
            guest.open_to_ring3(lab.param("base"))
            run_to_pass(guest)
            read = guest.machine.memory.read_u64(REGIONS["user"].base)
            return judge(Evidence(read, _get(mapping, 2 * PAGE), _get(decoy, 2 * PAGE)))
        finally:
            mapping.close()


def attach(vm: Vm, gpa: int, decoy: Mapping, memfd: GuestMemfd) -> None:
    """The slot: `decoy` at its address, `memfd` behind its pages."""
    vm.set_user_memory_region2(SLOT, gpa, decoy, guest_memfd=memfd.fd)


def _put(mapping: Mapping, offset: int, value: int) -> None:
    mapping.bytes[offset : offset + 8] = struct.pack("<Q", value)


def _get(mapping: Mapping, offset: int) -> int:
    value: int = struct.unpack_from("<Q", mapping.bytes, offset)[0]
    return value


def private(vm: Vm) -> Finding:
    """Private pages: what they need, and what of it this KVM lacks."""
    types, attributes = vm.check_extension("VM_TYPES"), vm.check_extension("MEMORY_ATTRIBUTES")
    numbers = {"KVM_CAP_VM_TYPES": hex(types), "KVM_CAP_MEMORY_ATTRIBUTES": hex(attributes)}
    if not types >> PROTECTED_VM & 1:
        return Finding(Verdict.ABSENT, f"KVM offers no VM with private memory: KVM_CAP_VM_TYPES is {types:#x}", numbers)
    return Finding(Verdict.UNPROVEN, "this lesson's VM is of the default type, which has no private memory", numbers)


def judge(seen: Evidence) -> Finding:
    """Both ways the page was the guest_memfd's."""
    numbers = {
        "read by the guest": hex(seen.read),
        "written, in the guest_memfd": hex(seen.memfd),
        "and at the slot's address": hex(seen.decoy),
    }
    if seen.read == IN_DECOY and seen.decoy == WRITTEN:
        return Finding(Verdict.INERT, "accepted, but the guest's pages come from the slot's address", numbers)
    if (seen.read, seen.memfd, seen.decoy) != (IN_MEMFD, WRITTEN, 0):
        text = (
            f"the guest read {seen.read:#x}; its write is {seen.memfd:#x} in the guest_memfd, {seen.decoy:#x} beside it"
        )
        return Finding(Verdict.BROKEN, text, numbers)
    return Finding(Verdict.WORKS, "", numbers, "read and written in the guest_memfd, not at the slot's address")
