# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM's hypercalls served by pyvmm, for hosts where the instruction never reaches KVM, and MAP_GPA_RANGE for all.

A guest's #UD handler recognises the instruction and does an OUT to the hypercall port; the interrupted registers are
then the call's, and its frame lies at RSP. `serve` answers as KVM's kvm_emulate_hypercall does for 64-bit code:
privilege first, then the number and the feature gate, then the arguments. What it does with the host is the nearest
thing userspace has: MSIs for kicks and IPIs, KVM_GET_CLOCK for clock pairing. It proves the ABI that a guest sees, not
KVM's handler. Source: Documentation/virt/kvm/x86/hypercalls.rst; KVM_EXIT_HYPERCALL in api.rst.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from vmm.abi import apic, flags, ports, pv
from vmm.abi.rows import value_of
from vmm.abi.structs import KVM_CLOCK_PAIRING
from vmm.abi.x86 import PAGE_SHIFT
from vmm.base.bits import MASK64
from vmm.errors import GuestMemoryError, KvmCallError
from vmm.machine.machine import Machine
from vmm.machine.run.cpu import Cpu, current
from vmm.machine.x86.cpuid import CpuidModel

MASK32 = (1 << 32) - 1
TSC_CTRL = value_of(flags.VCPU_TSC, "KVM_VCPU_TSC_CTRL")
TSC_OFFSET = (TSC_CTRL, value_of(flags.VCPU_TSC, "KVM_VCPU_TSC_OFFSET"))
"""Group and attribute for KVM_GET_DEVICE_ATTR of a vCPU (Documentation/virt/kvm/devices/vcpu.rst)."""
BITS_PER_WORD = 64  # of a 64-bit guest's IPI bitmap
PAGE_SIZES = tuple(value_of(pv.CONSTANTS, f"KVM_MAP_GPA_RANGE_PAGE_SZ_{size}") for size in ("4K", "2M", "1G"))
ENCRYPTED = value_of(pv.CONSTANTS, "KVM_MAP_GPA_RANGE_ENCRYPTED")
CLOCK_PAIRING_WALLCLOCK = value_of(pv.CONSTANTS, "KVM_CLOCK_PAIRING_WALLCLOCK")
X2APIC_API_USE_32BIT_IDS = value_of(flags.X2APIC_API, "KVM_X2APIC_API_USE_32BIT_IDS")


