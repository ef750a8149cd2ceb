# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM's hypercalls served by pyvmm, for hosts where the instruction never reaches KVM, and MAP_GPA_RANGE for all.

A guest's #UD handler recognises the instruction and does an OUT to the hypercall port; the interrupted registers are
then the call's, and its frame lies at RSP. `serve` answers as KVM's kvm_emulate_hypercall does: privilege first,
then the number and the feature gate, then the arguments. What it does with the host is the nearest thing userspace
has: MSIs for kicks and IPIs, KVM_GET_CLOCK for clock pairing. It proves the ABI that a guest sees, not KVM's handler.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

from vmm.abi import apic, ports, pv
from vmm.abi.structs import KVM_CLOCK_PAIRING
from vmm.errors import GuestMemoryError, KvmCallError
from vmm.machine.machine import Machine
from vmm.machine.runner import Runner, current

MASK64 = (1 << 64) - 1
CLOCK_PAIRING_WALLCLOCK = 0  # the only clock type there is
PAGE_SHIFT = 12
TSC_OFFSET = (0, 0)  # KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET: Documentation/virt/kvm/devices/vcpu.rst
BITS_PER_WORD = 64  # of a 64-bit guest's IPI bitmap
MAX_PAGE_SIZE = 2  # of KVM_MAP_GPA_RANGE_*: 4 KiB, 2 MiB, 1 GiB
ATTRIBUTE_BITS = 0x1F  # page size in bits 3:0, encrypted in bit 4


class HypercallService:
    """Serves one machine. `served` counts calls by number, `private` holds the guest frame numbers marked encrypted.

    `enforce` says that KVM_CAP_ENFORCE_PV_FEATURE_CPUID is on: then a call whose feature the guest's CPUID lacks is
    refused with -KVM_ENOSYS, as KVM does. `exit_hypercall` says that KVM_CAP_EXIT_HYPERCALL is on for MAP_GPA_RANGE.
    """

    def __init__(self, machine: Machine, *, enforce: bool = False, exit_hypercall: bool = False) -> None:
        self._machine = machine
        self.enforce, self.exit_hypercall = enforce, exit_hypercall
        self.served: Counter[int] = Counter()
        self.private: set[int] = set()
        self.map_gpa_result: int | None = None  # an answer to give instead, for payloads that test how it arrives
        self._calls: dict[int, Callable[[Runner, tuple[int, ...]], int]] = {
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
        runner = current()
        assert runner is not None  # a port write comes from a vCPU
        runner.vcpu.complete()
        regs = runner.vcpu.get_regs()
        cs = self._machine.memory.read_u64(regs.rsp + 8)  # the frame: RIP, CS, ...; the stack is identity-mapped
        answer = self.serve(runner, regs.rax, (regs.rbx, regs.rcx, regs.rdx, regs.rsi), cpl=cs & 3)
        regs.rax = answer & MASK64
        runner.vcpu.set_regs(regs)

    def serve(self, runner: Runner, nr: int, args: tuple[int, ...], *, cpl: int = 0) -> int:
        """The result of hypercall `nr` with a0 to a3, as a signed number."""
        self.served[nr] += 1
        if cpl != 0:
            return -pv.KVM_EPERM
        call = self._calls.get(nr)
        row = pv.find_hypercall(nr)
        if call is None or row is None or (self.enforce and row.gate and not self._machine.cpuid.has(row.gate)):
            return -pv.KVM_ENOSYS
        return call(runner, args)

    def _vapic_poll_irq(self, runner: Runner, args: tuple[int, ...]) -> int:
        return 0

    def _signal(self, destination: int, vector: int, mode: int) -> int:
        """One MSI to one APIC id; 0 if nobody took it."""
        try:
            return self._machine.vm.signal_msi(apic.msi_address(destination), apic.msi_data(vector, mode))
        except KvmCallError:
            return 0

    def _kick_cpu(self, runner: Runner, args: tuple[int, ...]) -> int:
        self._signal(args[1] & 0xFFFFFFFF, 0, apic.DM_REMRD)
        return 0  # also for an id that does not exist

    def _send_ipi(self, runner: Runner, args: tuple[int, ...]) -> int:
        low, high, lowest_id, command = args
        if command & (apic.DEST_LOGICAL | apic.DEST_ALLBUT):
            return -pv.KVM_EINVAL
        known = {each.vcpu.id for each in self._machine.runners}
        bitmap = low & MASK64 | (high & MASK64) << BITS_PER_WORD
        targets = [lowest_id + bit for bit in range(2 * BITS_PER_WORD) if bitmap >> bit & 1]
        sent = (self._signal(each, command & 0xFF, command & 0x700) for each in targets if each in known)
        return sum(result > 0 for result in sent)

    def _sched_yield(self, runner: Runner, args: tuple[int, ...]) -> int:
        os.sched_yield()  # userspace has no directed yield
        return 0

    def _clock_pairing(self, runner: Runner, args: tuple[int, ...]) -> int:
        gpa, clock_type = args[0], args[1]
        if clock_type != CLOCK_PAIRING_WALLCLOCK:
            return -pv.KVM_EOPNOTSUPP
        clock = self._machine.vm.get_clock()
        if not clock.has_realtime:
            return -pv.KVM_EOPNOTSUPP
        # KVM_SET_TSC_KHZ is never used here, so the guest's TSC runs at the host's rate.
        tsc = (clock.host_tsc + runner.vcpu.get_device_attr(*TSC_OFFSET)) & MASK64
        sec, nsec = divmod(clock.realtime, 10**9)
        try:
            self._machine.memory.write(gpa, KVM_CLOCK_PAIRING.pack(sec=sec, nsec=nsec, tsc=tsc, flags=0))
        except GuestMemoryError:
            return -pv.KVM_EFAULT
        return 0

    def _map_gpa_range(self, runner: Runner, args: tuple[int, ...]) -> int:
        """What KVM checks before it exits, then what the VMM decides."""
        gpa, pages, attributes = args[:3]
        first = gpa >> PAGE_SHIFT
        if not self.exit_hypercall:
            return -pv.KVM_ENOSYS
        if gpa & (1 << PAGE_SHIFT) - 1 or not pages or (first + pages) & MASK64 <= first:
            return -pv.KVM_EINVAL
        return self._exit_map_gpa_range(gpa, pages, attributes)

    def _exit_map_gpa_range(self, gpa: int, pages: int, attributes: int, *_unused: int) -> int:
        """KVM_EXIT_HYPERCALL: mark the pages private or shared. KVM leaves the attributes' reserved bits to us."""
        if self.map_gpa_result is not None:
            return self.map_gpa_result
        if attributes & ~ATTRIBUTE_BITS or attributes & 0xF > MAX_PAGE_SIZE:
            return -pv.KVM_EINVAL
        first = gpa >> PAGE_SHIFT
        if first + pages > self._machine.memory.size >> PAGE_SHIFT:
            return -pv.KVM_EINVAL  # a range beyond RAM: nothing to mark, and no bitmap of any size a guest asks for
        frames = range(first, first + pages)
        if attributes >> 4 & 1:
            self.private.update(frames)
        else:
            self.private.difference_update(frames)
        return 0


def _number(name: str) -> int:
    row = pv.find_hypercall(name)
    assert row is not None, name
    return row.nr
