# SPDX-License-Identifier: GPL-2.0-or-later
"""Conditions of breakpoints: `rax == 3 and [counter] > 10`. Python's syntax, of which arithmetic, comparisons and
logic are taken; names are registers and labels, `[place]` are 8 bytes of guest memory there, `u8[place]` to
`u32[place]` fewer. Nothing else is looked up or called.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from vmm.base.bits import MASK64
from vmm.base.names import unknown
from vmm.errors import UsageError

SIZES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8}
MOST = 1000  # characters
_SHIFTS = 64
_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor,
    ast.LShift: lambda a, b: a << b % _SHIFTS, ast.RShift: lambda a, b: a >> b % _SHIFTS,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip
_UNARY: dict[type[ast.unaryop], Callable[[int], int]] = {
    ast.USub: operator.neg, ast.Invert: operator.invert, ast.Not: operator.not_, ast.UAdd: operator.pos,
}  # fmt: skip


class Context(Protocol):
    """What a condition looks at."""

    def register(self, name: str) -> int | None:
        """Its value; None where no register has that name."""

    @property
    def symbols(self) -> Mapping[str, int]: ...

    def read(self, va: int, size: int) -> bytes:
        """Guest memory."""


def parse(text: str) -> ast.expr:
    """The expression, checked.

    Raises:
        UsageError: it is none, or has something that conditions do not have.
    """
    if len(text) > MOST:
        raise UsageError(f"a condition of {len(text)} characters: at most {MOST}")
    source = text.strip()
    try:
        tree = ast.parse(_memory(source), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"the condition {text!r} cannot be read: {getattr(error, 'msg', error)}", hint=HINT) from None
    for node in ast.walk(tree):
        _check(node, text)
    return tree


HINT = "rax == 3 and [counter] > 10; u32[rsp + 8] & 0xff"


def _memory(text: str) -> str:
    """`[x]` as Python has no such thing alone: `u64[x]`. A list is what Python reads, so that is made one of a name."""
    out = []
    before = ""
    for each in text:
        if each == "[" and not (before.isalnum() or before == "_"):
            out.append("u64")
        out.append(each)
        before = each if not each.isspace() else ""
    return "".join(out)


def _check(node: ast.AST, text: str) -> None:
    right = False
    match node:
        case ast.Name() | ast.Load() | ast.BoolOp() | ast.And() | ast.Or() | ast.Subscript():
            right = not isinstance(node, ast.Subscript) or (isinstance(node.value, ast.Name) and node.value.id in SIZES)
        case ast.Constant(value=value):
            right = isinstance(value, int)
        case ast.BinOp(op=op):
            right = type(op) in _BINARY
        case ast.UnaryOp(op=op):
            right = type(op) in _UNARY
        case ast.Compare(ops=ops):
            right = all(type(op) in _COMPARE for op in ops)
        case ast.operator() | ast.unaryop() | ast.cmpop():
            right = True
        case _:
            pass
    if not right:
        raise UsageError(f"the condition {text!r} has {type(node).__name__.lower()}, which conditions do not have",
                         hint=HINT)  # fmt: skip


def evaluate(tree: ast.expr, context: Context) -> int:
    """Its value; wrong or right is 0 or not.

    Raises:
        UsageError: an unknown name, a division by zero.
        GuestMemoryError: nothing is mapped at an address.
    """
    match tree:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return _named(name, context)
        case ast.Subscript(value=ast.Name(id=size), slice=place):
            address = evaluate(place, context) & MASK64
            return int.from_bytes(context.read(address, SIZES[size]), "little")
        case ast.BoolOp(op=op, values=values):
            result = 0
            for each in values:
                result = evaluate(each, context)
                if bool(result) is isinstance(op, ast.Or):
                    break
            return result
        case ast.UnaryOp(op=op, operand=operand):
            return int(_UNARY[type(op)](evaluate(operand, context)))
        case ast.BinOp(left=left, op=op, right=right):
            try:
                value = _BINARY[type(op)](evaluate(left, context), evaluate(right, context))
            except ZeroDivisionError:
                raise UsageError("a condition divides by zero") from None
            return value if abs(value) <= MASK64 else value & MASK64
        case ast.Compare(left=left, ops=ops, comparators=others):
            before = evaluate(left, context)
            for compare, other in zip(ops, others, strict=True):
                after = evaluate(other, context)
                if not _COMPARE[type(compare)](before, after):
                    return 0
                before = after
            return 1
        case _:
            pass
    raise UsageError(f"a condition has {type(tree).__name__}")


def _named(name: str, context: Context) -> int:
    value = context.register(name.lower())
    if value is not None:
        return value
    symbols: Any = context.symbols
    if name in symbols:
        return int(symbols[name])
    raise UsageError(unknown("register or label", name, symbols))
