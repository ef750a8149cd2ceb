# SPDX-License-Identifier: GPL-2.0-or-later
"""A vCPU: KVM_RUN and its state, one method per vCPU ioctl.

Every ioctl takes the vCPU's mutex in the kernel: called from another thread, it waits until KVM_RUN returns. Run one
vCPU always on the same host thread: KVM accounts stolen time by thread.
"""

from __future__ import annotations

import mmap

from vmm.abi.cpuid_entry import CpuidEntry
from vmm.base.light import cache
from vmm.base.record import Record
from vmm.errors import HostError, KvmCallError, UsageError, exhausted
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.buffers import cpuid_buffer, cpuid_list, from_bytes, msr_buffer, to_bytes, uncleared
from vmm.kvm.capabilities import enable_cap
from vmm.kvm.exits import Debug, Exit, Interrupted, MmioRead
from vmm.kvm.handle import Handle, new

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType
    from typing import Any

    from vmm.kvm.nested_state import NestedState
    from vmm.kvm.state import DebugRegs, Regs, Sregs, VcpuEvents
    from vmm.kvm.stats import Stats

HW_BREAKPOINTS = 4  # DR0 to DR3
_LENGTHS = {1: 0, 2: 1, 4: 3, 8: 2}  # of DR7
DR7_GLOBAL = 1 << 1  # enables DR0; two bits further each for the next (Intel SDM vol. 3B, 17.2.4)


class Watchpoint(Record):
    """`size` bytes (1, 2, 4 or 8, aligned) at a linear address; `reads` too, or writes only."""

    address: int
    size: int = 8
    reads: bool = False

    @property
    def control(self) -> int:
        """R/W and LEN, the four bits of DR7 for it (Intel SDM vol. 3B, 17.2.4). UsageError for a bad size."""
        if self.size not in _LENGTHS or self.address % self.size:
            raise UsageError(f"a watchpoint of {self.size} bytes at {self.address:#x}: 1, 2, 4 or 8 bytes, aligned")
        return (3 if self.reads else 1) | _LENGTHS[self.size] << 2


class GuestDebug(Record):
    """What KVM_SET_GUEST_DEBUG was told last: the arguments of `Vcpu.set_guest_debug`."""

    singlestep: bool = False
    breakpoints: tuple[int, ...] = ()
    watchpoints: tuple[Watchpoint, ...] = ()
    software: bool = False


