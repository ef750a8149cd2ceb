# SPDX-License-Identifier: GPL-2.0-or-later
"""Operands of instructions: parsed from Intel syntax, checked against the mode, rendered so that keystone is right.

Traps of keystone 0.9.2 met here: `[0x1000]` becomes RIP-relative (or wrong, on the first call of a process), so that an
absolute operand is written with the index `riz`; `[rcx + rsp]` loses rsp; a displacement beyond 32 bits is cut
without a word; an absolute address from 0x80000000 on is sign-extended by the processor.
"""

from __future__ import annotations

from collections.abc import Callable

from vmm.asm.expand import split_arguments
from vmm.asm.expression import Lookup, Node, Parser, SourceError, Token, evaluate, tokenize
from vmm.asm.registers import REGISTERS, Register
from vmm.base.bits import signed
from vmm.base.record import Record, replace

SIZES = frozenset(
    ("byte", "word", "dword", "qword", "fword", "tbyte", "xword", "oword", "xmmword", "ymmword", "zmmword", "mmword")
)
DISTANCES = frozenset(("short", "near", "far"))
SEGMENTS = frozenset(("es", "cs", "ss", "ds", "fs", "gs"))
_BASES16 = {("bx", "si"), ("bx", "di"), ("bp", "si"), ("bp", "di"), ("si",), ("di",), ("bp",), ("bx",)}


class Operand(Record):
    """One operand. `kind` is reg, imm, mem or far; `suffix` keeps AVX-512 decorations such as `{k1}{z}` as written."""

    kind: str
    column: int
    size: str = ""
    distance: str = ""
    suffix: str = ""
    register: Register | None = None
    text: str = ""  # of a register, as keystone wants it
    node: Node | None = None  # the immediate, the displacement, or a far pointer's offset
    selector: Node | None = None
    segment: str = ""
    terms: tuple[tuple[Register, int], ...] = ()  # (register, scale); scale 0: written without one


def parse(text: str, column: int, mode: int, local: Callable[[str, str], str | None]) -> list[Operand]:
    """The operands of an instruction. Raises SourceError with a column."""
    if not text.strip():
        return []
    found = []
    for part, at in split_arguments(text):
        tokens = tokenize(part, column + at)
        if not tokens:
            raise SourceError("an operand is missing", column + at)
        found.append(_operand(tokens, column + at + len(part), mode, local))
    return found


def _operand(tokens: list[Token], end: int, mode: int, local: Callable[[str, str], str | None]) -> Operand:
    tokens, suffix = _decorations(tokens)
    if not tokens:  # `{rn-sae}`, an operand of its own
        return Operand("reg", end - len(suffix), suffix=suffix)
    if (
        len(tokens) > 2
        and tokens[0].text == "["
        and tokens[1].text.lower() in SIZES
        and tokens[2].text.lower() == "ptr"
    ):
        tokens, end = tokens[1:-1], tokens[-1].column  # gcc: jmp [QWORD PTR .L4[0+rax*8]]
    parser = Parser(tokens, end, local)
    column = parser.peek().column
    size = distance = segment = ""
    while (word := parser.peek().text.lower()) in SIZES or word in DISTANCES or word in ("ptr", "offset"):
        if parser.peek(1).kind == "end" or (word == "offset" and parser.peek(1).kind == "op"):
            break  # a label may have such a name
        parser.take()
        if word in SIZES:
            size = word
        elif word in DISTANCES:
            distance = word
    token = parser.peek()
    if token.text.lower() == "flat" and parser.peek(1).text == ":":  # gcc: OFFSET FLAT:x
        parser.take()
        parser.take()
    if token.text.lower() in SEGMENTS and parser.peek(1).text == ":":
        segment = parser.take().text.lower()
        parser.take()
        if parser.peek().text != "[" and not size:
            raise SourceError(f"write {segment}:[...] for memory in a segment", token.column)
        token = parser.peek()
    if parser.peek().text == "[" and parser.peek().kind == "op":
        operand = _memory(parser, column, segment, mode)
        parser.finish()
        return replace(operand, size=size, distance=distance, suffix=suffix)
    if token.text.lower() == "st" and parser.peek(1).text == "(":
        return _fpu(parser, suffix)
    register = REGISTERS.get(token.text.lower())
    if register and token.kind == "name" and parser.peek(1).kind == "end":
        _check_mode(register, mode, token.column)
        if register.kind == "ip":
            raise SourceError(f"{register.name} stands only inside brackets", token.column)
        return Operand("reg", token.column, size, distance, suffix, register, register.name)
    node = parser.expression()
    if parser.peek().text == ":":
        parser.take()
        offset = parser.expression()
        parser.finish()
        return Operand("far", column, node=offset, selector=node)
    if parser.peek().text == "[" or (
        size and (segment or _has_name(node))
    ):  # gcc: x[rip], DWORD PTR x, QWORD PTR fs:40
        operand = _memory(parser, column, segment, mode, node)
        parser.finish()
        return replace(operand, size=size, distance=distance, suffix=suffix)
    parser.finish()
    if size:
        raise SourceError(f"{size} ptr wants memory in brackets: a number alone is itself", column)
    return Operand("imm", column, distance=distance, suffix=suffix, node=node)


