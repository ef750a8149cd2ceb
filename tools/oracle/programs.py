# SPDX-License-Identifier: GPL-2.0-or-later
"""One random program by its number: instructions as bytes, and what registers, flags and memory hold before. It runs
nothing.

Instructions of user programs that every x86-64 has, in their widths, with registers and with memory: arithmetic,
shifts, bits, multiplication and division, moves, conditions, strings, the stack, short jumps forward. R15 points to
the data and is never written. Behind one that leaves flags undefined there is mostly one that defines them all, so
that what is undefined does not hide what comes later.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import NamedTuple

from vmm.base.bits import MASK64
from vmm.machine.memory.layout import REGIONS

CODE = REGIONS["code"].base
DATA = REGIONS["user"].base
SIZE = 512
"""Bytes of data that are compared. The stack begins in their midst and has room on both sides."""
RSP = DATA + SIZE // 2
NAMES = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
FREE = (0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)
STATUS = 0x8D5  # CF, PF, AF, ZF, SF, OF
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 63, (1 << 63) - 1, MASK64)
LONGEST = 12


class Insn(NamedTuple):
    """`kind` is its name in the table of differences."""

    kind: str
    code: bytes


class Program(NamedTuple):
    """`regs` by name, without RIP; `data` is what lies at DATA."""

    insns: tuple[Insn, ...]
    regs: dict[str, int]
    flags: int
    data: bytes

    @property
    def code(self) -> bytes:
        return b"".join(each.code for each in self.insns)

    def first(self, count: int) -> Program:
        """The same with the first instructions alone; a jump beyond them is a jump to their end."""
        return self._replace(insns=self.insns[:count])


def program(seed: int, number: int) -> Program:
    """The same seed and number give the same program."""
    rng = random.Random(f"{seed}:{number}")
    insns: list[Insn] = []
    for _ in range(rng.randrange(1, LONGEST)):
        made = rng.choice(KINDS)(rng)
        if len(made) == 1 and rng.random() < 0.1:  # over it
            insns.append(Insn("jcc", bytes((0x70 | rng.randrange(16), len(made[0].code)))))
        insns += made
        if made[-1].kind in UNDEFINED and rng.random() < 0.97:
            insns.append(Insn("cmp", b"\x48\x3d" + rng.randbytes(4)))
    regs = {name: number_of(rng) for name in NAMES} | {"rsp": RSP, "r15": DATA}
    return Program(tuple(insns), regs, 2 | rng.getrandbits(12) & STATUS, rng.randbytes(SIZE))


def number_of(rng: random.Random) -> int:
    """Any number, with a preference for those at which something changes."""
    return rng.choice((lambda: rng.getrandbits(64), lambda: rng.choice(EDGES), lambda: rng.getrandbits(8)))()


def _operands(rng: random.Random, opcode: bytes, *, wide: bool, reg: int | None = None, imm: int = -1,
              prefix: bytes = b"", memory: bool = True, register: bool = True) -> bytes:  # fmt: skip
    """Prefixes, REX, opcode, ModRM and an immediate of `imm` bytes (0: as wide as the operand). `wide`: no bytes."""
    size = rng.choice((2, 4, 8)) if wide else 1
    field = rng.choice(FREE) if reg is None else reg
    other = rng.choice(FREE)
    in_memory = memory and (not register or rng.random() < 0.4)
    rex = 0x40 | (size == 8) << 3 | (field >> 3 if reg is None else 0) << 2 | (1 if in_memory else other >> 3)
    modrm = 0x40 | (field & 7) << 3 | 7 if in_memory else 0xC0 | (field & 7) << 3 | other & 7
    disp = bytes((rng.randrange(0x78),)) if in_memory else b""
    number = b"" if imm < 0 else rng.randbytes(imm or min(size, 4))
    return (b"\x66" if size == 2 else b"") + prefix + bytes((rex,)) + opcode + bytes((modrm,)) + disp + number


def _alu(rng: random.Random) -> list[Insn]:
    which, wide = rng.randrange(8), rng.random() < 0.75
    kind = ("add", "or", "adc", "sbb", "and", "sub", "xor", "cmp")[which]
    if rng.random() < 0.5:
        opcode = bytes((which << 3 | wide | rng.randrange(2) << 1,))
        return [Insn(kind, _operands(rng, opcode, wide=wide))]
    if not wide:
        return [Insn(kind, _operands(rng, b"\x80", wide=False, reg=which, imm=1))]
    short = rng.random() < 0.5
    return [Insn(kind, _operands(rng, b"\x83" if short else b"\x81", wide=True, reg=which, imm=1 if short else 0))]


def _group(names: dict[int, str], narrow: bytes, imm: int = -1) -> Callable[[random.Random], list[Insn]]:
    """A group by the field of ModRM; the wide opcode is the next."""

    def make(rng: random.Random) -> list[Insn]:
        field, wide = rng.choice(list(names)), rng.random() < 0.75
        opcode = bytes((*narrow[:-1], narrow[-1] + wide))
        return [Insn(names[field], _operands(rng, opcode, wide=wide, reg=field, imm=imm))]

    return make


def _plain(kind: str, opcode: str, *, wide: bool | None = True, imm: int = -1, prefix: str = "",
           memory: bool = True, register: bool = True) -> Callable[[random.Random], list[Insn]]:  # fmt: skip
    """One opcode; `wide` None: this one for bytes, and the next for what is wider."""

    def make(rng: random.Random) -> list[Insn]:
        code = bytes.fromhex(opcode)
        is_wide = rng.random() < 0.75 if wide is None else wide
        if wide is None:
            code = code[:-1] + bytes((code[-1] + is_wide,))
        return [Insn(kind, _operands(rng, code, wide=is_wide, imm=imm, prefix=bytes.fromhex(prefix), memory=memory,
                                     register=register))]  # fmt: skip

    return make


def _row(kind: str, opcode: str, count: int, wide: bool = True) -> Callable[[random.Random], list[Insn]]:
    """`count` opcodes from this on: conditions."""

    def make(rng: random.Random) -> list[Insn]:
        code = bytes.fromhex(opcode)
        code = code[:-1] + bytes((code[-1] + rng.randrange(count),))
        return [Insn(kind, _operands(rng, code, wide=wide))]

    return make


def _bare(*rows: tuple[str, str]) -> Callable[[random.Random], list[Insn]]:
    def make(rng: random.Random) -> list[Insn]:
        kind, code = rng.choice(rows)
        return [Insn(kind, bytes.fromhex(code))]

    return make


def _bswap(rng: random.Random) -> list[Insn]:
    return [Insn("bswap", bytes((0x48 | rng.randrange(2), 0x0F, 0xC8 | rng.choice((0, 1, 2, 3, 5, 6)))))]


def _immediate(rng: random.Random) -> list[Insn]:
    register = rng.choice(FREE)
    return [Insn("mov", bytes((0x48 | register >> 3, 0xB8 | register & 7)) + struct.pack("<Q", number_of(rng)))]


def _stack(rng: random.Random) -> list[Insn]:
    one, two = rng.choice(FREE), rng.choice(FREE)
    push, pop = (bytes((0x40 | each >> 3, base | each & 7)) for each, base in ((one, 0x50), (two, 0x58)))
    return [Insn("push", push), Insn("pop", pop)]


def _string(rng: random.Random) -> list[Insn]:
    """lea rsi; lea rdi; mov ecx, 0..8; rep or not, forwards."""
    kind, code = rng.choice((("movs", 0xA4), ("cmps", 0xA6), ("stos", 0xAA), ("lods", 0xAC), ("scas", 0xAE)))
    size = rng.choice((b"", b"\x66", b"\x48"))
    repeat = rng.choice((b"", b"\xf3", b"\xf2" if kind in ("cmps", "scas") else b"\xf3"))
    wide = bytes((code | rng.randrange(2),))
    code_of = (size if size == b"\x66" else b"") + repeat + (size if size == b"\x48" else b"") + wide
    return [
        Insn("lea", b"\x49\x8d\x77" + bytes((rng.randrange(0x60),))),
        Insn("lea", b"\x49\x8d\x7f" + bytes((rng.randrange(0x60),))),
        Insn("mov", b"\xb9" + struct.pack("<I", rng.randrange(9))),
        Insn(kind, code_of),
    ]


KINDS = (
    _alu, _alu, _alu, _alu,
    _group({0: "inc", 1: "dec"}, b"\xfe"),
    _group({2: "not", 3: "neg", 4: "mul", 5: "imul1"}, b"\xf6"),
    _group({6: "div", 7: "idiv"}, b"\xf6"),
    _group({0: "rol", 1: "ror", 2: "rcl", 3: "rcr", 4: "shl", 5: "shr", 7: "sar"}, b"\xc0", 1),
    _group({0: "rol", 1: "ror", 2: "rcl", 3: "rcr", 4: "shl", 5: "shr", 7: "sar"}, b"\xd2"),
    _group({0: "rol", 1: "ror", 2: "rcl", 3: "rcr", 4: "shl", 5: "shr", 7: "sar"}, b"\xd0"),
    _plain("test", "84", wide=None), _plain("xchg", "86", wide=None), _plain("mov", "88", wide=None),
    _plain("mov", "8a", wide=None), _plain("lea", "8d", register=False), _plain("imul", "0faf"),
    _plain("imul", "6b", imm=1), _plain("imul", "69", imm=0), _plain("movsxd", "63"),
    _plain("bt", "0fa3", memory=False), _plain("bts", "0fab", memory=False), _plain("btr", "0fb3", memory=False),
    _plain("btc", "0fbb", memory=False),
    lambda rng: [Insn(("bt", "bts", "btr", "btc")[(field := rng.randrange(4))],
                      _operands(rng, b"\x0f\xba", wide=True, reg=4 + field, imm=1))],
    _plain("shld", "0fa4", imm=1), _plain("shrd", "0fac", imm=1), _plain("shld", "0fa5"), _plain("shrd", "0fad"),
    _row("cmov", "0f40", 16), _row("setcc", "0f90", 16, False),
    _plain("movzx", "0fb6"), _plain("movzx", "0fb7"), _plain("movsx", "0fbe"), _plain("movsx", "0fbf"),
    _plain("cmpxchg", "0fb0", wide=None), _plain("xadd", "0fc0", wide=None),
    _plain("bsf", "0fbc"), _plain("bsr", "0fbd"), _plain("popcnt", "0fb8", prefix="f3"),
    _plain("lzcnt", "0fbd", prefix="f3"), _plain("tzcnt", "0fbc", prefix="f3"),
    _bswap, _immediate, _stack, _string,
    _bare(("cbw", "98"), ("cbw", "4898"), ("cbw", "6698"), ("cwd", "99"), ("cwd", "4899"), ("cwd", "6699")),
    _bare(("cmc", "f5"), ("clc", "f8"), ("stc", "f9"), ("sahf", "9e"), ("lahf", "9f")),
)  # fmt: skip
"""Each as likely as any other; arithmetic stands here four times."""

# Flags that an instruction leaves undefined (Intel SDM volume 2; AMD APM volume 3), by its kind. Of shifts and rotates
# OF is defined for a count of one alone, and for shifts of no operand's width CF is not for a count beyond it.
CF, PF, AF, ZF, SF, OF = 1, 4, 0x10, 0x40, 0x80, 0x800
UNDEFINED = {
    **dict.fromkeys(("and", "or", "xor", "test"), AF),
    **dict.fromkeys(("shl", "shr", "sar"), AF | OF | CF),
    **dict.fromkeys(("rol", "ror", "rcl", "rcr"), OF),
    **dict.fromkeys(("shld", "shrd"), AF | OF | CF | SF | ZF | PF),
    **dict.fromkeys(("mul", "imul1", "imul"), SF | ZF | AF | PF),
    **dict.fromkeys(("div", "idiv"), STATUS),
    **dict.fromkeys(("bsf", "bsr"), STATUS & ~ZF),
    **dict.fromkeys(("bt", "bts", "btr", "btc"), OF | SF | AF | PF),
    "lzcnt": OF | SF | AF | PF,
    "tzcnt": OF | SF | AF | PF,
}
