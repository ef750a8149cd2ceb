# SPDX-License-Identifier: GPL-2.0-or-later
"""Agent expressions: the condition of a breakpoint as gdb compiles it, looked at here, so that one which is wrong costs
no packet. Pure: registers and memory are asked for by callables.

Source: the gdb manual, appendix F (the agent expression mechanism): a stack of 64-bit numbers, operands big-endian.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from vmm.base.bits import MASK64
from vmm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 4096  # bytes of one expression
MOST_STEPS = 10_000  # it may jump backwards
DEEPEST = 256
END, IF_GOTO, GOTO, REG = 0x27, 0x20, 0x21, 0x26
LOG_NOT, BIT_NOT, EXT, ZERO_EXT, DUP, POP, SWAP, PICK, ROT = 0x0E, 0x12, 0x16, 0x2A, 0x28, 0x29, 0x2B, 0x32, 0x33
CONSTANTS = {0x22: 1, 0x23: 2, 0x24: 4, 0x25: 8}
REFERENCES = {0x17: 1, 0x18: 2, 0x19: 4, 0x1A: 8}
OPERANDS = {EXT: 1, IF_GOTO: 2, GOTO: 2, REG: 2, ZERO_EXT: 1, PICK: 1, **CONSTANTS}


def signed(value: int, bits: int = 64) -> int:
    """The lower bits as a two's complement number."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if bits and value >> bits - 1 else value


def _divided(a: int, b: int) -> int:
    """As C divides: towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


BINARY: dict[int, Callable[[int, int], int]] = {
    0x02: operator.add, 0x03: operator.sub, 0x04: operator.mul,
    0x05: lambda a, b: _divided(signed(a), signed(b)), 0x06: operator.floordiv,
    0x07: lambda a, b: signed(a) - signed(b) * _divided(signed(a), signed(b)), 0x08: operator.mod,
    0x09: lambda a, b: a << b if b < 64 else 0, 0x0A: lambda a, b: signed(a) >> min(b, 63),
    0x0B: lambda a, b: a >> min(b, 64),
    0x0F: operator.and_, 0x10: operator.or_, 0x11: operator.xor, 0x13: operator.eq,
    0x14: lambda a, b: signed(a) < signed(b), 0x15: operator.lt,
}  # fmt: skip

UNARY: dict[int, Callable[[int, int], int]] = {
    LOG_NOT: lambda a, _bits: int(not a), BIT_NOT: lambda a, _bits: ~a, EXT: signed,
    ZERO_EXT: lambda a, bits: a & (1 << bits) - 1,
}  # fmt: skip


def evaluate(code: bytes, register: Callable[[int], int], memory: Callable[[int, int], bytes]) -> int:
    """Its value: what is on top of the stack at the end.

    Raises:
        UsageError: it is none, or does not come to its end.
        whatever `register(number)` and `memory(address, size)` raise.
    """
    stack: list[int] = []
    at = 0
    try:
        for _ in range(MOST_STEPS):
            what, at = code[at], at + 1
            size = OPERANDS.get(what, 0)
            if at + size > len(code):
                raise IndexError
            operand, at = int.from_bytes(code[at : at + size], "big"), at + size
            if what == END:
                return stack[-1]
            if what == GOTO or (what == IF_GOTO and stack.pop()):
                at = operand
            elif what in BINARY:
                second, first = stack.pop(), stack.pop()
                stack.append(int(BINARY[what](first, second)) & MASK64)
            elif what in REFERENCES:
                stack.append(int.from_bytes(memory(stack.pop(), REFERENCES[what]), "little"))
            elif what == REG:
                stack.append(register(operand) & MASK64)
            elif what != IF_GOTO:
                _one(what, operand, stack)
            if len(stack) > DEEPEST:
                break
    except (IndexError, ZeroDivisionError) as error:
        raise UsageError(f"a condition that gdb has compiled cannot be read: {type(error).__name__}") from None
    raise UsageError("a condition that gdb has compiled does not come to its end")


def _one(what: int, operand: int, stack: list[int]) -> None:
    """What changes the stack alone. IndexError: no such bytecode."""
    if what in CONSTANTS:
        stack.append(operand)
    elif what == PICK:
        stack.append(stack[-1 - operand])
    elif what == DUP:
        stack.append(stack[-1])
    elif what == SWAP:
        stack[-1], stack[-2] = stack[-2], stack[-1]
    elif what == ROT:
        stack[-3], stack[-2], stack[-1] = stack[-1], stack[-3], stack[-2]
    elif what == POP:
        stack.pop()
    elif what in UNARY:
        stack.append(UNARY[what](stack.pop(), min(operand, 64)) & MASK64)
    else:
        raise IndexError(what)


def conditions(text: str) -> list[bytes]:
    """Of `X5,2600102713;X...`, which follow a breakpoint's place in its packet. ValueError: that is none of them."""
    found = []
    while text:
        head, comma, rest = text.partition(",")
        if head[:1] != "X" or not comma:
            raise ValueError(text)
        size = int(head[1:], 16)
        if not 0 < size <= MOST or len(rest) < 2 * size:
            raise ValueError(text)
        found.append(bytes.fromhex(rest[: 2 * size]))
        text = rest[2 * size :].removeprefix(";")
    return found
