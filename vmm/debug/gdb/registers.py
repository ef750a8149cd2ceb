# SPDX-License-Identifier: GPL-2.0-or-later
"""The registers of a vCPU as gdb numbers them: names, widths, and where each is in KVM's structures.

The features org.gnu.gdb.i386.core, .sse, .segments and .avx have the names and the order that gdb wants (gdb manual,
G.5.6 "i386 Features"); org.pyvmm.control and org.pyvmm.debug are ours. FPU and vector registers lie in the XSAVE area,
standard format (Intel SDM vol. 1, 13.4): x87 at 32, XMM at 160, the upper halves of YMM at 576, XSTATE_BV at 512.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from vmm.errors import UsageError
from vmm.kvm.field_places import place_of
from vmm.kvm.state import CONTROLS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmm.machine.run.cpu import Cpu

CORE, SSE, SEGMENTS, AVX = (f"org.gnu.gdb.i386.{name}" for name in ("core", "sse", "segments", "avx"))
CONTROL, DEBUG = "org.pyvmm.control", "org.pyvmm.debug"
GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{i}" for i in range(8, 16)), "rip")
SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs")
FPU_CONTROL = ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
BASES = ("cs_base", "ss_base", "ds_base", "es_base", "tr_base", "ldt_base", "gdt_base", "idt_base")
LIMITS = ("gdt_limit", "idt_limit")
DEBUGS = ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")
ST_AT, XMM_AT, MXCSR_AT, XSTATE_BV_AT, YMM_AT = 32, 160, 24, 512, 576
X87, SSE_STATE, AVX_STATE = 1, 2, 4  # of XSTATE_BV
XSAVE_LEAF = 0xD


class Register(NamedTuple):
    """One register; `kind` is gdb's type."""

    name: str
    bits: int
    kind: str
    feature: str
    group: str = ""

    @property
    def size(self) -> int:
        return self.bits // 8


def layout(cpu: Cpu) -> tuple[Register, ...]:
    """Every register that this vCPU has, in gdb's order."""
    kinds = {"rip": "code_ptr", "rsp": "data_ptr", "rbp": "data_ptr"}
    rows = [Register(name, 64, kinds.get(name, "int64"), CORE) for name in GENERAL]
    rows.append(Register("eflags", 32, "i386_eflags", CORE))
    rows += [Register(name, 32, "int32", CORE) for name in SELECTORS]
    rows += [Register(f"st{i}", 80, "i387_ext", CORE) for i in range(8)]
    rows += [Register(name, 32, "int", CORE, "float") for name in FPU_CONTROL]
    rows += [Register(f"xmm{i}", 128, "vec128", SSE) for i in range(16)]
    rows.append(Register("mxcsr", 32, "i386_mxcsr", SSE, "vector"))
    rows += [Register(name, 64, "int64", SEGMENTS) for name in ("fs_base", "gs_base")]
    if _has_avx(cpu):
        rows += [Register(f"ymm{i}h", 128, "uint128", AVX) for i in range(16)]
    rows += [Register(name, 64, "int64", CONTROL, "system") for name in (*CONTROLS, "xcr0")]
    rows += [Register(name, 32, "int32", CONTROL, "system") for name in ("tr", "ldt")]
    rows += [Register(name, 64, "int64", CONTROL, "system") for name in BASES]
    rows += [Register(name, 32, "int32", CONTROL, "system") for name in LIMITS]
    rows += [Register(name, 64, "int64", DEBUG, "system") for name in DEBUGS]
    return tuple(rows)


def _has_avx(cpu: Cpu) -> bool:
    return any(e.function == XSAVE_LEAF and not e.index and e.eax & AVX_STATE for e in cpu.vcpu.get_cpuid2())


def read(cpu: Cpu, rows: Sequence[Register]) -> list[bytes]:
    """The value of each, little-endian."""
    cpu.vcpu.complete()
    raw = {source: cpu.vcpu.get_raw(source) for source in {_source(row.name)[0] for row in rows}}
    return [_value(raw, row) for row in rows]


def _value(raw: dict[str, bytes], row: Register) -> bytes:
    source, at, size = _source(row.name)
    if row.name == "ftag":
        return _full_tags(raw[source]).to_bytes(row.size, "little")
    value = raw[source][at : at + size]
    return value if size == row.size else value.ljust(row.size, b"\0")


@cache
def _source(name: str) -> tuple[str, int, int]:
    """Which of KVM's structures a register is in, at which offset, of how many bytes: no more than gdb has of it."""
    piece = (0, 0) if name == "ftag" else _piece(name)
    if piece is not None:
        return "xsave", *piece
    if name == "eflags":
        return "regs", place_of("struct kvm_regs", "rflags")[0], 4
    if name == "xcr0":  # the only one that there is
        return "xcrs", *place_of("struct kvm_xcrs", "xcrs", 0, "value")
    if name in ("dr6", "dr7"):
        return "debugregs", *place_of("struct kvm_debugregs", name)
    if name in DEBUGS:
        return "debugregs", *place_of("struct kvm_debugregs", "db", int(name[2]))
    owner, field = _place(name)
    if owner == "regs":
        return "regs", *place_of("struct kvm_regs", field)
    return "sregs", *place_of("struct kvm_sregs", *([owner, field] if owner else [field]))


