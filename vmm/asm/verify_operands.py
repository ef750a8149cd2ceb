# SPDX-License-Identifier: GPL-2.0-or-later
"""Operands as written beside operands as decoded: registers, numbers, memory and its width. Of opcodes it knows x87's.

vmm/asm/verify.py asks for what differs; the tables are those of vmm/asm/synonyms.py.
"""

from __future__ import annotations

from vmm.asm import mend, synonyms
from vmm.asm.disassembler import Decoded, Part
from vmm.asm.expression import Lookup, evaluate
from vmm.asm.operands import Operand
from vmm.asm.registers import REGISTERS, Register, words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmm.asm.instruction import Instruction

_BYTES = {"byte": 1, "word": 2, "dword": 4, "qword": 8, "mmword": 8, "fword": 6, "tbyte": 10, "xword": 10,
          "oword": 16, "xmmword": 16, "ymmword": 32, "zmmword": 64}  # fmt: skip
_STACK = frozenset(("sp", "esp", "rsp", "bp", "ebp", "rbp"))  # as a base they mean SS
_OTHER = {16: 32, 32: 16, 64: 32}  # what 67 makes of an address width
_SHIFTS = frozenset(("shl", "shr", "sar", "rol", "ror", "rcl", "rcr"))
_XMM0 = frozenset(("blendvps", "blendvpd", "pblendvb", "sha256rnds2"))
_ACCUMULATOR = {1: "al", 2: "ax", 4: "eax", 8: "rax"}
STRINGS = frozenset(
    f"{stem}{letter}" for stem in words("movs cmps stos lods scas ins outs") for letter in ("", *"bwdq")
)


class Differs(Exception):
    """What is not as written, in words; `column` where it is one operand."""

    def __init__(self, what: str, column: int = 0) -> None:
        super().__init__(what)
        self.column = column


def said(name: str, want: list[Operand], have: list[Part], found: Decoded) -> list[Part]:
    """The decoded operands, as many as were written where some may be left unsaid."""
    if len(found.opcode) and 0xD8 <= found.opcode[0] <= 0xDF and found.modrm >= 0xC0:
        return _stack(name, want, have, found)
    if not want and (name in STRINGS or name in ("xlatb", "aam", "aad") or name in synonyms.IMPLIED):
        return [] if name[:2] != "aa" or have[0].number == 10 else have
    if len(want) == 1 and want[0].kind == "far" and len(have) == 2:
        return have[1:]
    if name == "imul" and len(want) == 2 and len(have) == 3 and have[0] == have[1]:
        return [have[0], have[2]]
    if name in ("div", "idiv") and len(want) == 2 and want[0].text == _ACCUMULATOR.get(have[0].size):
        return [Part("reg", have[0].size, want[0].text), *have]
    last = have[-1] if have else None
    if last and len(want) == len(have) - 1:
        if name in _SHIFTS and last.kind == "imm" and last.number == 1:
            return have[:-1]
        if name in ("shld", "shrd") and last.register == "cl":
            return have[:-1]
    if name in _XMM0 and len(want) == len(have) + 1 and want[-1].text == "xmm0":
        return [*have, Part("reg", 16, "xmm0")]
    if name in STRINGS and len(want) == 1:  # `stos byte ptr [rdi]`
        return [part for part in have if part.kind == "mem"][:1]
    return have


def _stack(name: str, want: list[Operand], have: list[Part], found: Decoded) -> list[Part]:
    """x87: capstone leaves out st(0) or not, as do people; what counts is the register and which one is written."""
    if found.opcode[0] == 0xDF and name == "fnstsw":
        return have if want else []
    top, other = Part("reg", 10, "st(0)"), Part("reg", 10, f"st({found.modrm & 7})")
    if not want:
        return [] if other.register == "st(1)" or not have else have
    if len(want) == 1:
        return [other] if have else have
    return [other, top] if found.opcode[0] in (0xDC, 0xDE) else [top, other]


def first(
    written: Instruction, found: Decoded, pairs: list[tuple[Operand, Part]], lookup: Lookup, end: int
) -> Differs | None:
    """What is wrong first, or None."""
    for operand, part in pairs:
        if operand.kind == "far":
            assert operand.selector is not None
            selector = Operand("imm", operand.column, node=operand.selector)
            problem = _number(written, selector, found.parts[0], lookup) or _number(written, operand, part, lookup)
        elif operand.kind == "reg":
            problem = _register(written, operand, part)
        elif operand.kind == "mem":
            problem = _memory(written, found, operand, part, lookup, end) or _width(written, operand, part, pairs)
        else:
            problem = _number(written, operand, part, lookup)
        if problem:
            return Differs(problem, operand.column)
    return None