def _decorations(tokens: list[Token]) -> tuple[list[Token], str]:
    """Cuts `{...}` groups from the end."""
    for at, token in enumerate(tokens):
        if token.text == "{" and token.kind == "op":
            suffix = "".join(token.text for token in tokens[at:]).lower()
            if not _balanced(tokens[at:]):
                raise SourceError("misplaced { }", token.column)
            return tokens[:at], suffix
    return tokens, ""


def _balanced(tokens: list[Token]) -> bool:
    shape = "".join("w" if token.kind in ("name", "number") else token.text for token in tokens)
    return all(part in ("{w", "{w-w") for part in shape.split("}")[:-1]) and shape.endswith("}")


def _fpu(parser: Parser, suffix: str) -> Operand:
    first = parser.take()
    parser.expect("(")
    index = parser.take()
    parser.expect(")")
    parser.finish()
    if index.text not in tuple("01234567"):
        raise SourceError("st(0) to st(7) exist", index.column)
    return Operand("reg", first.column, "", "", suffix, REGISTERS["st"], f"st({index.text})")


def _check_mode(register: Register, mode: int, column: int) -> None:
    if mode != 64 and (register.only64 or (register.kind == "gpr" and register.bits == 64)):
        raise SourceError(f"{register.name} exists in 64-bit code only; this is .code{mode}", column)


def _has_name(node: Node) -> bool:
    return node.op == "name" or any(_has_name(arg) for arg in node.args)


def _memory(parser: Parser, column: int, segment: str, mode: int, before: Node | None = None) -> Operand:
    """One or more sums in brackets; `before` is what stands in front of them: `x[rip]` is `[rip + x]`."""
    node = before
    while node is None or parser.peek().text == "[":
        parser.expect("[")
        if parser.peek().text.lower() in SEGMENTS and parser.peek(1).text == ":":
            segment = parser.take().text.lower()
            parser.take()
        inner = parser.expression()
        parser.expect("]")
        node = inner if node is None else Node("+", inner.column, (inner, node))
    terms: list[tuple[Register, int, int]] = []
    displacement = _split(node, 1, terms)
    for register, _, at in terms:
        _check_mode(register, mode, at)
        if register.kind not in ("gpr", "ip", "vector") or register.bits < 16:
            raise SourceError(f"{register.name} cannot address memory", at)
    chosen = _arrange(terms, mode, column)
    return Operand("mem", column, segment=segment, node=displacement, terms=chosen)


def _split(node: Node, sign: int, terms: list[tuple[Register, int, int]]) -> Node | None:
    """Moves the registers of a sum into `terms`; what remains is the displacement."""
    if node.op == "reg":
        if sign < 0:
            raise SourceError(f"register {node.text} cannot be subtracted", node.column)
        terms.append((REGISTERS[node.text], 0, node.column))
        return None
    if node.op in ("+", "-"):
        left = _split(node.args[0], sign, terms)
        right = _split(node.args[1], sign if node.op == "+" else -sign, terms)
        if right is None:
            return left
        return Node(node.op, node.column, (left or Node("num", node.column), right))
    if node.op in ("u-", "u+"):
        inner = _split(node.args[0], sign if node.op == "u+" else -sign, terms)
        return None if inner is None else Node(node.op, node.column, (inner,))
    if node.op == "*" and any(arg.op == "reg" for arg in node.args):
        register, scale = node.args if node.args[0].op == "reg" else reversed(node.args)
        if register.op != "reg" or scale.op != "num" or scale.number not in (1, 2, 4, 8) or sign < 0:
            raise SourceError("a register is scaled by 1, 2, 4 or 8", node.column)
        terms.append((REGISTERS[register.text], scale.number, register.column))
        return None
    return node