def write(cpu: Cpu, rows: Sequence[Register], values: Sequence[bytes]) -> None:
    """Set registers; those that are what they were are left alone.

    Raises:
        UsageError: one cannot be set.
        KvmCallError: KVM refuses a value.
    """
    state = _State(cpu)
    for row, before, value in zip(rows, read(cpu, rows), values, strict=True):
        if before != value:
            state.write(row, value)
    state.put()


class _State:
    """What KVM says of one vCPU, given back where it was changed."""

    def __init__(self, cpu: Cpu) -> None:
        cpu.vcpu.complete()
        self._vcpu = vcpu = cpu.vcpu
        self._regs, self._sregs = vcpu.get_regs(), vcpu.get_sregs()
        self._area: bytearray | None = None
        self._changed: set[str] = set()

    @property
    def _xsave(self) -> bytearray:
        if self._area is None:
            self._area = bytearray(self._vcpu.get_xsave())
        return self._area

    def put(self) -> None:
        if "sregs" in self._changed:
            self._vcpu.set_sregs(self._sregs)
        if "regs" in self._changed:
            self._vcpu.set_regs(self._regs)
        if "xsave" in self._changed:
            self._vcpu.set_xsave(bytes(self._xsave))

    def write(self, row: Register, value: bytes) -> None:
        name, number = row.name, int.from_bytes(value, "little")
        piece = _piece(name)
        if piece is not None or name == "ftag":
            self._write_area(name, piece, value)
        elif name == "xcr0":
            self._vcpu.set_xcrs({0: number})
        elif name in DEBUGS:
            debug = self._vcpu.get_debugregs()
            if name in ("dr6", "dr7"):
                setattr(debug, name, number)
            else:
                places = list(debug.db)
                places[int(name[2])] = number
                debug.db = (places[0], places[1], places[2], places[3])
            self._vcpu.set_debugregs(debug)
        elif name == "eflags":
            self._regs.rflags = number
            self._changed.add("regs")
        else:
            owner, field = _place(name)
            if owner == "regs":
                setattr(self._regs, field, number)
            else:
                setattr(getattr(self._sregs, owner) if owner else self._sregs, field, number)
            self._changed.add("regs" if owner == "regs" else "sregs")

    def _write_area(self, name: str, piece: tuple[int, int] | None, value: bytes) -> None:
        area = self._xsave
        if piece is None:  # the tags: XSAVE keeps one bit of each
            full = int.from_bytes(value, "little")
            area[4] = sum(1 << i for i in range(8) if full >> 2 * i & 3 != 3)
        else:
            at, size = piece
            area[at : at + size] = value[:size]
        part = AVX_STATE if name.startswith("ymm") else SSE_STATE if name.startswith(("xmm", "mxcsr")) else X87
        area[XSTATE_BV_AT] |= part
        self._changed.add("xsave")


def _piece(name: str) -> tuple[int, int] | None:
    """(offset, bytes) in the XSAVE area."""
    fixed = {"fctrl": (0, 2), "fstat": (2, 2), "fop": (6, 2), "fioff": (8, 4), "fiseg": (12, 2), "fooff": (16, 4),
             "foseg": (20, 2), "mxcsr": (MXCSR_AT, 4)}  # fmt: skip
    if name in fixed:
        return fixed[name]
    if name.startswith("st") and name[2:].isdigit():
        return ST_AT + 16 * int(name[2:]), 10
    if name.startswith("xmm"):
        return XMM_AT + 16 * int(name[3:]), 16
    if name.startswith("ymm"):
        return YMM_AT + 16 * int(name[3:-1]), 16
    return None


def _full_tags(area: bytes) -> int:
    """x87's tag word, of which XSAVE keeps whether a register is empty; valid, zero and special are told apart by what
    is in it (Intel SDM vol. 1, 8.1.7 and 10.5.1.1)."""
    top = area[3] >> 3 & 7
    tags = 0
    for i in range(8):
        tag = 3
        if area[4] >> i & 1:
            at = ST_AT + 16 * ((i - top) % 8)
            mantissa, exponent = (
                int.from_bytes(area[at : at + 8], "little"),
                int.from_bytes(area[at + 8 : at + 10], "little") & 0x7FFF,
            )
            tag = 1 if not mantissa and not exponent else 2 if exponent in (0, 0x7FFF) or not mantissa >> 63 else 0
        tags |= tag << 2 * i
    return tags


def _place(name: str) -> tuple[str, str]:
    """(owner, field) in struct kvm_regs ("regs") or kvm_sregs."""
    if name in GENERAL:
        return "regs", name
    if name in CONTROLS:
        return "", name
    if name in SELECTORS or name in ("tr", "ldt"):
        return name, "selector"
    owner, _, field = name.partition("_")
    if field in ("base", "limit"):
        return owner, field
    raise UsageError(f"no register {name}")
