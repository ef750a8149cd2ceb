# SPDX-License-Identifier: GPL-2.0-or-later
"""Jumps, calls and loops to an address, and far pointers: encoded here, because the distance is ours to know.

keystone 0.9.2 refuses `jmp label + 2`, cuts a LOOP that is out of reach, gives `call` in .code16 a 32-bit return
address, and knows far pointers to numbers only, in .code32 with the wrong width. Source: Intel SDM volume 2, Jcc, JMP,
CALL, LOOP, XBEGIN.
"""

from __future__ import annotations

from vmm.asm.expression import Lookup, SourceError, evaluate
from vmm.asm.operands import Operand

CONDITIONS = (
    ("o",), ("no",), ("b", "c", "nae"), ("ae", "nb", "nc"), ("e", "z"), ("ne", "nz"), ("be", "na"), ("a", "nbe"),
    ("s",), ("ns",), ("p", "pe"), ("np", "po"), ("l", "nge"), ("ge", "nl"), ("le", "ng"), ("g", "nle"),
)  # fmt: skip
_SHORT = {f"j{name}": 0x70 + code for code, names in enumerate(CONDITIONS) for name in names} | {"jmp": 0xEB}
_NEAR = {f"j{name}": bytes((0x0F, 0x80 + code)) for code, names in enumerate(CONDITIONS) for name in names}
_NEAR |= {"jmp": b"\xe9", "call": b"\xe8", "xbegin": b"\xc7\xf8"}
_LOOPS = {"loopne": 0xE0, "loopnz": 0xE0, "loope": 0xE1, "loopz": 0xE1, "loop": 0xE2}
_COUNTED = {"jcxz": 16, "jecxz": 32, "jrcxz": 64}  # the width of the counter, which the address size chooses
_FAR = {"ljmp": 0xEA, "jmp": 0xEA, "lcall": 0x9A, "call": 0x9A}

MNEMONICS = frozenset(_SHORT) | frozenset(_NEAR) | frozenset(_LOOPS) | frozenset(_COUNTED)


def is_branch(mnemonic: str, operands: list[Operand]) -> bool:
    """Whether this is a transfer to an address, which this module encodes; jumps through registers are not."""
    if len(operands) != 1:
        return False
    kind = operands[0].kind
    return (kind == "imm" and mnemonic in MNEMONICS) or (kind == "far" and mnemonic in _FAR)


def encode(
    mnemonic: str, operand: Operand, mode: int, lookup: Lookup, address: int, old_size: int, other_width: bool = False
) -> bytes:
    """The bytes at `address`; `old_size` is the size of the last pass, below which the instruction never shrinks.

    `other_width`: a size prefix before it swaps a distance of 16 and one of 32 bits.
    """
    assert operand.node is not None
    target = evaluate(operand.node, lookup).number
    only_short = operand.distance == "short" or mnemonic in _LOOPS or mnemonic in _COUNTED
    if only_short or (mnemonic in _SHORT and operand.distance != "near" and old_size <= 2):
        opcode = _short_opcode(mnemonic, mode, operand.column)
        distance = target - (address + len(opcode) + 1)
        if -128 <= distance < 128:
            return opcode + distance.to_bytes(1, "little", signed=True)
        if only_short:
            raise SourceError(f"{mnemonic}: the target is {distance:#x} bytes away; 127 is the most", operand.column)
    opcode = _NEAR[mnemonic]
    width = 2 if (mode == 16) != other_width else 4
    distance = target - (address + len(opcode) + width)
    if not -(1 << (8 * width - 1)) <= distance < 1 << (8 * width - 1):
        raise SourceError(f"{mnemonic}: the target is {distance:#x} bytes away, out of reach", operand.column)
    return opcode + distance.to_bytes(width, "little", signed=True)


def _short_opcode(mnemonic: str, mode: int, column: int) -> bytes:
    if mnemonic in _LOOPS:
        return bytes((_LOOPS[mnemonic],))
    if mnemonic not in _COUNTED:
        if mnemonic not in _SHORT:
            raise SourceError(f"{mnemonic} has no short form", column)
        return bytes((_SHORT[mnemonic],))
    bits = _COUNTED[mnemonic]
    if bits == mode:
        return b"\xe3"
    if bits == 32 or (bits == 16 and mode == 32):
        return b"\x67\xe3"
    raise SourceError(f"{mnemonic} does not exist in {mode}-bit code", column)


def far(mnemonic: str, operand: Operand, mode: int, lookup: Lookup, other_width: bool) -> bytes:
    """A far jump or call to `selector:offset`; `other_width`: a size prefix before it swaps 16 and 32 bits."""
    if mode == 64:
        raise SourceError(
            f"{mnemonic} to a far pointer does not exist in 64-bit code: push selector and address, then retfq",
            operand.column,
        )
    assert operand.node is not None
    assert operand.selector is not None
    bits = 48 - mode if other_width else mode
    width = bits // 8
    offset = evaluate(operand.node, lookup).number
    selector = evaluate(operand.selector, lookup).number
    if not 0 <= selector < 1 << 16:
        raise SourceError(f"selector {selector:#x} does not fit in 16 bits", operand.column)
    if not 0 <= offset < 1 << (8 * width):
        hint = f"; write `data32 {mnemonic}`" if bits == 16 and mode == 16 else ""
        raise SourceError(f"offset {offset:#x} does not fit in {bits} bits{hint}", operand.column)
    return bytes((_FAR[mnemonic],)) + offset.to_bytes(width, "little") + selector.to_bytes(2, "little")
