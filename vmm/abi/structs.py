# SPDX-License-Identifier: GPL-2.0-or-later
"""Structures that a guest shares with KVM: fields, offsets, sizes. It reads bytes that it is given, never memory.

Sources: <asm/kvm_para.h>; pvclock: Documentation/virt/kvm/x86/msr.rst. All are little endian. Padding has no field.
"""

from __future__ import annotations

from vmm.base.bits import MASK64
from vmm.base.light import NamedTuple


class Field(NamedTuple):
    """A number inside a structure; `offset` and `size` in bytes."""

    name: str
    offset: int
    size: int
    what: str = ""
    signed: bool = False


class Struct(NamedTuple):
    """A structure; `size` is what a guest must set aside, `asm` the prefix of its constants for the assembler."""

    name: str
    asm: str
    size: int
    align: int
    fields: tuple[Field, ...]

    def unpack(self, data: bytes) -> dict[str, int]:
        """Field values by name. Raises ValueError if `data` is shorter than the structure."""
        if len(data) < self.size:
            raise ValueError(f"{self.name} takes {self.size} bytes, got {len(data)}")
        return {
            field.name: int.from_bytes(data[field.offset : field.offset + field.size], "little", signed=field.signed)
            for field in self.fields
        }

    def pack(self, **values: int) -> bytes:
        """The bytes with these fields set and all else zero. OverflowError for a value that does not fit."""
        data = bytearray(self.size)
        for name, value in values.items():
            field = self.field(name)
            data[field.offset : field.offset + field.size] = value.to_bytes(field.size, "little", signed=field.signed)
        return bytes(data)

    def field(self, name: str) -> Field:
        """The field of that name; KeyError if there is none."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(name)


PVCLOCK_WALL_CLOCK = Struct(
    "pvclock_wall_clock", "WALL_CLOCK", 12, 4, (
        Field("version", 0, 4, "odd while KVM writes"),
        Field("sec", 4, 4, "seconds of the wall time at which the paravirtual clock was 0"),
        Field("nsec", 8, 4, "nanoseconds of it"),
    ),
)  # fmt: skip
PVCLOCK_VCPU_TIME_INFO = Struct(
    "pvclock_vcpu_time_info", "PVCLOCK", 32, 4, (
        Field("version", 0, 4, "odd while KVM writes"),
        Field("tsc_timestamp", 8, 8, "guest TSC at which system_time held"),
        Field("system_time", 16, 8, "nanoseconds"),
        Field("tsc_to_system_mul", 24, 4, "TSC ticks to nanoseconds, as a fraction of 2^32"),
        Field("tsc_shift", 28, 1, "shift the TSC delta left by this first; right if negative", True),
        Field("flags", 29, 1, "bit 0 stable across vCPUs, bit 1 guest was stopped"),
    ),
)  # fmt: skip
KVM_STEAL_TIME = Struct(
    "kvm_steal_time", "STEAL_TIME", 64, 64, (
        Field("steal", 0, 8, "nanoseconds ready but not running"),
        Field("version", 8, 4, "odd while KVM writes"),
        Field("flags", 12, 4, "zero"),
        Field("preempted", 16, 1, "bit 0 preempted, bit 1 flush the TLB at the next entry"),
    ),
)  # fmt: skip
KVM_VCPU_PV_APF_DATA = Struct(
    "kvm_vcpu_pv_apf_data", "APF", 64, 64, (
        Field("flags", 0, 4, "1: this #PF is an asynchronous one; the guest clears it"),
        Field("token", 4, 4, "token of the page that is ready; the guest clears it"),
    ),
)  # fmt: skip
PV_EOI = Struct(
    "pv_eoi", "PV_EOI", 4, 4, (Field("flag", 0, 4, "bit 0: clear it instead of writing the EOI register"),),
)  # fmt: skip
KVM_CLOCK_PAIRING = Struct(
    "kvm_clock_pairing", "CLOCK_PAIRING", 64, 8, (
        Field("sec", 0, 8, "host wall clock, seconds", True),
        Field("nsec", 8, 8, "host wall clock, nanoseconds", True),
        Field("tsc", 16, 8, "guest TSC at that moment"),
        Field("flags", 24, 4, "zero"),
    ),
)  # fmt: skip

STRUCTS = (
    PVCLOCK_WALL_CLOCK,
    PVCLOCK_VCPU_TIME_INFO,
    KVM_STEAL_TIME,
    KVM_VCPU_PV_APF_DATA,
    PV_EOI,
    KVM_CLOCK_PAIRING,
)
BY_NAME = {struct.name: struct for struct in STRUCTS}
# Which structure lies at the address that a guest gives, by MSR (without MSR_KVM_) and by hypercall (without KVM_HC_).
OF_MSR = {
    "WALL_CLOCK": PVCLOCK_WALL_CLOCK,
    "SYSTEM_TIME": PVCLOCK_VCPU_TIME_INFO,
    "WALL_CLOCK_NEW": PVCLOCK_WALL_CLOCK,
    "SYSTEM_TIME_NEW": PVCLOCK_VCPU_TIME_INFO,
    "ASYNC_PF_EN": KVM_VCPU_PV_APF_DATA,
    "STEAL_TIME": KVM_STEAL_TIME,
    "PV_EOI_EN": PV_EOI,
}
OF_HYPERCALL = {"CLOCK_PAIRING": KVM_CLOCK_PAIRING}


def pvclock_nanoseconds(info: dict[str, int], tsc: int) -> int:
    """The paravirtual clock at guest TSC `tsc`, from the fields of a pvclock_vcpu_time_info, in nanoseconds."""
    delta = tsc - info["tsc_timestamp"] & MASK64
    shift = info["tsc_shift"]
    delta = delta << shift & MASK64 if shift >= 0 else delta >> -shift
    return info["system_time"] + (delta * info["tsc_to_system_mul"] >> 32)


def pvclock_khz(mul: int, shift: int) -> int:
    """Guest TSC frequency in kHz that tsc_to_system_mul and tsc_shift stand for; 0 if `mul` is 0 (not written yet)."""
    if mul == 0:
        return 0
    khz = (1_000_000 << 32) // mul
    return khz << -shift if shift < 0 else khz >> shift


def asm_constants() -> dict[str, int]:
    """`STEAL_TIME_preempted = 16`, `STEAL_TIME_SIZE = 64`, ... for every field of every structure."""
    constants: dict[str, int] = {}
    for struct in STRUCTS:
        constants[f"{struct.asm}_SIZE"] = struct.size
        constants |= {f"{struct.asm}_{field.name}": field.offset for field in struct.fields}
    return constants