def _arrange(terms: list[tuple[Register, int, int]], mode: int, column: int) -> tuple[tuple[Register, int], ...]:
    """Base first, then index: the order keystone encodes rightly. Raises SourceError for what no x86 can address."""
    if not terms:
        return ()
    last = terms[-1][2]
    if any(register.kind == "ip" for register, _, _ in terms):
        if len(terms) > 1 or terms[0][1]:
            raise SourceError("rip takes no other register: load the address with lea first", last)
        return ((terms[0][0], 0),)
    general = {register.bits for register, _, _ in terms if register.kind == "gpr"}
    if len(general) > 1:
        raise SourceError("registers of different widths in one address", last)
    if len(terms) > 2:
        raise SourceError("at most two registers in one address", last)
    if general == {16}:
        if mode == 64:
            raise SourceError("16-bit addresses do not exist in 64-bit code", last)
        names = tuple(sorted(register.name for register, _, _ in terms))
        if names not in _BASES16 or any(scale > 1 for _, scale, _ in terms):
            raise SourceError("16-bit addresses are [bx|bp] + [si|di]", last)
        return tuple((register, 0) for register, _, _ in sorted(terms, key=lambda term: term[0].name))
    if len(terms) == 1:
        register, scale, at = terms[0]
        if scale > 1 and register.number == 4 and register.kind == "gpr":
            raise SourceError(f"{register.name} cannot be an index", at)
        return ((register, 0 if scale == 1 and register.kind == "gpr" else scale),)
    base, index = terms
    if (
        base[1] > 1
        or base[0].kind == "vector"
        or (not base[1] and index[0].number == 4 and index[1] <= 1)
        or (base[1] == 1 and not index[1])
    ):
        base, index = index, base
    if index[0].number == 4 and index[0].kind == "gpr":
        base, index = (index, base) if index[1] <= 1 and base[0].number != 4 else (base, index)
    if base[1] > 1:
        raise SourceError("only one register of an address can be scaled", last)
    if (index[0].number == 4 and index[0].kind == "gpr") or base[0].kind == "vector":
        raise SourceError(f"{index[0].name} cannot be an index", index[2])
    return ((base[0], 0), (index[0], index[1] or 1))


def render(operand: Operand, mode: int, lookup: Lookup, end: int | None, moffs: str) -> str:
    """Keystone's text of the operand with every number resolved.

    `end` is the address after the instruction, for RIP-relative operands (None: not known yet, any distance will do).
    `moffs` is the mnemonic, mov or movabs, where this is its memory operand with the accumulator, which may hold a
    64-bit address; else "".
    """
    if operand.kind == "reg":
        return operand.text + operand.suffix
    if operand.kind == "imm":
        assert operand.node is not None
        return literal(evaluate(operand.node, lookup).number, operand.column) + operand.suffix
    if operand.kind == "far":
        raise SourceError("a far pointer is the operand of ljmp or lcall only", operand.column)
    size = f"{operand.size} ptr " if operand.size else ""
    segment = f"{operand.segment}:" if operand.segment else ""
    return f"{size}{segment}[{_address(operand, mode, lookup, end, moffs)}]{operand.suffix}"


def literal(value: int, column: int) -> str:
    """A hexadecimal literal of at most 64 bits."""
    if not -(1 << 63) <= value < 1 << 64:
        raise SourceError(f"{value:#x} does not fit in 64 bits", column)
    return f"{value:#x}"


def _address(operand: Operand, mode: int, lookup: Lookup, end: int | None, moffs: str) -> str:
    value = evaluate(operand.node, lookup) if operand.node else None
    number = value.number if value else 0
    if number >= (1 << 64) - (1 << 31) and operand.terms:
        number -= 1 << 64
    terms = operand.terms
    if terms and terms[0][0].kind == "ip":
        if value and value.relative:
            number -= end if end is not None else number
        _check_displacement(number, 64, operand.column)
        return f"{terms[0][0].name} + {number:#x}" if number >= 0 else f"{terms[0][0].name} - {-number:#x}"
    if not terms:
        return _absolute(number, mode, moffs, operand.column)
    bits = next((register.bits for register, _ in terms if register.kind == "gpr"), mode)
    _check_displacement(number, bits, operand.column)
    if bits == 32 and number >= 1 << 31:
        number -= 1 << 32
    parts = [register.name + (f"*{scale}" if scale else "") for register, scale in terms]
    text = " + ".join(parts)
    if number:
        text += f" + {number:#x}" if number > 0 else f" - {-number:#x}"
    return text


def _check_displacement(number: int, bits: int, column: int) -> None:
    low, high = {64: (-(1 << 31), 1 << 31), 32: (-(1 << 31), 1 << 32), 16: (-(1 << 15), 1 << 16)}[bits]
    if not low <= number < high:
        hint = "; load it into a register first" if bits == 64 else ""
        raise SourceError(f"displacement {number:#x} does not fit in a {bits}-bit address{hint}", column)


def _absolute(number: int, mode: int, moffs: str, column: int) -> str:
    if mode != 64:
        if not -(1 << 31) <= number < 1 << 32:
            raise SourceError(f"address {number:#x} does not fit in 32 bits", column)
        if mode == 16 and moffs and not -(1 << 15) <= number < 1 << 16:
            raise SourceError(f"address {number:#x} does not fit in 16 bits: load it, then use [edi]", column)
        return f"{number & 0xFFFFFFFF:#x}"
    if moffs == "movabs" and 0 <= number < 1 << 64:
        return f"{number:#x}"
    if -(1 << 31) <= number < 1 << 31 or (1 << 64) - (1 << 31) <= number < 1 << 64:
        number = signed(number)
        return f"riz*1 + {number:#x}" if number >= 0 else f"riz*1 - {-number:#x}"
    if moffs and 0 <= number < 1 << 64:
        return f"{number:#x}"
    raise SourceError(
        f"the address {number:#x} is above 0x7fffffff: the processor would sign-extend it; "
        f"load it first (`mov rdi, {number:#x}`), then use [rdi]",
        column,
    )
