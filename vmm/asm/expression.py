# SPDX-License-Identifier: GPL-2.0-or-later
"""Tokens, numbers and expressions of the source, with columns. It knows registers by name and no instruction.

Numbers are read here and nowhere else, because keystone 0.9.2 reads `10` as ten or as sixteen depending on the process'
history, and evaluates label differences wrongly inside brackets: what reaches keystone is a hexadecimal literal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from vmm.asm.registers import REGISTERS
from vmm.base.light import NamedTuple

MAX_DEPTH = 50
_LIMIT = 1 << 80  # anything this large is a mistake; it also bounds the work

_TOKEN = re.compile(
    r"""(?P<space>\s+)
      | (?P<number>\d\w*)
      | (?P<name>[A-Za-z_.$?][\w.$?]*(?:@\w+)?)
      | (?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<op><<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!()<>=,:\[\]{}])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)")
_ESCAPES = {"n": 10, "t": 9, "r": 13, "b": 8, "f": 12, "v": 11, "a": 7, "e": 27, "\\": 92, '"': 34, "'": 39}
_LOCAL = re.compile(r"(\d+)([bf])", re.IGNORECASE)
_HEX_SUFFIX = re.compile(r"[0-9][0-9A-Fa-f]*[hH]")


class SourceError(Exception):
    """Something wrong at a column of the row at hand; the caller knows the row and raises PayloadError."""

    def __init__(self, what: str, column: int = 0) -> None:
        super().__init__(what)
        self.what, self.column = what, column


class Token(NamedTuple):
    """`kind` is number, name, string or op; `column` counts from 1."""

    kind: str
    text: str
    column: int


class Value(NamedTuple):
    """A number, and how many label addresses it adds up to: 1 is an address, 0 a plain number or a distance."""

    number: int
    relative: int


class Node(NamedTuple):
    """One node of an expression. `op` is num, name, here, reg, or an operator; `args` depend on it."""

    op: str
    column: int
    args: tuple[Node, ...] = ()
    text: str = ""
    number: int = 0


Lookup = Callable[[str, int], Value]  # (name, column) -> value; raises SourceError for an unknown name


def tokenize(text: str, column: int = 1) -> list[Token]:
    """The tokens of a text whose first character stands at `column`. Raises SourceError for a stray character."""
    tokens = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if not found:
            raise SourceError(_stray(text[at]), column + at)
        if found.lastgroup != "space":
            tokens.append(Token(found.lastgroup or "", found[0], column + at))
        at = found.end()
    return tokens


def _stray(char: str) -> str:
    if char == "#":
        return "unexpected '#': a comment starts with ';'"
    if char in "\"'":
        return "a quoted text that does not end on this line"
    if char == "\\":
        return "unexpected '\\': macro parameters exist only inside .macro"
    return f"unexpected character {char!r}"


def unquote(text: str, column: int) -> bytes:
    r"""The bytes of a quoted text: UTF-8, with \n \t \r \\ \" \' \xHH and octal escapes. Raises SourceError."""
    out = bytearray()
    inner = text[1:-1]
    at = 0
    for found in _ESCAPE.finditer(inner):
        out += inner[at : found.start()].encode("utf-8", "surrogatepass")
        code = found[1]
        if code[0] == "x" and len(code) > 1:
            out.append(int(code[1:], 16))
        elif code[0] in "01234567":
            out.append(int(code, 8) & 0xFF)
        elif code in _ESCAPES:
            out.append(_ESCAPES[code])
        else:
            raise SourceError(
                f"unknown escape \\{code} in a text; write \\\\ for a backslash", column + 1 + found.start()
            )
        at = found.end()
    return bytes(out + inner[at:].encode("utf-8", "surrogatepass"))


def number(token: Token) -> int:
    """The value of a numeric literal: 0x1f, 0b11, 0o17, 31, 1fh. Raises SourceError for anything ambiguous."""
    text = token.text.lower()
    try:
        if text.startswith(("0x", "0b", "0o")) and text != "0b":
            return int(text.replace("_", "") if "__" not in text else "x", 0)
        if _HEX_SUFFIX.fullmatch(text):
            return int(text[:-1], 16)
        if text.isdigit() and (text == "0" or text[0] != "0"):
            return int(text)
    except ValueError:
        pass
    if text.isdigit():
        hint = (
            f"{text!r} could be octal or decimal: write {int(text)} or 0o{text.lstrip('0')}" if text.isascii() else ""
        )
        raise SourceError(hint or f"bad number {text!r}", token.column)
    if re.fullmatch(r"[01]{2,}b", text):
        raise SourceError(f"write binary as 0b{text[:-1]}", token.column)
    if _LOCAL.fullmatch(text):
        raise SourceError(
            f"no local label {text[:-1]}: {'before' if text[-1] == 'b' else 'after'} this line", token.column
        )
    if re.fullmatch(r"[0-9a-f]+", text):
        raise SourceError(f"bad number {token.text!r}; hexadecimal is written 0x{text}", token.column)
    raise SourceError(f"bad number {token.text!r}", token.column)


# Binding strength, as in C.
_BINARY = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, ">": 7, "<=": 7, ">=": 7,
    "<<": 8, ">>": 8, "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip


class Parser:
    """Reads one operand or expression from tokens. `local` turns `1b`/`1f` into the label's own name, or None."""

    def __init__(
        self, tokens: Sequence[Token], end_column: int, local: Callable[[str, str], str | None] | None = None
    ) -> None:
        self.tokens, self.at, self.end_column, self.local = tokens, 0, end_column, local

    def peek(self, ahead: int = 0) -> Token:
        at = self.at + ahead
        return self.tokens[at] if at < len(self.tokens) else Token("end", "", self.end_column)

    def take(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def expect(self, text: str) -> Token:
        token = self.take()
        if token.text != text:
            raise SourceError(f"expected {text!r}" + (f", found {token.text!r}" if token.text else ""), token.column)
        return token

    def finish(self) -> None:
        """Raises SourceError when something is left over."""
        token = self.peek()
        if token.kind != "end":
            raise SourceError(f"unexpected {token.text!r}", token.column)

    def expression(self, strength: int = 1, depth: int = 0) -> Node:
        """The longest expression from here on."""
        if depth > MAX_DEPTH:
            raise SourceError("expression nested too deeply", self.peek().column)
        left = self._unary(depth)
        links = 0
        while (mine := _BINARY.get(self.peek().text, 0)) >= strength and self.peek().kind == "op":
            token = self.take()
            links += 1
            if links > MAX_DEPTH * 4:  # a chain is a tree as deep as it is long
                raise SourceError("expression too long", token.column)
            left = Node(token.text, token.column, (left, self.expression(mine + 1, depth + 1)))
        return left

    def _unary(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise SourceError("expression nested too deeply", self.peek().column)
        token = self.take()
        if token.kind == "op" and token.text in ("-", "+", "~", "!"):
            return Node("u" + token.text, token.column, (self._unary(depth + 1),))
        if token.text == "(" and token.kind == "op":
            inner = self.expression(1, depth + 1)
            self.expect(")")
            return inner
        if token.kind == "number":
            found = _LOCAL.fullmatch(token.text)
            name = self.local(found[1], found[2].lower()) if found and self.local else None
            return Node("name", token.column, text=name) if name else Node("num", token.column, number=number(token))
        if token.kind == "string":
            data = unquote(token.text, token.column)
            if len(data) != 1:
                raise SourceError("only a single character can stand for a number; a text goes to .ascii", token.column)
            return Node("num", token.column, number=data[0])
        if token.kind == "name":
            return self._name(token)
        raise SourceError(
            f"expected a value, found {token.text!r}" if token.text else "a value is missing", token.column
        )

    def _name(self, token: Token) -> Node:
        if "@" in token.text:
            token = _relocated(token)
        lower = token.text.lower()
        if token.text in (".", "$"):
            return Node("here", token.column)
        if lower == "regnum" and self.peek().text == "(":
            self.expect("(")
            register = self.take()
            row = REGISTERS.get(register.text.lower())
            if row is None:
                raise SourceError(f"regnum wants a register, found {register.text!r}", register.column)
            self.expect(")")
            return Node("num", token.column, number=row.number)
        if lower in REGISTERS:
            return Node("reg", token.column, text=lower)
        return Node("name", token.column, text=token.text)


def _relocated(token: Token) -> Token:
    """`memcpy@PLT` is memcpy, since everything is in reach; other ways through a table do not exist here."""
    name, _, way = token.text.partition("@")
    if way.upper() != "PLT":
        raise SourceError(f"{token.text}: there is no linker, so no @{way}; compile with -fno-pic", token.column)
    return Token(token.kind, name, token.column)


def evaluate(node: Node, lookup: Lookup) -> Value:
    """The value of an expression. `lookup` is asked for names, and for "." with the current address."""
    op = node.op
    if op == "num":
        return Value(node.number, 0)
    if op == "name":
        return lookup(node.text, node.column)
    if op == "here":
        return lookup(".", node.column)
    if op == "reg":
        raise SourceError(f"register {node.text} where a number is needed", node.column)
    values = [evaluate(arg, lookup) for arg in node.args]
    a = values[0]
    if len(values) == 1:
        result = Value({"u-": -a.number, "u+": a.number, "u~": ~a.number, "u!": int(not a.number)}[op], 0)
        if op in ("u-", "u+"):
            result = Value(result.number, -a.relative if op == "u-" else a.relative)
    else:
        result = _binary(op, a, values[1], node.column)
    if abs(result.number) >= _LIMIT:
        raise SourceError("number too large", node.column)
    return result


def _binary(op: str, left: Value, right: Value, column: int) -> Value:
    a, b = left.number, right.number
    if op == "+":
        return Value(a + b, left.relative + right.relative)
    if op == "-":
        return Value(a - b, left.relative - right.relative)
    if op in ("/", "%"):
        if b == 0:
            raise SourceError("division by zero", column)
        quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)  # towards zero, as the processor does
        return Value(quotient if op == "/" else a - b * quotient, 0)
    if op in ("<<", ">>"):
        if not 0 <= b < 64:
            raise SourceError(f"shift by {b}: 0 to 63 make sense", column)
        return Value(a << b if op == "<<" else a >> b, 0)
    simple: dict[str, Callable[[], int]] = {
        "*": lambda: a * b,
        "&": lambda: a & b,
        "|": lambda: a | b,
        "^": lambda: a ^ b,
        "==": lambda: int(a == b),
        "!=": lambda: int(a != b),
        "<": lambda: int(a < b),
        ">": lambda: int(a > b),
        "<=": lambda: int(a <= b),
        ">=": lambda: int(a >= b),
        "&&": lambda: int(bool(a and b)),
        "||": lambda: int(bool(a or b)),
    }
    return Value(simple[op](), 0)
