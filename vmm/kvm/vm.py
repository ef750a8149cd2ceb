# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM: its memslots, interrupt controllers, clock and vCPUs. One method per VM ioctl.

A VM keeps what the kernel only borrows (the mappings behind its memslots) and closes in the one safe order: vCPUs,
the VM, then memory; a VM alive over unmapped memory would write into whatever is mapped there next.
"""

from __future__ import annotations

from vmm.base.record import Record
from vmm.errors import KvmCallError, UsageError
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.capabilities import check_extension, enable_cap, require
from vmm.kvm.events import VmEvents, default_routes
from vmm.kvm.handle import new
from vmm.kvm.memory import Mapping
from vmm.kvm.vcpu import Vcpu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from vmm.kvm.stats import Stats

_signal_msi = lib.vmm_signal_msi  # an attribute of `lib` is looked up each time, and a device's guest waits


class Clock(Record):
    """KVM_GET_CLOCK: kvmclock in ns, flags (KVM_CLOCK_*), and with them CLOCK_REALTIME in ns and the host's TSC."""

    clock: int
    flags: int
    realtime: int
    host_tsc: int

    @property
    def tsc_stable(self) -> bool:
        return bool(self.flags & lib.KVM_CLOCK_TSC_STABLE)

    @property
    def has_realtime(self) -> bool:
        return bool(self.flags & lib.KVM_CLOCK_REALTIME and self.flags & lib.KVM_CLOCK_HOST_TSC)


class MsrRange(Record):
    """One range of an MSR filter: `allowed[i]` says whether MSR base + i may be accessed (at most 0x3000 MSRs)."""

    base: int
    allowed: tuple[bool, ...]
    read: bool = True
    write: bool = True