class Vcpu(Handle):
    """A vCPU descriptor with its kvm_run mapped; made by `Vm.create_vcpu`. `id` is the APIC id."""

    raised: Callable[[str, int], object] | None = None
    """Told of what the host injects: "interrupt", "nmi" or "exception", and the vector."""
    _stats: Stats | None = None

    def __init__(self, fd: int, apic_id: int, run_size: int, run: Any = None) -> None:
        """`run`: where its kvm_run is mapped already, by vmm_map_run, this one's to unmap; NULL of a closed one."""
        super().__init__(fd)
        self.id = apic_id
        self.what = f"vCPU {apic_id}"
        self._run: Any = None
        self._area: Any = None
        # Not by Python's mmap, which takes a second descriptor of each vCPU.
        error = ffi.new("int *")
        mapped = lib.vmm_map_run(fd, run_size, error) if run is None else run
        if mapped:
            self._run = ffi.gc(ffi.cast("struct kvm_run *", mapped), lambda run: lib.vmm_unmap_run(run, run_size))
            self._area = ffi.buffer(self._run, run_size)
        elif run is None:
            self.close()
            raise exhausted(f"mapping kvm_run of {self.what}", "mmap", error[0])
        self.pending = False  # the guest is inside an exit that the next KVM_RUN completes
        self.stored: Exit | None = None  # an exit that nobody has looked at: completing another one brought it to light
        self.stored_is_first = False  # of what its instruction, or one turn of a string instruction, asks for
        self.debug = GuestDebug()
        self.trapped_at: int | None = None  # the address of the last exit, if that was a debug event
        self._core: Any = None

    def close(self) -> None:
        # The mapping first: the vCPU lives as long as that.
        if self._run is not None:
            if lib.vmm_run_bound() == self._run:  # ^C at the wrong moment: a later kick must not write there
                lib.vmm_run_bind(ffi.NULL)
            run, self._run, self._area = self._run, None, None
            ffi.release(run)
        if self._stats is not None:
            self._stats.close()
            self._stats = None
        super().close()

    def _live(self) -> Any:
        """The mapped kvm_run. HostError once it is gone."""
        if self._run is None:
            raise HostError(f"{self.what} has been closed; nothing can be asked of it any more")
        return self._run

    @property
    def kvm_run(self) -> Any:
        """The mapped struct kvm_run, as long as the vCPU is open. HostError once it is gone."""
        return self._live()

    # -- running

    def run(self) -> Exit:
        """KVM_RUN once; the GIL is released inside. EINTR is an exit (`Interrupted`), and clears immediate_exit.

        Raises:
            KvmCallError: the ioctl failed and no exit explains it.
        """
        if self.stored is not None:
            stored, self.stored = self.stored, None
            return stored
        error = -lib.vmm_run(self.fd)
        exit = self.decode_now(error)
        if error:
            self._run.immediate_exit = 0
        return exit

    def decode_now(self, error: int) -> Exit:
        """The exit that the C core left in kvm_run for us; `error` is KVM_RUN's errno, positive, or 0.

        Raises:
            KvmCallError: the ioctl failed and no exit explains it.
        """
        decode = _decode()
        run = self._live()
        exit: Exit | None = decode.decode(run, self._area, error)
        self.pending = not error and run.exit_reason in decode.PENDING
        if not error:
            self.trapped_at = exit.pc if type(exit) is Debug else None
        if exit is None:
            raise self.refused("KVM_RUN", error, f"running {self.what}")
        return exit

    def coalesced_ring(self, page: int) -> Any:
        """The `struct kvm_coalesced_mmio_ring *` of the VM; `page` is what KVM_CAP_COALESCED_MMIO says."""
        return ffi.cast("struct kvm_coalesced_mmio_ring *", ffi.cast("char *", self._live()) + page * mmap.PAGESIZE)

    def run_area(self) -> Any:
        """The mapped `struct kvm_run *`, for the modules of this floor (sync.py). HostError once it is gone."""
        return self._live()

    def new_core(self, finish: Any) -> Any:
        """A `struct vmm_core` for this vCPU and that `struct vmm_finish`, which must outlive it (see lean.py)."""
        core = uncleared("struct vmm_core *")
        lib.vmm_core_init(core, self.fd, self._live(), finish)
        self.adopt_core(core)
        return core

    def adopt_core(self, core: Any) -> None:
        """This is its core from now on."""
        self._core = core

    def want_attention(self) -> None:
        """Who serves accesses without looking up (lean.py) has to look up before the guest runs on."""
        if self._core is not None:
            self._core.attention = 1

    def reply(self, exit: Exit, value: bytes | int | None) -> None:
        """Answer a read, an MSR access or a hypercall; the next run hands `value` to the guest: bytes of the size that
        was asked for, or a number for an MSR or RAX; None refuses an MSR access. Errors as vmm.kvm.decode.answer.
        """
        _decode().answer(self._live(), self._area, exit, value)

    @property
    def awaits_reply(self) -> bool:
        """The guest is inside an exit that an answer belongs to: a read, an MSR access, a hypercall."""
        run = self._live()
        if not self.pending or run.exit_reason == lib.KVM_EXIT_IO:
            return bool(self.pending and run.io.direction == lib.KVM_EXIT_IO_IN)
        return run.exit_reason != lib.KVM_EXIT_MMIO or not run.mmio.is_write

    def complete(self) -> None:
        """Finish the exit that the guest is still inside of, without running on: afterwards the registers are true.

        When finishing leads straight to another exit (string I/O, a split MMIO), that one is kept for the next `run`.
        """
        run = self._live()
        while self.pending and self.stored is None:
            before = self.get_regs() if run.exit_reason == lib.KVM_EXIT_MMIO else None
            run.immediate_exit = 1
            self.want_attention()
            try:
                exit = self.run()
            finally:
                run.immediate_exit = 0
            if not isinstance(exit, Interrupted):
                self.stored = exit
                # A read begins a turn of MOVS, LODS, CMPS or SCAS where the one before has counted its registers on.
                # A write may be the rest of an INS, whose data KVM holds.
                self.stored_is_first = isinstance(exit, MmioRead) and before is not None and before != self.get_regs()

    def abandon(self) -> None:
        """Be done with the exit that the guest is inside of, and with any that follows; before registers are set anew.

        Set inside an exit, they would be overwritten when the next KVM_RUN completes it. Changes registers.
        """
        self.complete()
        while self.stored is not None:
            self.stored = None
            regs = self.get_regs()
            regs.rcx = 0  # a string instruction ends here, however long it was meant to be
            self.set_regs(regs)
            self.complete()

    def interrupt(self) -> None:
        """Make the next KVM_RUN (or, with a signal, the present one) return EINTR at once. Any thread may call it."""
        run = self._run
        if run is not None:
            run.immediate_exit = 1

    def clear_interrupt(self) -> None:
        """Take back an `interrupt` that no KVM_RUN has seen."""
        self._live().immediate_exit = 0

    @staticmethod
    def bound() -> Any:
        """What the calling thread's kick signal marks now, for `unbind`."""
        return lib.vmm_run_bound()

    def bind(self) -> None:
        """Let the kick signal of the calling thread mark this vCPU."""
        lib.vmm_run_bind(self._live())

    @staticmethod
    def unbind(before: Any) -> None:
        """Undo `bind`; `before` is what was `bound`."""
        lib.vmm_run_bind(before)

    # -- registers

    def get_regs(self) -> Regs:
        """KVM_GET_REGS."""
        raw = ffi.new("struct kvm_regs *")
        self.call("KVM_GET_REGS", raw, f"reading the registers of {self.what}")
        from vmm.kvm.state import Regs  # values for who asks: a start has its registers packed

        return Regs.from_c(raw)

    def set_regs(self, regs: Regs) -> None:
        """KVM_SET_REGS."""
        self.call("KVM_SET_REGS", regs.to_c(), f"setting the registers of {self.what}")

    def start_regs(self, regs: dict[str, int]) -> None:
        """KVM_SET_REGS of `regs`, name -> 64-bit value, all others zero: how a vCPU is made to start.

        Raises:
            UsageError: a value does not fit in 64 bits.
        """
        try:
            raw = ffi.new("struct kvm_regs *", regs)
        except OverflowError:
            from vmm.kvm.state import Regs

            raw = Regs(**regs).to_c()  # says which
        self.call("KVM_SET_REGS", raw, f"setting the registers of {self.what}")

    def raw_state(self) -> tuple[bytes, bytes, bytes]:
        """struct kvm_regs, struct kvm_sregs and the entries of KVM_GET_CPUID2, as bytes, for another VMM."""
        cpuid = new("struct kvm_cpuid2 *", {"nent": 256, "entries": 256})
        self.call("KVM_GET_CPUID2", cpuid, f"reading CPUID of {self.what}")
        entries = bytes(ffi.buffer(cpuid.entries, cpuid.nent * ffi.sizeof("struct kvm_cpuid_entry2")))
        return (
            self._get_bytes("struct kvm_regs", "KVM_GET_REGS"),
            self._get_bytes("struct kvm_sregs", "KVM_GET_SREGS"),
            entries,
        )

    def get_sregs(self) -> Sregs:
        """KVM_GET_SREGS."""
        raw = ffi.new("struct kvm_sregs *")
        self.call("KVM_GET_SREGS", raw, f"reading the segments of {self.what}")
        from vmm.kvm.state import Sregs

        return Sregs.from_c(raw)

    def start_sregs(self, sregs: bytes) -> None:
        """KVM_SET_SREGS of `sregs`, the bytes of a struct kvm_sregs, but CR8, the APIC base and an injected interrupt
        stay as they are.

        That is how a vCPU is made to start, and it is done for every VM: nothing is taken apart in Python for it.
        """
        now, then = ffi.new("struct kvm_sregs *"), from_bytes("struct kvm_sregs", sregs)
        self.call("KVM_GET_SREGS", now, f"reading the segments of {self.what}")
        then.cr8, then.apic_base = now.cr8, now.apic_base
        then.interrupt_bitmap = now.interrupt_bitmap
        self.call("KVM_SET_SREGS", then, f"setting the segments of {self.what}")

    def set_sregs(self, sregs: Sregs) -> None:
        """KVM_SET_SREGS; EINVAL for a combination that no CPU allows."""
        self.call("KVM_SET_SREGS", sregs.to_c(), f"setting the segments of {self.what}")
        self._live().cr8 = sregs.cr8  # without a LAPIC of KVM's the next KVM_RUN takes it from there

    def _get_bytes(self, kind: str, call: str) -> bytes:
        raw = ffi.new(f"{kind} *")
        self.call(call, raw, f"reading {kind} of {self.what}")
        return to_bytes(raw)

    def look(self, name: str) -> Any:
        """The C struct of KVM_GET_REGS or KVM_GET_SREGS (`name` regs or sregs): its fields are named as those of the
        values, and are read at a tenth of the cost, where few are needed. Nothing written there goes anywhere.
        """
        raw = ffi.new(f"struct kvm_{name} *")
        self.call(f"KVM_GET_{name.upper()}", raw, f"reading kvm_{name} of {self.what}")
        return raw

    def get_raw(self, name: str) -> bytes:
        """struct kvm_NAME as the kernel gives it, for `name` regs, sregs, debugregs, xcrs or xsave: who reads some
        fields of it at their places (field_places.py) makes no values of the others.
        """
        return self._get_bytes(f"struct kvm_{name}", f"KVM_GET_{name.upper()}")

    def get_fpu(self) -> bytes:
        """KVM_GET_FPU: struct kvm_fpu, 416 bytes."""
        return self._get_bytes("struct kvm_fpu", "KVM_GET_FPU")

    def set_fpu(self, data: bytes) -> None:
        """KVM_SET_FPU of a struct kvm_fpu, 416 bytes."""
        self.call("KVM_SET_FPU", from_bytes("struct kvm_fpu", data), f"setting the FPU of {self.what}")

    def get_xsave(self) -> bytes:
        """KVM_GET_XSAVE: the first 4096 bytes of the XSAVE area, in the standard format."""
        return self._get_bytes("struct kvm_xsave", "KVM_GET_XSAVE")

    def get_xsave2(self, size: int) -> bytes:
        """KVM_GET_XSAVE2: the whole XSAVE area; `size` is what KVM_CAP_XSAVE2 says."""
        raw = ffi.new("char[]", max(size, 4096))
        self.call("KVM_GET_XSAVE2", raw, f"reading the XSAVE area of {self.what}")
        return to_bytes(raw)

    def set_xsave(self, data: bytes) -> None:
        """KVM_SET_XSAVE: an area as `get_xsave` or `get_xsave2` gave it (at least 4096 bytes).

        Raises:
            UsageError: it is shorter; the kernel would read beyond it.
        """
        if len(data) < ffi.sizeof("struct kvm_xsave"):
            raise UsageError(f"an XSAVE area has {ffi.sizeof('struct kvm_xsave')} bytes or more, not {len(data)}")
        self.call("KVM_SET_XSAVE", ffi.new("char[]", data), f"setting the XSAVE area of {self.what}")

    def get_xcrs(self) -> dict[int, int]:
        """KVM_GET_XCRS: number -> 64-bit value."""
        raw = ffi.new("struct kvm_xcrs *")
        self.call("KVM_GET_XCRS", raw, f"reading the XCRs of {self.what}")
        return {raw.xcrs[i].xcr: raw.xcrs[i].value for i in range(raw.nr_xcrs)}

    def set_xcrs(self, xcrs: dict[int, int]) -> None:
        """KVM_SET_XCRS of `xcrs`, number -> 64-bit value.

        Raises:
            UsageError: more than the 16 that the kernel takes.
        """
        raw = ffi.new("struct kvm_xcrs *")
        if len(xcrs) > len(raw.xcrs):
            raise UsageError(f"{len(xcrs)} XCRs, and the kernel takes {len(raw.xcrs)}")
        raw.nr_xcrs = len(xcrs)
        for i, (number, value) in enumerate(xcrs.items()):
            raw.xcrs[i].xcr, raw.xcrs[i].value = number, value
        self.call("KVM_SET_XCRS", raw, f"setting the XCRs of {self.what}")

    def get_nested_state(self, size: int) -> NestedState:
        """KVM_GET_NESTED_STATE; `size` is what KVM_CAP_NESTED_STATE says, the most that it can take."""
        from vmm.kvm.nested_state import NestedState

        raw = ffi.new("char[]", size)
        ffi.cast("__u32 *", raw)[1] = size
        self.call("KVM_GET_NESTED_STATE", raw, f"reading the nested state of {self.what}")
        return NestedState(bytes(ffi.buffer(raw, ffi.cast("__u32 *", raw)[1])))

    def set_nested_state(self, state: NestedState) -> None:
        """KVM_SET_NESTED_STATE. Special registers and MSRs must be those of the same moment, and be set before."""
        self.call("KVM_SET_NESTED_STATE", ffi.new("char[]", state.data), f"setting the nested state of {self.what}")

    def get_debugregs(self) -> DebugRegs:
        """KVM_GET_DEBUGREGS."""
        raw = ffi.new("struct kvm_debugregs *")
        self.call("KVM_GET_DEBUGREGS", raw, f"reading the debug registers of {self.what}")
        from vmm.kvm.state import DebugRegs

        return DebugRegs((raw.db[0], raw.db[1], raw.db[2], raw.db[3]), raw.dr6, raw.dr7)

    def set_debugregs(self, regs: DebugRegs) -> None:
        """KVM_SET_DEBUGREGS."""
        raw = new("struct kvm_debugregs *", {"db": list(regs.db), "dr6": regs.dr6, "dr7": regs.dr7})
        self.call("KVM_SET_DEBUGREGS", raw, f"setting the debug registers of {self.what}")

    def set_guest_debug(
        self,
        *,
        singlestep: bool = False,
        breakpoints: Sequence[int] = (),
        watchpoints: Sequence[Watchpoint] = (),
        software: bool = False,
    ) -> None:
        """KVM_SET_GUEST_DEBUG: exit (`Debug`) after every instruction; before those at `breakpoints` (linear addresses)
        and after accesses of `watchpoints`, up to four in all; at INT3 with `software`.

        Without arguments the debug registers are the guest's again. KVM steps with RFLAGS.TF: an instruction that loads
        RFLAGS (IRET, POPF) may end the stepping.

        Raises:
            UsageError: more than four, or a watchpoint that the CPU cannot have.
        """
        self.put_debug(GuestDebug(singlestep, tuple(breakpoints), tuple(watchpoints), software))

    def put_debug(self, wanted: GuestDebug) -> None:
        """KVM_SET_GUEST_DEBUG as one value: `put_debug(replace(vcpu.debug, ...))` leaves the rest as it was told.

        Raises:
            UsageError: as `set_guest_debug`.
        """
        places = [(address, 0) for address in wanted.breakpoints]
        places += [(each.address, each.control) for each in wanted.watchpoints]
        if len(places) > HW_BREAKPOINTS:
            raise UsageError(f"{len(places)} breakpoints, and the CPU has {HW_BREAKPOINTS}")
        registers = [*(address for address, _ in places), *[0] * (8 - len(places))]
        registers[7] = sum(DR7_GLOBAL << 2 * i | control << 16 + 4 * i for i, (_, control) in enumerate(places))
        control = wanted.singlestep * lib.KVM_GUESTDBG_SINGLESTEP | bool(places) * lib.KVM_GUESTDBG_USE_HW_BP
        control |= wanted.software * lib.KVM_GUESTDBG_USE_SW_BP
        control |= lib.KVM_GUESTDBG_ENABLE if control else 0
        raw = new("struct kvm_guest_debug *", {"control": control, "arch": {"debugreg": registers}})
        self.call("KVM_SET_GUEST_DEBUG", raw, f"setting breakpoints or single-step of {self.what}")
        self.debug = wanted

    # -- CPUID and MSRs

    def get_cpuid2(self) -> list[CpuidEntry]:
        """KVM_GET_CPUID2: what the guest sees, after KVM's own adjustments."""
        raw = new("struct kvm_cpuid2 *", {"nent": 256, "entries": 256})
        self.call("KVM_GET_CPUID2", raw, f"reading CPUID of {self.what}")
        return cpuid_list(raw)

    def set_cpuid2(self, entries: Sequence[CpuidEntry] | Any) -> None:
        """KVM_SET_CPUID2, of a list or a struct kvm_cpuid2; before the first KVM_RUN."""
        raw = entries if isinstance(entries, ffi.CData) else cpuid_buffer(entries)
        self.call("KVM_SET_CPUID2", raw, f"setting CPUID of {self.what}")

    def get_msrs(self, indices: list[int]) -> dict[int, int]:
        """KVM_GET_MSRS of the numbers `indices`: number -> 64-bit value, up to the first MSR that KVM refuses (the
        result is then shorter).
        """
        raw = msr_buffer(dict.fromkeys(indices, 0))
        count = self.call("KVM_GET_MSRS", raw, f"reading MSRs of {self.what}")
        return {raw.entries[i].index: raw.entries[i].data for i in range(count)}

    def set_msrs(self, values: dict[int, int]) -> int:
        """KVM_SET_MSRS of `values`, number -> 64-bit value: how many were set; fewer than given means that KVM refused
        the next one.
        """
        return self.call("KVM_SET_MSRS", msr_buffer(values), f"setting MSRs of {self.what}")

    # -- interrupts and events

    def get_lapic(self) -> bytes:
        """KVM_GET_LAPIC: the 1024 bytes of the local APIC's registers; needs an in-kernel LAPIC."""
        return self._get_bytes("struct kvm_lapic_state", "KVM_GET_LAPIC")

    def set_lapic(self, data: bytes) -> None:
        """KVM_SET_LAPIC of 1024 bytes, as `get_lapic` gives them."""
        self.call("KVM_SET_LAPIC", from_bytes("struct kvm_lapic_state", data), f"setting the LAPIC of {self.what}")

    def get_mp_state(self) -> int:
        """KVM_GET_MP_STATE: a KVM_MP_STATE_* value (vmm.abi.exits.MP_STATES)."""
        raw = ffi.new("struct kvm_mp_state *")
        self.call("KVM_GET_MP_STATE", raw, f"reading the run state of {self.what}")
        return int(raw.mp_state)

    def set_mp_state(self, state: int) -> None:
        """KVM_SET_MP_STATE to `state`, a KVM_MP_STATE_* value (vmm.abi.exits.MP_STATES)."""
        self.call("KVM_SET_MP_STATE", new("struct kvm_mp_state *", [state]), f"setting the run state of {self.what}")

    def get_vcpu_events(self) -> VcpuEvents:
        """KVM_GET_VCPU_EVENTS."""
        raw = ffi.new("struct kvm_vcpu_events *")
        self.call("KVM_GET_VCPU_EVENTS", raw, f"reading the events of {self.what}")
        from vmm.kvm.state import VcpuEvents

        return VcpuEvents.from_c(raw)

    def set_vcpu_events(self, events: VcpuEvents) -> None:
        """KVM_SET_VCPU_EVENTS; `events.flags` says which parts count."""
        self.call("KVM_SET_VCPU_EVENTS", events.to_c(), f"setting the events of {self.what}")

    def interrupt_vector(self, vector: int) -> None:
        """KVM_INTERRUPT: queue an external interrupt; only without an in-kernel LAPIC."""
        raw = new("struct kvm_interrupt *", [vector])
        self.call("KVM_INTERRUPT", raw, f"injecting vector {vector} into {self.what}")
        if self.raised is not None:
            self.raised("interrupt", vector)

    @property
    def interrupts_enabled(self) -> bool:
        """kvm_run.if_flag: RFLAGS.IF at the last exit."""
        return bool(self._live().if_flag)

    @property
    def ready_for_interrupt(self) -> bool:
        """kvm_run.ready_for_interrupt_injection at the last exit: the guest can take an `interrupt_vector` now."""
        return bool(self._live().ready_for_interrupt_injection)

    def request_interrupt_window(self, on: bool) -> None:
        """Exit (`IrqWindowOpen`) as soon as the guest can take an interrupt; without an in-kernel LAPIC."""
        self._live().request_interrupt_window = int(on)

    def nmi(self) -> None:
        """KVM_NMI."""
        self.value("KVM_NMI", doing=f"sending an NMI to {self.what}")
        if self.raised is not None:
            self.raised("nmi", 2)

    # -- capabilities, time, translation, statistics

    def enable_cap(self, capability: str, *args: int) -> None:
        """KVM_ENABLE_CAP on the vCPU, by name, with up to four 64-bit `args`."""
        enable_cap(self, capability, args)

    def get_tsc_khz(self) -> int:
        """KVM_GET_TSC_KHZ: the guest's TSC frequency in kHz."""
        return self.value("KVM_GET_TSC_KHZ", doing=f"reading the TSC frequency of {self.what}")

    def set_tsc_khz(self, khz: int) -> None:
        """KVM_SET_TSC_KHZ: the guest's TSC frequency, `khz` in kHz."""
        self.value("KVM_SET_TSC_KHZ", khz, f"setting the TSC frequency of {self.what}")

    def kvmclock_ctrl(self) -> None:
        """KVM_KVMCLOCK_CTRL: tell the guest's clock that the guest was paused; EINVAL before it has a clock."""
        self.value("KVM_KVMCLOCK_CTRL", doing=f"marking {self.what} as paused")

    def translate(self, gva: int) -> int | None:
        """KVM_TRANSLATE: the guest-physical address behind the guest-virtual one `gva`, or None."""
        raw = new("struct kvm_translation *", {"linear_address": gva})
        self.call("KVM_TRANSLATE", raw, f"translating {gva:#x} on {self.what}")
        return int(raw.physical_address) if raw.valid else None

    def get_device_attr(self, group: int, attr: int) -> int:
        """KVM_GET_DEVICE_ATTR on the vCPU: the 64-bit value of attribute `attr` of `group` (KVM_VCPU_TSC_CTRL,
        KVM_VCPU_TSC_OFFSET: 0, 0).
        """
        value = ffi.new("__u64 *")
        raw = new("struct kvm_device_attr *", [0, group, attr, int(ffi.cast("uintptr_t", value))])
        self.call("KVM_GET_DEVICE_ATTR", raw, f"reading attribute {group}/{attr} of {self.what}")
        return int(value[0])

    def set_device_attr(self, group: int, attr: int, value: int) -> None:
        """KVM_SET_DEVICE_ATTR on the vCPU: a 64-bit `value` for attribute `attr` of `group`."""
        slot = new("__u64 *", value)
        raw = new("struct kvm_device_attr *", [0, group, attr, int(ffi.cast("uintptr_t", slot))])
        self.call("KVM_SET_DEVICE_ATTR", raw, f"setting attribute {group}/{attr} of {self.what}")

    def get_stats(self) -> Stats:
        """KVM_GET_STATS_FD: the vCPU's binary statistics, readable while it runs; the caller closes them."""
        from vmm.kvm.stats import Stats

        return Stats(self.value("KVM_GET_STATS_FD", doing=f"opening the statistics of {self.what}"))

    def kept_stats(self) -> Stats | None:
        """The statistics, opened by the first who asks, closed with the vCPU; None: KVM has none (before 5.14)."""
        if self._stats is None:
            try:
                self._stats = self.get_stats()
            except KvmCallError:
                return None
        return self._stats


@cache
def _decode() -> ModuleType:
    """The module, loaded with the first exit that is decoded: what the C core finishes never is."""
    from vmm.kvm import decode

    return decode
