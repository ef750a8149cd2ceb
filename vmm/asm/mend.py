# SPDX-License-Identifier: GPL-2.0-or-later
"""Forms that keystone 0.9.2 narrows or widens, encoded or mended here so that vmm/asm/verify.py finds what is written.

`push 0xffff` became -1, `push 0xfffffff0` a push of two bytes, `ret`, `retf` and `enter` cut their numbers, 66 stood
before what has one width, and an EVEX displacement of one byte was left unscaled. Source: Intel SDM volume 2, PUSH,
RET, ENTER, LGDT, MOV, and section 2.7.5 (disp8*N).
"""

from __future__ import annotations

from vmm.asm.expression import Lookup, SourceError, evaluate
from vmm.asm.operands import Operand

STACK = frozenset(("push", "ret", "retf", "retfq", "enter"))
# With 66 in 32-bit code the processor drops the top byte of the base.
_TABLES = frozenset(("lgdt", "lidt", "sgdt", "sidt"))
RETURNS = {"ret": b"\xc2", "retf": b"\xca", "retfq": b"\x48\xca"}
_PREFIXES = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x66, 0x67, 0xF0, 0xF2, 0xF3))


def stack(mnemonic: str, operands: list[Operand], mode: int, lookup: Lookup, other_width: bool) -> bytes:
    """PUSH, RET, RETF and ENTER with numbers; `other_width`: a size prefix was written before."""
    wanted = 2 if mnemonic == "enter" else 1
    if len(operands) != wanted:
        raise SourceError(f"{mnemonic} takes {wanted} number{'s' if wanted > 1 else ''}", operands[0].column)
    values = []
    for operand in operands:
        assert operand.node is not None
        values.append(evaluate(operand.node, lookup).number)
    if mnemonic == "push":
        return _push(values[0], operands[0].column, mode, other_width)
    for value, operand, bits in zip(values, operands, (16, 8), strict=False):
        if not 0 <= value < 1 << bits:
            raise SourceError(
                f"{value:#x} does not fit in this operand of {mnemonic}, which has {bits} bits", operand.column
            )
    if mnemonic == "enter":
        return b"\xc8" + values[0].to_bytes(2, "little") + values[1].to_bytes(1, "little")
    if mnemonic == "retfq" and mode != 64:
        raise SourceError("retfq exists in 64-bit code only", operands[0].column)
    return RETURNS[mnemonic] + values[0].to_bytes(2, "little")


def _push(value: int, column: int, mode: int, other_width: bool) -> bytes:
    """PUSH sign-extends to the width of the stack's slot, so that some numbers cannot be pushed in 64-bit code."""
    bits = {16: 32, 32: 16, 64: 16}[mode] if other_width else mode
    number = value - (1 << bits) if 1 << (bits - 1) <= value < 1 << bits else value
    if not -(1 << 31) <= number < 1 << 31 or not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        instead = ": load it (`mov rax, ...`), then push the register" if mode == 64 else ""
        raise SourceError(
            f"{value:#x} does not fit in this operand of push, which has {min(bits, 32)} bits{instead}", column
        )
    if -128 <= number < 128:
        return b"\x6a" + number.to_bytes(1, "little", signed=True)
    return b"\x68" + number.to_bytes(min(bits, 32) // 8, "little", signed=True)


def without_66(code: bytes, mnemonic: str, operands: list[Operand], mode: int) -> bytes:
    """The bytes without a 66 that changes what the processor does though the text asks for nothing."""
    moves = mnemonic == "mov" and len(operands) == 2 and operands[0].kind == "mem"
    moves = moves and operands[1].register is not None and operands[1].register.kind == "segment"
    if not moves and (mnemonic not in _TABLES or mode != 32):
        return code
    for at, byte in enumerate(code):
        if byte == 0x66:
            return code[:at] + code[at + 1 :]
        if byte not in _PREFIXES:
            break
    return code


def displacement(code: bytes, operands: list[Operand], lookup: Lookup) -> bytes:
    """EVEX scales a displacement of one byte by the width of memory, which keystone forgets: wider ones are not scaled.

    keystone's own disp8 is kept where it is right; verify.py would find one that is not.
    """
    memory = next((operand for operand in operands if operand.kind == "mem"), None)
    start = 1 if code[0] in (0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x67) else 0
    if memory is None or not memory.terms or code[start] != 0x62 or len(code) < start + 7:
        return code
    at = start + 5  # of ModRM: 62, three bytes, the opcode
    modrm = code[at]
    if modrm >> 6 != 1 or code[start + 1] & 3 == 0:  # no disp8; BOUND
        return code
    value = evaluate(memory.node, lookup).number if memory.node else 0
    short = memory.terms[0][0].bits == 16  # no SIB, and two bytes of displacement
    after = at + 1 + (modrm & 7 == 4 and not short)
    if (code[after] - value) % 256 or code[after] == 0:  # scaled already, or nothing to scale
        return code
    wide = value.to_bytes(2 if short else 4, "little", signed=True)
    return code[:at] + bytes((modrm & 0x3F | 0x80,)) + code[at + 1 : after] + wide + code[after + 1 :]