class Vm(VmEvents):
    """A VM descriptor; made by `Kvm.create_vm`."""

    _stats: Stats | None = None

    what = "the VM"
    raised: Callable[[str, int], object] | None = None
    """Told of what the host raises: "line up" or "line down" and the GSI, "msi" and the vector."""

    def __init__(self, fd: int, run_size: int) -> None:
        super().__init__(fd)
        self._run_size = run_size
        self._vcpus: list[Vcpu] = []
        self._mappings: list[Mapping] = []
        self.enabled: dict[str, tuple[int, ...]] = {}
        self._bits: dict[str, int] = {}  # of a mask of capabilities, what `enable_bits` gave
        self._filter: tuple[tuple[MsrRange, ...], bool] = ((), False)
        self._denied: tuple[frozenset[int], frozenset[int]] = (frozenset(), frozenset())  # reads, writes
        self.has_pit = False
        self._levels: dict[tuple[int, bool], Any] = {}  # what KVM_IRQ_LINE is given, by GSI and level

    def adopt(self, vcpu: Vcpu, mapping: Mapping) -> None:
        """A vCPU and a memslot that C has made (vmm_plain_make) are this VM's, and go with it."""
        self._vcpus.append(vcpu)
        if not self.closed:
            self._adopt(mapping)

    def close(self) -> None:
        for vcpu in self._vcpus:
            vcpu.close()
        if self._stats is not None:  # its descriptor keeps the VM
            self._stats.close()
            self._stats = None
        super().close()
        while self._mappings:
            mapping = self._mappings.pop()
            mapping.users -= 1
            if not mapping.users:
                mapping.close()
        self._vcpus = []

    # -- capabilities

    def check_extension(self, capability: str) -> int:
        """KVM_CHECK_EXTENSION on this VM, by name; it may differ from the system's answer."""
        return check_extension(self, capability)

    def require(self, capability: str, needed_by: str) -> int:
        """The capability's value, asked of this VM; errors as `Kvm.require`."""
        return require(self, capability, needed_by)

    def enable_cap(self, capability: str, *args: int) -> None:
        """KVM_ENABLE_CAP on the VM, by name, with up to four 64-bit `args`. `enabled` keeps what was accepted.

        Bits that `enable_bits` has given stay.
        """
        from vmm.base.names import strip_prefix

        name = strip_prefix(capability, "KVM_CAP_")
        if bits := self._bits.get(name):
            args = (bits | (args[0] if args else 0), *args[1:])
        enable_cap(self, capability, args)
        self.enabled[name] = args

    def enable_bits(self, capability: str, bits: int) -> None:
        """KVM_ENABLE_CAP for one of several users of a mask, which KVM replaces as a whole (X86_USER_SPACE_MSR,
        EXIT_HYPERCALL): these bits for good, beside those of others.
        """
        with self._changing:
            on = self.enabled.get(capability, (0,))[0]
            if bits & ~on:
                self.enable_cap(capability, on | bits)
            self._bits[capability] = self._bits.get(capability, 0) | bits

    # -- memory

    def address_spaces(self) -> int:
        """How many sets of memslots a vCPU may be in: KVM_CAP_MULTI_ADDRESS_SPACE, 0 or 1 for one. Every VM asks, so
        not by name: the table of capabilities is long to load.
        """
        return self.value("KVM_CHECK_EXTENSION", lib.KVM_CAP_MULTI_ADDRESS_SPACE, "asking for address spaces")

    def set_user_memory_region(
        self,
        slot: int,
        gpa: int,
        mapping: Mapping | None,
        *,
        offset: int = 0,
        size: int = 0,
        readonly: bool = False,
        log_dirty: bool = False,
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION: slot -> [gpa, gpa + size) over mapping[offset:]; `mapping` None deletes the slot.

        `offset` and `size` in bytes; `size` 0 means to the end of the mapping. The VM closes the mapping when it
        closes.

        Raises:
            UsageError: the mapping does not have these bytes.
        """
        size = self._span(mapping, offset, size)
        flags = readonly * lib.KVM_MEM_READONLY | log_dirty * lib.KVM_MEM_LOG_DIRTY_PAGES
        hva = mapping.hva + offset if mapping else 0
        raw = new("struct kvm_userspace_memory_region *", [slot, flags, gpa, size, hva])
        self.call("KVM_SET_USER_MEMORY_REGION", raw, f"setting memslot {slot} to {size:#x} bytes at GPA {gpa:#x}")
        self._adopt(mapping)

    def set_user_memory_region2(
        self,
        slot: int,
        gpa: int,
        mapping: Mapping | None,
        *,
        offset: int = 0,
        size: int = 0,
        flags: int = 0,
        guest_memfd: int = -1,
        guest_memfd_offset: int = 0,
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION2 (Linux 6.8): as `set_user_memory_region`, with raw `flags` (KVM_MEM_*) and the
        descriptor of a guest_memfd behind private pages, from its byte `guest_memfd_offset`; -1 for none. `offset` and
        `size` in bytes.

        Raises:
            UsageError: the mapping does not have these bytes.
        """
        size = self._span(mapping, offset, size)
        hva = mapping.hva + offset if mapping else 0
        raw = new("struct kvm_userspace_memory_region2 *", [slot, flags, gpa, size, hva])
        if guest_memfd >= 0:
            raw.flags |= lib.KVM_MEM_GUEST_MEMFD
            raw.guest_memfd, raw.guest_memfd_offset = guest_memfd, guest_memfd_offset
        self.call("KVM_SET_USER_MEMORY_REGION2", raw, f"setting memslot {slot} to {size:#x} bytes at GPA {gpa:#x}")
        self._adopt(mapping)

    @staticmethod
    def _span(mapping: Mapping | None, offset: int, size: int) -> int:
        if mapping is None:
            return 0
        size = size or mapping.size - offset
        if offset < 0 or size <= 0 or offset + size > mapping.size:
            raise UsageError(f"a memslot of {size:#x} bytes at offset {offset:#x} of a mapping of {mapping.size:#x}")
        return size

    def _adopt(self, mapping: Mapping | None) -> None:
        if mapping is not None and mapping not in self._mappings:
            self._mappings.append(mapping)
            mapping.users += 1

    def set_tss_addr(self, gpa: int) -> None:
        """KVM_SET_TSS_ADDR: three pages for Intel's real mode, below 4 GiB and outside every memslot."""
        self.value("KVM_SET_TSS_ADDR", gpa, f"placing the real-mode TSS at {gpa:#x}")

    def set_identity_map_addr(self, gpa: int) -> None:
        """KVM_SET_IDENTITY_MAP_ADDR: one page for Intel's real mode; before the first vCPU."""
        self.call("KVM_SET_IDENTITY_MAP_ADDR", new("__u64 *", gpa), f"placing the identity map at {gpa:#x}")

    # -- interrupts

    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP: PIC, IOAPIC and LAPICs in the kernel; before the first vCPU."""
        self.value("KVM_CREATE_IRQCHIP", doing="creating the in-kernel interrupt controllers")
        self.routes = default_routes()

    def create_pit2(self, *, flags: int = 0) -> None:
        """KVM_CREATE_PIT2: the i8254 in the kernel; after `create_irqchip`. `flags` are KVM_PIT_*."""
        raw = new("struct kvm_pit_config *", {"flags": flags})
        self.call("KVM_CREATE_PIT2", raw, "creating the in-kernel PIT")
        self.has_pit = True

    def irq_line(self, gsi: int, level: bool) -> None:
        """KVM_IRQ_LINE: drive a GSI."""
        # A serial port moves its line for each character: what the kernel only reads is made once.
        raw = self._levels.get((gsi, level))
        if raw is None:
            raw = self._levels[gsi, level] = new("struct kvm_irq_level *", [gsi, int(level)])
        result = lib.vmm_ioctl(self.fd, lib.KVM_IRQ_LINE, raw)
        if result < 0:
            raise self.refused("KVM_IRQ_LINE", -result, f"driving GSI {gsi}")
        if self.raised is not None:
            self.raised("line up" if level else "line down", gsi)

    def signal_msi(self, address: int, data: int) -> int:
        """KVM_SIGNAL_MSI with a message `address` of 64 bits and `data` of 32: above 0 delivered, 0 blocked by the
        guest or nobody there (Intel SDM vol. 3A, 11.11).

        Raises:
            UsageError: they are no such numbers.
            KvmCallError: KVM refuses it, as where no LAPIC is in the kernel.
        """
        try:
            result: int = _signal_msi(self._fd, address, data)
        except (OverflowError, TypeError) as error:
            assert self.fd >= 0  # closed: says so
            raise UsageError(f"an MSI to address {address!r} with data {data!r}: {error}") from error
        if result < 0:
            raise KvmCallError("KVM_SIGNAL_MSI", -result, f"sending MSI {address:#x}, data {data:#x}")
        if self.raised is not None:
            self.raised("msi", data & 0xFF)
        return result

    # -- clock

    def get_clock(self) -> Clock:
        """KVM_GET_CLOCK."""
        raw = ffi.new("struct kvm_clock_data *")
        self.call("KVM_GET_CLOCK", raw, "reading kvmclock")
        return Clock(raw.clock, raw.flags, raw.realtime, raw.host_tsc)

    def set_clock(self, clock: int, *, realtime: int | None = None) -> None:
        """KVM_SET_CLOCK to `clock` ns; with `realtime` (ns), moved on by the time since then."""
        raw = new("struct kvm_clock_data *", {"clock": clock})
        if realtime is not None:
            raw.flags, raw.realtime = lib.KVM_CLOCK_REALTIME, realtime
        self.call("KVM_SET_CLOCK", raw, f"setting kvmclock to {clock} ns")

    # -- MSRs, statistics, vCPUs

    def set_msr_filter(self, ranges: list[MsrRange], *, default_deny: bool = False) -> None:
        """KVM_X86_SET_MSR_FILTER: these ranges in place of those that there were, at most 16; x2APIC MSRs are never
        filtered. What `deny_msrs` denies stays denied.

        Raises:
            UsageError: too many ranges.
        """
        with self._changing:
            self._set_filter((tuple(ranges), default_deny), self._denied)

    def deny_msrs(self, reads: Iterable[int] = (), writes: Iterable[int] = ()) -> None:
        """KVM_X86_SET_MSR_FILTER for one of several users: MSRs by number whose `reads` and `writes` are denied for
        good; others are as before.

        Raises:
            UsageError: too many ranges; nothing was changed.
        """
        with self._changing:
            self._set_filter(self._filter, (self._denied[0].union(reads), self._denied[1].union(writes)))

    def _set_filter(
        self, rest: tuple[tuple[MsrRange, ...], bool], denied: tuple[frozenset[int], frozenset[int]]
    ) -> None:
        """One filter of both: what is denied stands first, where it decides."""
        given, default_deny = rest
        ranges = [*given]
        if any(denied):
            from vmm.kvm.msr_filter import denying

            def allowed(index: int, read: bool) -> bool:
                rows = (each for each in given if (each.read if read else each.write))
                held = (each.allowed[index - each.base] for each in rows if 0 <= index - each.base < len(each.allowed))
                return next(held, not default_deny)

            for read in (False, True):
                rows = denying(denied[not read], lambda index, read=read: allowed(index, read))  # type: ignore[misc]
                ranges[:0] = [MsrRange(base, bits, read=read, write=not read) for base, bits in rows]
        self._write_filter(ranges, default_deny)
        self._filter, self._denied = rest, denied

    def _write_filter(self, ranges: list[MsrRange], default_deny: bool) -> None:
        if len(ranges) > lib.KVM_MSR_FILTER_MAX_RANGES:
            raise UsageError(
                f"an MSR filter takes {lib.KVM_MSR_FILTER_MAX_RANGES} ranges, and {len(ranges)} are needed"
            )
        raw = ffi.new("struct kvm_msr_filter *")
        raw.flags = lib.KVM_MSR_FILTER_DEFAULT_DENY if default_deny else lib.KVM_MSR_FILTER_DEFAULT_ALLOW
        alive: list[Any] = []  # the bitmaps, until the kernel has copied them
        for slot, each in zip(raw.ranges[0 : len(ranges)], ranges, strict=True):
            bits = sum(1 << i for i, allowed in enumerate(each.allowed) if allowed)
            bitmap = ffi.new("__u8[]", bits.to_bytes((len(each.allowed) + 7) // 8, "little"))
            alive.append(bitmap)
            slot.flags = each.read * lib.KVM_MSR_FILTER_READ | each.write * lib.KVM_MSR_FILTER_WRITE
            slot.nmsrs, slot.base, slot.bitmap = len(each.allowed), each.base, bitmap
        self.call("KVM_X86_SET_MSR_FILTER", raw, "setting the MSR filter")

    def get_stats(self) -> Stats:
        """KVM_GET_STATS_FD: the VM's binary statistics; the caller closes them."""
        from vmm.kvm.stats import Stats

        return Stats(self.value("KVM_GET_STATS_FD", doing="opening the VM's statistics"))

    def kept_stats(self) -> Stats | None:
        """The statistics, opened by the first who asks, closed with the VM; None: KVM has none (before 5.14)."""
        if self._stats is None and self.check_extension("BINARY_STATS_FD"):
            self._stats = self.get_stats()
        return self._stats

    def set_boot_cpu_id(self, apic_id: int) -> None:
        """KVM_SET_BOOT_CPU_ID: which vCPU starts running, by its `apic_id`; before any vCPU exists."""
        self.value("KVM_SET_BOOT_CPU_ID", apic_id, f"making APIC id {apic_id} the boot CPU")

    def create_vcpu(self, apic_id: int) -> Vcpu:
        """KVM_CREATE_VCPU; the id is the APIC id, `apic_id`, and ids need not be contiguous."""
        fd = self.value("KVM_CREATE_VCPU", apic_id, f"creating the vCPU with APIC id {apic_id}")
        vcpu = Vcpu(fd, apic_id, self._run_size)  # which closes it, if it cannot be had
        self._vcpus.append(vcpu)
        return vcpu
