# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a vCPU as Python values: registers, segments, events. It knows layouts; it calls no ioctl.

Field names are those of <asm/kvm.h>; numbers are plain unsigned integers of the field's width. `from_c` and `to_c`
copy from and to the C structure of that header.
"""

from __future__ import annotations

from vmm.base.record import Record, field
from vmm.kvm._kvm import ffi
from vmm.kvm.buffers import put, to_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Self


class Regs(Record, frozen=False):
    """KVM_GET_REGS: the general registers, 64 bits each."""

    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rsp: int = 0
    rbp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0
    rflags: int = 2

    @classmethod
    def from_c(cls, raw: Any) -> Self:
        """Of a struct kvm_regs."""
        return cls(*(getattr(raw, name) for name in cls.__match_args__))

    def to_c(self) -> Any:
        """As a new struct kvm_regs. UsageError: a value does not fit in 64 bits."""
        return whole("struct kvm_regs *", self._fields(), lambda raw: fill(raw, self, "regs"))

    def _fields(self) -> list[Any]:
        return [getattr(self, name) for name in self.__match_args__]


class Segment(Record, frozen=False):
    """One segment register with its hidden part: `base` a linear address, `limit` in bytes, as the CPU holds it after
    scaling. The others are bits and fields of its descriptor (Intel SDM vol. 3A, 3.4.5); `unusable` is VMX's.
    """

    base: int = 0
    limit: int = 0
    selector: int = 0
    type: int = 0
    present: int = 0
    dpl: int = 0
    db: int = 0
    s: int = 0
    l: int = 0
    g: int = 0
    avl: int = 0
    unusable: int = 0

    @classmethod
    def from_c(cls, raw: Any) -> Self:
        """Of a struct kvm_segment."""
        # Spelled out: eight of them are read whenever a vCPU is set up, and a loop over names takes four times as long.
        return cls(
            raw.base, raw.limit, raw.selector, raw.type, raw.present, raw.dpl, raw.db, raw.s, raw.l, raw.g, raw.avl,
            raw.unusable,
        )  # fmt: skip

    def _fields(self) -> list[Any]:
        return [
            self.base, self.limit, self.selector, self.type, self.present, self.dpl, self.db, self.s, self.l, self.g,
            self.avl, self.unusable,
        ]  # fmt: skip


class Table(Record, frozen=False):
    """GDTR or IDTR: `base` a linear address, `limit` the table's size in bytes less one."""

    base: int = 0
    limit: int = 0


SEGMENTS = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
CONTROLS = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")


class Sregs(Record, frozen=False):
    """KVM_GET_SREGS: segments, descriptor tables, control registers, and the one interrupt injected but not taken: the
    bit of its vector in `interrupt_bitmap`, four words of 64 bits.
    """

    cs: Segment = field(default_factory=Segment)
    ds: Segment = field(default_factory=Segment)
    es: Segment = field(default_factory=Segment)
    fs: Segment = field(default_factory=Segment)
    gs: Segment = field(default_factory=Segment)
    ss: Segment = field(default_factory=Segment)
    tr: Segment = field(default_factory=Segment)
    ldt: Segment = field(default_factory=Segment)
    gdt: Table = field(default_factory=Table)
    idt: Table = field(default_factory=Table)
    cr0: int = 0
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    cr8: int = 0
    efer: int = 0
    apic_base: int = 0
    interrupt_bitmap: tuple[int, ...] = (0, 0, 0, 0)

    @classmethod
    def from_c(cls, raw: Any) -> Self:
        """Of a struct kvm_sregs."""
        segment, gdt, idt = Segment.from_c, raw.gdt, raw.idt
        return cls(
            segment(raw.cs), segment(raw.ds), segment(raw.es), segment(raw.fs), segment(raw.gs), segment(raw.ss),
            segment(raw.tr), segment(raw.ldt), Table(gdt.base, gdt.limit), Table(idt.base, idt.limit),
            raw.cr0, raw.cr2, raw.cr3, raw.cr4, raw.cr8, raw.efer, raw.apic_base, tuple(raw.interrupt_bitmap),
        )  # fmt: skip

    def to_c(self) -> Any:
        """As a new struct kvm_sregs. UsageError: a value does not fit in its field."""
        return whole("struct kvm_sregs *", self._fields(), self._fill)

    def _fields(self) -> list[Any]:
        parts: list[Any] = [getattr(self, name)._fields() for name in SEGMENTS]
        parts += [[table.base, table.limit] for table in (self.gdt, self.idt)]
        return [*parts, *(getattr(self, name) for name in CONTROLS), list(self.interrupt_bitmap)]

    def to_bytes(self) -> bytes:
        """The bytes of a struct kvm_sregs, for `Vcpu.start_sregs`. UsageError: a value does not fit in its field."""
        return to_bytes(self.to_c())

    def _fill(self, raw: Any) -> None:
        for name in (*SEGMENTS, "gdt", "idt"):
            fill(getattr(raw, name), getattr(self, name), f"sregs.{name}")
        for name in CONTROLS:
            put(raw, name, getattr(self, name), f"sregs.{name}")
        put(raw, "interrupt_bitmap", list(self.interrupt_bitmap), "sregs.interrupt_bitmap")


