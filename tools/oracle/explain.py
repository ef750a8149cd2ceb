# SPDX-License-Identifier: GPL-2.0-or-later
"""Every difference between the two sides that is known, once, by name: which instruction, what differs, who says so.

A difference is looked at where it begins: at the first instruction after which the two states are not the same. What
matches no row is a finding. Undefined flags are those of this instruction with this count, and no others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tools.oracle.programs import AF, CF, NAMES, OF, STATUS, UNDEFINED, ZF, Insn, Program
from tools.oracle.sides import State

SHIFTS, ROTATES, DOUBLE = ("shl", "shr", "sar"), ("rol", "ror", "rcl", "rcr"), ("shld", "shrd")


class Difference(NamedTuple):
    """After `insn` of `program`, in `ring`: `before` is KVM's state before it, `flags` the bits that differ."""

    ring: int
    insn: Insn
    before: State | None
    program: Program
    kvm: State
    unicorn: State

    @property
    def flags(self) -> int:
        return 0 if self.kvm.ended or self.unicorn.ended else self.kvm.flags ^ self.unicorn.flags

    @property
    def registers(self) -> tuple[str, ...]:
        """Those that differ. Behind a fault RSP is that of its handler."""
        rows = zip(NAMES, self.kvm.regs, self.unicorn.regs, strict=True)
        return tuple(name for name, one, other in rows if one != other and not (self.kvm.ended and name == "rsp"))

    @property
    def data(self) -> bool:
        return not self.kvm.ended and self.kvm.data != self.unicorn.data

    @property
    def ends(self) -> bool:
        return self.kvm.ended != self.unicorn.ended

    @property
    def any(self) -> bool:
        return bool(self.ends or self.flags or self.registers or self.data)

    @property
    def shown(self) -> str:
        """In one line."""
        said = [f"ended {self.kvm.ended or 'well'!r} and {self.unicorn.ended or 'well'!r}"] if self.ends else []
        said += [f"flags {self.flags:#x}"] if self.flags else []
        for name in self.registers:
            at = NAMES.index(name)
            said.append(f"{name} {self.kvm.regs[at]:#x} and {self.unicorn.regs[at]:#x}")
        said += ["memory"] if self.data else []
        return f"ring {self.ring}: {self.insn.kind} {self.insn.code.hex()}: KVM and Unicorn: {', '.join(said)}"


class Form(NamedTuple):
    """What shifts depend on: bits of the operand, and the count as the CPU takes it; None where there is none."""

    bits: int
    count: int | None


def form(found: Difference) -> Form:
    """Of the instruction, by its bytes: 66, REX, an opcode of which bit 0 says whether it is wider than a byte."""
    code = found.insn.code
    narrow, code = code.startswith(b"\x66"), code.removeprefix(b"\x66").removeprefix(b"\xf3")
    rex, code = code[0], code[1:]
    long = code[0] == 0x0F
    opcode = code[1] if long else code[0]
    bits = 64 if rex & 8 else 16 if narrow else 32
    if not long and not opcode & 1:
        bits = 8
    by_cl = opcode in ((0xA5, 0xAD) if long else (0xD2, 0xD3))
    count = None
    if found.insn.kind in (*SHIFTS, *ROTATES, *DOUBLE):
        cl = found.before.regs[NAMES.index("rcx")] if found.before else found.program.regs["rcx"]
        count = cl if by_cl else 1 if not long and opcode in (0xD0, 0xD1) else code[-1]
        count &= 63 if bits == 64 else 31
    return Form(bits, count)


def undefined(found: Difference) -> int:
    """The flags that this instruction leaves undefined."""
    kind = found.insn.kind
    flags = UNDEFINED.get(kind, 0)
    bits, count = form(found) if kind in (*SHIFTS, *ROTATES, *DOUBLE) else (0, None)
    if count is None:
        return flags
    if not count:
        return 0
    if kind in ROTATES:
        return 0 if count == 1 else OF
    if kind in DOUBLE:
        return STATUS if count > bits else AF | (OF if count > 1 else 0)
    beyond = count >= bits and kind != "sar"
    return AF | (OF if count > 1 else 0) | (CF if beyond else 0)


def _flags_alone(found: Difference) -> bool:
    return bool(found.flags) and not (found.ends or found.registers or found.data)


def _undefined(found: Difference) -> bool:
    return _flags_alone(found) and not found.flags & ~undefined(found)


def _too_far(found: Difference) -> bool:
    if found.insn.kind not in DOUBLE or found.ends:
        return False
    bits, count = form(found)
    return count is not None and count > bits


def _zero_source(found: Difference) -> bool:
    return found.insn.kind in ("bsf", "bsr") and not found.ends and not found.data and bool(found.unicorn.flags & ZF)


def _scan(found: Difference) -> bool:
    """In ring 0 alone, and only where KVM has exactly what BSR and BSF give."""
    kind = found.insn.kind
    if found.ring or kind not in ("lzcnt", "tzcnt") or found.ends or found.data or len(found.registers) > 1:
        return False
    if found.unicorn.flags & CF:  # the source is 0, of which BSR and BSF say ZF
        return bool(found.kvm.flags & ZF)
    if not found.registers:
        return bool(found.flags)
    bits, _ = form(found)
    at = NAMES.index(found.registers[0])
    low = (1 << bits) - 1
    return kind == "lzcnt" and (found.kvm.regs[at] & low) == bits - 1 - (found.unicorn.regs[at] & low)


def _not_emulated(found: Difference) -> bool:
    return found.ring == 0 and found.insn.kind == "popcnt" and found.kvm.ended == "internal error of KVM"


def _cmpxchg32(found: Difference) -> bool:
    """One register, whose lower half is the same and whose upper half one side has made zero."""
    if found.insn.kind != "cmpxchg" or found.ends or found.flags or found.data or len(found.registers) != 1:
        return False
    at = NAMES.index(found.registers[0])
    one, other = found.kvm.regs[at], found.unicorn.regs[at]
    return form(found).bits == 32 and one & 0xFFFFFFFF == other & 0xFFFFFFFF and not min(one, other) >> 32


class Row(NamedTuple):
    """`whose`: undefined (by the manuals), host, or Unicorn."""

    name: str
    whose: str
    holds: Callable[[Difference], bool]
    why: str


TABLE = (
    Row("undefined flags", "undefined", _undefined,
        "Intel SDM volume 2 leaves these flags open for this instruction with this count"),
    Row("double shift by more than its width", "undefined", _too_far,
        "SHLD and SHRD of 16 bits by more than 16: result and flags are undefined (SDM volume 2)"),
    Row("bit scan of zero", "undefined", _zero_source,
        "BSF and BSR of 0: the destination is undefined on Intel, and unchanged on AMD (APM volume 3)"),
    Row("LZCNT is BSR in KVM's emulator", "host", _scan,
        "where ring 0 is emulated: arch/x86/kvm/emulate.c decodes 0F BC and 0F BD without a look at the prefix F3"),
    Row("POPCNT is not emulated", "host", _not_emulated,
        "where ring 0 is emulated: arch/x86/kvm/emulate.c has no 0F B8, and KVM_RUN ends with an internal error"),
    Row("upper half after CMPXCHG of 32 bits", "Unicorn", _cmpxchg32,
        "the register that is not written keeps its upper half on hardware; Unicorn makes it zero, and so does KVM's "
        "emulator with a destination that is not changed"),
)  # fmt: skip


def explained(found: Difference) -> str:
    """The row's name; empty for a finding."""
    return next((row.name for row in TABLE if row.holds(found)), "")
