# SPDX-License-Identifier: GPL-2.0-or-later
"""Which bytes of memory an instruction touches, from its operands: what a watchpoint for reads is made of where no
debug register strikes. It knows operands, stacks and string instructions; it runs nothing.

Not seen, as by no debug register: fetches, page walks. Not seen either: gathers, the area of XSAVE beyond its first 576
bytes, and what an exception pushes (a change there is).

Source: Intel SDM vol. 1, 3.7.5 (effective addresses), 7.3.9.1 (string operations); vol. 2 of each instruction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vmm.abi.x86 import RFLAGS
from vmm.asm.disassembler import MAX_LENGTH, Decoded, Part, decode
from vmm.base.bits import MASK64
from vmm.observe.postmortem import code_bits, readable

if TYPE_CHECKING:
    from vmm.kvm.state import Regs
    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu

NO_ACCESS = ("lea", "nop", "prefetch", "clflush", "clwb", "cldemote", "invlpg", "endbr")
"""Beginnings of names whose memory operand is an address alone."""
STRINGS = frozenset((*range(0x6C, 0x70), *range(0xA4, 0xA8), *range(0xAA, 0xB0)))
"""Opcodes of INS, OUTS, MOVS, CMPS, STOS, LODS, SCAS."""
PUSHES = {"push": 1, "pushf": 1, "call": 1, "enter": 1, "lcall": 2, "pusha": 8, "pushal": 8}
POPS = {"pop": 1, "popf": 1, "ret": 1, "retf": 2, "iret": 5, "popa": 8, "popal": 8}
SIZES = {"fxsave": 512, "fxrstor": 512, "xsave": 576, "xrstor": 576, "sgdt": 10, "sidt": 10, "lgdt": 10, "lidt": 10,
         "fnsave": 108, "frstor": 108, "fnstenv": 28, "fldenv": 28}  # fmt: skip
BIT_OFFSETS = ("bt", "bts", "btr", "btc")


class Span(NamedTuple):
    """`size` bytes from a linear address on."""

    address: int
    size: int

    def meets(self, address: int, size: int) -> bool:
        """Is there a byte in both?"""
        return self.address < address + size and address < self.address + self.size


class Touching:
    """Of the instruction that a vCPU is about to run; `spans` is asked after it has run."""

    def __init__(self, machine: Machine, cpu: Cpu) -> None:
        self._vcpu = cpu.vcpu
        self._vcpu.complete()
        self._regs, self._sregs = self._vcpu.get_regs(), self._vcpu.get_sregs()
        self._bits = code_bits(self._sregs)
        at = cpu.at
        code = readable(machine, self._sregs, at, MAX_LENGTH)
        self._does = decode(code, at, self._bits) if code else None

    def spans(self) -> list[Span]:
        """What it has touched; string instructions as far as they have come."""
        does = self._does
        if does is None:
            return []
        if does.opcode[0] in STRINGS:
            return self._strings(does, self._vcpu.get_regs())
        parts = () if does.mnemonic.startswith(NO_ACCESS) else does.parts
        return [*(self._operand(does, part) for part in parts if part.kind == "mem"), *self._implied(does)]

    def _operand(self, does: Decoded, part: Part) -> Span:
        size = next((size for start, size in SIZES.items() if does.mnemonic.startswith(start)), part.size)
        offset = part.number + self._value(part.second) * part.scale
        offset += self._regs.rip + does.size if part.base in ("rip", "eip") else self._value(part.base)
        if does.mnemonic in BIT_OFFSETS and does.parts[-1].kind == "reg":  # counted from there, and signed
            bits = 8 * part.size
            number = self._value(does.parts[-1].register)
            number -= (number >> bits - 1 & 1) << bits
            offset += number // bits * part.size
        return Span(self._linear(does, part, offset), size)

    def _linear(self, does: Decoded, part: Part, offset: int) -> int:
        """With the segment's base, as wide as this code has addresses."""
        name = part.segment or ("ss" if part.base[-2:] in ("bp", "sp") else "ds")
        base = 0 if self._bits == 64 and name not in ("fs", "gs") else getattr(self._sregs, name).base
        return int(base + (offset & (1 << does.address_bits) - 1)) & (MASK64 if self._bits == 64 else MASK64 >> 32)

    def _value(self, register: str) -> int:
        return _register(self._regs, register)

    def _strings(self, does: Decoded, after: Regs) -> list[Span]:
        """From where RSI and RDI were to where they are."""
        found = []
        down = bool(self._regs.rflags & RFLAGS.DF)
        for part in (part for part in does.parts if part.kind == "mem"):
            whole, mask = part.base[-2:], (1 << does.address_bits) - 1
            first, last = (_register(regs, f"r{whole}") & mask for regs in (self._regs, after))
            count = (first - last if down else last - first) & mask
            low = last + part.size if down else first
            segment = part if whole == "si" else part._replace(segment="es")
            if count:
                found.append(Span(self._linear(does, segment, low), count))
        return found

    def _implied(self, does: Decoded) -> list[Span]:
        """The stack, and what XLAT looks up."""
        word, rsp = self._bits // 8, self._regs.rsp
        base = 0 if self._bits == 64 else self._sregs.ss.base
        name = does.mnemonic.rstrip("qdw")
        if name in PUSHES:
            size = PUSHES[name] * word
            return [Span(base + rsp - size, size)]
        if name == "leave":
            return [Span(base + self._regs.rbp, word)]
        if name.startswith("xlat"):
            return [Span(self._linear(does, Part("mem", 1), self._regs.rbx + (self._regs.rax & 0xFF)), 1)]
        pops = 3 if name == "iret" and self._bits != 64 else POPS.get(name, 0)
        return [Span(base + rsp, pops * word)] if pops else []


def _register(regs: Regs, name: str) -> int:
    """Of a general register by any of its names that an address has; 0 for none, and for a vector."""
    if not name or name[0] in "xyz":
        return 0
    wide, bits = name, 64
    if name[0] == "r" and name[-1] in "dw" and name[1].isdigit():
        wide, bits = name[:-1], 32 if name[-1] == "d" else 16
    elif name[0] == "e":
        wide, bits = f"r{name[1:]}", 32
    elif name[0] != "r":
        wide, bits = f"r{name}", 16
    return int(getattr(regs, wide, 0)) & (1 << bits) - 1