def _register(written: Instruction, operand: Operand, part: Part) -> str | None:
    name = "st(0)" if operand.text == "st" else operand.text
    if part.kind == "reg" and part.register == name:
        return None
    row, ours = REGISTERS.get(part.register), operand.register
    assert ours is not None
    any_width = written.mnemonic in synonyms.ANY_WIDTH or any(
        each.register and each.register.kind == "segment" for each in written.operands
    )
    if any_width and part.kind == "reg" and row and (row.kind, row.number) == (ours.kind, ours.number):
        return None
    return f"{name} was written"


def _number(written: Instruction, operand: Operand, part: Part, lookup: Lookup) -> str | None:
    assert operand.node is not None
    value = evaluate(operand.node, lookup).number
    if part.kind != "imm":
        return f"{value:#x} was written"
    bits = 8 * (part.size or 8)
    if written.mnemonic in mend.RETURNS:  # capstone gives them the width of the stack
        bits = 16
    elif written.mnemonic == "enter":
        bits = 16 if operand is written.operands[0] else 8
    if written.relative and operand.kind != "far":  # a distance, which wraps
        return None if (value - part.number) % (1 << written.mode) == 0 else f"the target is not {value:#x}"
    if -(1 << (bits - 1)) <= value < 1 << bits and (value - part.number) % (1 << bits) == 0:
        return None
    return f"{value:#x} does not fit in this operand of {written.mnemonic}"


def _memory(written: Instruction, found: Decoded, operand: Operand, part: Part, lookup: Lookup, end: int) -> str | None:
    if part.kind != "mem":
        return "memory was written"
    value = evaluate(operand.node, lookup) if operand.node else None
    number = value.number if value else 0
    terms = list(operand.terms)
    if terms and terms[0][0].kind == "ip" and value and value.relative:
        number -= end
    bits = next((row.bits for row, _ in terms if row.kind in ("gpr", "ip")), 0)
    if not bits:
        bits = written.mode
        if bits == 16 and not 0 <= number % (1 << 32) < 1 << 16:
            bits = 32
        if 0x67 in written.prefixes:
            bits = _OTHER[bits]
    if found.address_bits != bits:
        return f"the address has {found.address_bits} bits, not {bits}"
    if (part.number - number) % (1 << bits):
        return f"the displacement is not {number:#x}"
    if not _same_sum(terms, part):
        return "the address is another"
    ours = _segment(operand.segment, terms[0][0].name if terms else "", written.mode)
    if part.segment == "es" and part.base[-2:] == "di" and found.mnemonic[:-1] in STRINGS:
        return None  # the destination of a string instruction is always there
    if ours != _segment(part.segment, part.base, written.mode):
        return "the segment is another"
    return None


def _same_sum(terms: list[tuple[Register, int]], part: Part) -> bool:
    want: dict[str, int] = {}
    for row, scale in terms:
        want[row.name] = want.get(row.name, 0) + (scale or 1)
    have: dict[str, int] = {}
    for name, scale in ((part.base, 1), (part.second, part.scale)):
        if name and name not in ("riz", "eiz"):
            have[name] = have.get(name, 0) + scale
    return want == have


def _segment(override: str, base: str, mode: int) -> str:
    """The segment an address means; in 64-bit code all but FS and GS are one."""
    if mode == 64:
        return override if override in ("fs", "gs") else ""
    return override or ("ss" if base in _STACK else "ds")


def _width(written: Instruction, operand: Operand, part: Part, pairs: list[tuple[Operand, Part]]) -> str | None:
    name, want = written.mnemonic, _BYTES.get(operand.size)
    if name in synonyms.AMBIGUOUS and not want and (name[0] != "v" or pairs[0][0].text[0] == "x"):
        return "the size of this memory is unknown; write byte ptr, word ptr, ..."
    if name in synonyms.NO_WIDTH or not want or _is_far(written):
        return None
    size = part.size
    if name in synonyms.FAR_POINTERS:
        size = pairs[0][1].size + 2
    elif name in synonyms.TABLES:
        size = want if want in (6, 10 if written.mode == 64 else 6) else 6
    elif name in ("lar", "lsl") and want == 2:
        return None
    return f"{operand.size} ptr was written" if size and want != size else None


def _is_far(written: Instruction) -> bool:
    return written.mnemonic in ("jmp", "call", "ljmp", "lcall")