class HypercallService:
    """Serves one machine. `served` counts calls by number, `private` holds the guest frame numbers marked encrypted,
    `ranges` the arguments of every MAP_GPA_RANGE that came as far as the VMM, on either way.

    `enforce` says that KVM_CAP_ENFORCE_PV_FEATURE_CPUID is on: then a call whose feature the vCPU's CPUID lacks is
    refused with -KVM_ENOSYS, as KVM does. `map_gpa_result`, when set, is the VMM's answer to every MAP_GPA_RANGE: for
    payloads that test how an answer arrives.
    """

    def __init__(self, machine: Machine, *, enforce: bool = False) -> None:
        self._machine = machine
        self.enforce = enforce
        self.served: Counter[int] = Counter()
        self.private: set[int] = set()
        self.ranges: list[tuple[int, int, int]] = []
        self.map_gpa_result: int | None = None
        self._cpuids: dict[int, CpuidModel] = {}
        self._calls: dict[int, Callable[[Cpu, tuple[int, ...]], int]] = {
            _number(name): call
            for name, call in (
                ("VAPIC_POLL_IRQ", self._vapic_poll_irq),
                ("KICK_CPU", self._kick_cpu),
                ("CLOCK_PAIRING", self._clock_pairing),
                ("SEND_IPI", self._send_ipi),
                ("SCHED_YIELD", self._sched_yield),
                ("MAP_GPA_RANGE", self._map_gpa_range),
            )
        }
        machine.on_port_write(ports.HYPERCALL, self._handed_over)
        machine.platform.hypercalls[_number("MAP_GPA_RANGE")] = self._exit_map_gpa_range

    def _handed_over(self, value: int) -> None:
        """The guest's #UD handler did its OUT: read the call, serve it, leave the answer in RAX."""
        cpu = current()
        assert cpu is not None  # a port write comes from a vCPU
        cpu.vcpu.complete()
        regs = cpu.vcpu.get_regs()
        cs = self._machine.memory.read_u64(regs.rsp + 8)  # the frame: RIP, CS, ...; the stack is identity-mapped
        answer = self.serve(cpu, regs.rax, (regs.rbx, regs.rcx, regs.rdx, regs.rsi), cpl=cs & 3)
        regs.rax = answer & MASK64
        cpu.vcpu.set_regs(regs)

    def serve(self, cpu: Cpu, nr: int, args: tuple[int, ...], *, cpl: int = 0) -> int:
        """The result of hypercall `nr` with a0 to a3, as a signed number."""
        self.served[nr] += 1
        if cpl != 0:
            return -pv.KVM_EPERM
        call = self._calls.get(nr)
        row = pv.find_hypercall(nr)
        if call is None or row is None or not self._permitted(cpu, row.gate):
            return -pv.KVM_ENOSYS
        return call(cpu, args)

    def _permitted(self, cpu: Cpu, gate: str) -> bool:
        """KVM's guest_pv_has: what counts is the vCPU's CPUID after KVM's own adjustments."""
        if not gate or not self.enforce:
            return True
        if cpu.index not in self._cpuids:
            self._cpuids[cpu.index] = CpuidModel(cpu.vcpu.get_cpuid2())
        return self._cpuids[cpu.index].has(gate)

    # -- the calls

    def _vapic_poll_irq(self, cpu: Cpu, args: tuple[int, ...]) -> int:
        return 0

    def _kick_cpu(self, cpu: Cpu, args: tuple[int, ...]) -> int:
        self._signal(args[1] & MASK32, 0, apic.DM_REMRD)
        return 0  # also for an id that does not exist

    def _send_ipi(self, cpu: Cpu, args: tuple[int, ...]) -> int:
        low, high, lowest_id, command = args
        if command & (apic.DEST_LOGICAL | apic.DEST_ALLBUT):
            return -pv.KVM_EINVAL
        if self._machine.irqchip == "none":
            return -pv.KVM_EOPNOTSUPP  # no APIC map
        bitmap = low & MASK64 | (high & MASK64) << BITS_PER_WORD
        targets = [(lowest_id & MASK32) + bit for bit in range(2 * BITS_PER_WORD) if bitmap >> bit & 1]
        return sum(self._signal(each, command & 0xFF, command & 0x700) > 0 for each in targets)

    def _signal(self, destination: int, vector: int, mode: int) -> int:
        """One MSI to the vCPU with exactly this APIC id; 0 if there is none or it does not take it."""
        vm = self._machine.vm
        if all(each.vcpu.id != destination for each in self._machine.cpus):
            return 0  # not even tried: 0xff is a broadcast in an MSI, and no id in a hypercall
        long_ids = vm.enabled.get("X2APIC_API", (0,))[0] & X2APIC_API_USE_32BIT_IDS
        if destination > 0xFF and not long_ids:
            return 0  # an MSI has no more than eight bits of it: it would arrive at another vCPU
        try:
            return vm.signal_msi(apic.msi_address(destination), apic.msi_data(vector, mode))
        except KvmCallError:
            return 0

    def _sched_yield(self, cpu: Cpu, args: tuple[int, ...]) -> int:
        os.sched_yield()  # userspace has no directed yield
        return 0

    def _clock_pairing(self, cpu: Cpu, args: tuple[int, ...]) -> int:
        gpa, clock_type = args[0], args[1]
        if clock_type != CLOCK_PAIRING_WALLCLOCK:
            return -pv.KVM_EOPNOTSUPP
        clock = self._machine.vm.get_clock()
        if not clock.has_realtime:
            return -pv.KVM_EOPNOTSUPP
        # KVM_SET_TSC_KHZ is never used here, so the guest's TSC runs at the host's rate.
        tsc = (clock.host_tsc + cpu.vcpu.get_device_attr(*TSC_OFFSET)) & MASK64
        sec, nsec = divmod(clock.realtime, 10**9)
        try:
            self._machine.memory.write(gpa, KVM_CLOCK_PAIRING.pack(sec=sec, nsec=nsec, tsc=tsc, flags=0))
        except GuestMemoryError:
            return -pv.KVM_EFAULT
        return 0

    def _map_gpa_range(self, cpu: Cpu, args: tuple[int, ...]) -> int:
        """What KVM checks before it exits, then what the VMM decides."""
        gpa, pages, attributes = args[:3]
        nr = _number("MAP_GPA_RANGE")
        if not self._machine.vm.enabled.get("EXIT_HYPERCALL", (0,))[0] >> nr & 1:
            return -pv.KVM_ENOSYS
        first = gpa >> PAGE_SHIFT
        if gpa & (1 << PAGE_SHIFT) - 1 or not pages or (first + pages) & MASK64 <= first:
            return -pv.KVM_EINVAL
        return self._exit_map_gpa_range(gpa, pages, attributes)

    def _exit_map_gpa_range(self, gpa: int, pages: int, attributes: int, *_unused: int) -> int:
        """KVM_EXIT_HYPERCALL: mark the pages private or shared. KVM leaves the attributes' reserved bits to us."""
        self.ranges.append((gpa, pages, attributes))
        if self.map_gpa_result is not None:
            return self.map_gpa_result
        if attributes & ~(ENCRYPTED | 0xF) or attributes & 0xF not in PAGE_SIZES:
            return -pv.KVM_EINVAL
        if not self._is_ram(gpa, pages << PAGE_SHIFT):
            return -pv.KVM_EINVAL  # nothing there to mark, and no set as large as a guest can ask for
        first = gpa >> PAGE_SHIFT
        frames = range(first, first + pages)
        if attributes & ENCRYPTED:
            self.private.update(frames)
        else:
            self.private.difference_update(frames)
        return 0

    def _is_ram(self, gpa: int, size: int) -> bool:
        """Does guest memory hold every byte of the range?"""
        end = gpa + size
        while gpa < end:
            slot = self._machine.memory.slot_at(gpa)
            if slot is None:
                return False
            gpa = slot.end
        return True


def _number(name: str) -> int:
    return pv.hypercall(name).nr