class DebugRegs(Record, frozen=False):
    """KVM_GET_DEBUGREGS: the linear addresses DR0 to DR3 in `db`, the bits of `dr6` and `dr7` (Intel SDM vol. 3B,
    17.2).
    """

    db: tuple[int, int, int, int] = (0, 0, 0, 0)
    dr6: int = 0
    dr7: int = 0


class VcpuEvents(Record, frozen=False):
    """KVM_GET_VCPU_EVENTS, flattened: `exception_nr` is `exception.nr`, and so on. `flags` says which parts count.
    Vectors are `exception_nr`, `interrupt_nr` and `sipi_vector`; the rest are bits, error codes and payloads as in
    api.rst.
    """

    exception_injected: int = 0
    exception_nr: int = 0
    exception_has_error_code: int = 0
    exception_pending: int = 0
    exception_error_code: int = 0
    interrupt_injected: int = 0
    interrupt_nr: int = 0
    interrupt_soft: int = 0
    interrupt_shadow: int = 0
    nmi_injected: int = 0
    nmi_pending: int = 0
    nmi_masked: int = 0
    sipi_vector: int = 0
    flags: int = 0
    smi_smm: int = 0
    smi_pending: int = 0
    smi_smm_inside_nmi: int = 0
    smi_latched_init: int = 0
    triple_fault_pending: int = 0
    exception_has_payload: int = 0
    exception_payload: int = 0

    @staticmethod
    def _place(raw: Any, name: str) -> tuple[Any, str]:
        """The C struct and member behind a flattened name."""
        for part in ("exception", "interrupt", "nmi", "smi", "triple_fault"):
            member = name.removeprefix(part + "_")
            if member != name and member not in ("has_payload", "payload"):
                return getattr(raw, part), member
        return raw, name

    @classmethod
    def from_c(cls, raw: Any) -> Self:
        """Of a struct kvm_vcpu_events."""
        values = {}
        for name in cls.__match_args__:
            owner, member = cls._place(raw, name)
            values[name] = getattr(owner, member)
        return cls(**values)

    def to_c(self) -> Any:
        """As a new struct kvm_vcpu_events. UsageError: a value does not fit in its field."""
        raw = ffi.new("struct kvm_vcpu_events *")
        for name in self.__match_args__:
            owner, member = self._place(raw, name)
            put(owner, member, getattr(self, name), f"vcpuevents.{name}")
        return raw


def whole(kind: str, values: list[Any], fill: Callable[[Any], object]) -> Any:
    """A C struct from all of its members in order, in one step. A value that does not fit is left to `fill`, which sets
    them one by one and names it.
    """
    try:
        return ffi.new(kind, values)
    except (OverflowError, TypeError, IndexError):
        raw = ffi.new(kind)
        fill(raw)
        return raw


def fill(raw: Any, value: Any, what: str) -> None:
    """Copy every field of a dataclass into the C struct of the same names; errors as `put`."""
    for name in value.__match_args__:
        put(raw, name, getattr(value, name), f"{what}.{name}")
