# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows to statements: macros, repetition and conditions are unrolled here. It knows no instruction and no address.

keystone's own macros are not used: `\\@` never ends there, and a line of an expanded macro cannot be told apart from
its neighbours. Understood: `.macro NAME a, b=default` ... `.endm` with `\\a`, `\\@` (a number of this use) and `\\()`;
`.rept COUNT`, `.irp x, a, b` ... `.endr`; `.if`, `.elseif`, `.ifdef`, `.ifndef`, `.ifb`, `.ifnb`, `.else`, `.endif`;
`.error "text"`; `NAME = value`, `.set`, `.equ`, `NAME equ value`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from vmm.asm.expression import Node, Parser, SourceError, Value, evaluate, tokenize, unquote
from vmm.asm.source import MAX_ROW_LENGTH, MAX_ROWS, Row
from vmm.base.record import Record, field

MAX_MACRO_DEPTH = 50
MAX_USES = 10_000  # of macros; the largest payload that comes with pyvmm has a hundred
MAX_EXPANDED = 1 << 18  # characters that macros and .irp make, 25 times the most of those payloads

_NAME = r"[A-Za-z_.$?][\w.$?]*"
_LABEL = re.compile(rf"\s*({_NAME}|\d+)\s*:(?!:)")
_ASSIGN = re.compile(rf"\s*({_NAME})\s*(?:=(?!=)|\b(?:equ|EQU)\b)\s*")
_SET = re.compile(rf"\s*\.(?:set|equ|equiv)\s+({_NAME})\s*,\s*", re.IGNORECASE)
_WORD = re.compile(r"\s*([^\s\"'(),\[\]]+)\s*")
_PARAMETER = re.compile(rf"\s*({_NAME})\s*(?::\s*(req))?\s*(?:=\s*(.*?))?\s*$", re.DOTALL)
_USE = re.compile(r"\\(?:(\(\))|(@)|([A-Za-z_$?][\w$?]*))")

_OPENS = {".macro": ".endm", ".rept": ".endr", ".irp": ".endr", ".if": ".endif", ".ifdef": ".endif"}
_OPENS |= {".ifndef": ".endif", ".ifb": ".endif", ".ifnb": ".endif"}
_CONDITIONS = frozenset((".if", ".ifdef", ".ifndef", ".ifb", ".ifnb"))
_CLOSERS = frozenset((".endm", ".endmacro", ".endr", ".endif", ".else", ".elseif"))


class Label(Record):
    """`NAME:`; a numeric one has been given a name of its own."""

    row: Row
    name: str
    column: int


class Statement(Record):
    """A directive or instruction: `word` in lower case, and the text of its operands with the column it starts at."""

    row: Row
    word: str
    column: int
    rest: str
    rest_column: int
    locals_before: dict[str, int]  # numeric labels seen so far: label -> how many


class Constant(Record):
    """`NAME = expression`, evaluated when it is used: the expression may mention labels."""

    row: Row
    name: str
    node: Node


class Macro(Record):
    row: Row
    name: str
    parameters: tuple[tuple[str, str | None, bool], ...]  # name, default, required
    body: tuple[Row, ...]


def local_name(label: str, count: int) -> str:
    """The name of the `count`-th `label:`; a space keeps it apart from anything a source can write."""
    return f"{label} {count}"


def _pin(node: Node, name: str) -> Node:
    """The expression with the current address replaced by a name."""
    if node.op == "here":
        return Node("name", node.column, text=name)
    return node._replace(args=tuple(_pin(arg, name) for arg in node.args)) if node.args else node


def split_arguments(text: str) -> list[tuple[str, int]]:
    """The comma-separated parts with their offsets; commas inside quotes and brackets do not separate."""
    parts = []
    depth, quote, start, skip = 0, "", 0, False
    for at, char in enumerate(text):
        if skip:
            skip = False
        elif quote:
            skip = char == "\\"
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth <= 0:
            parts.append((text[start:at], start))
            start = at + 1
    parts.append((text[start:], start))
    return [(part.strip(), at + len(part) - len(part.lstrip())) for part, at in parts]


class Expander(Record, frozen=False, cached=True):
    """Turns rows into labels and statements; `constants` fills as definitions are met. `given` are the caller's."""

    given: Callable[[str], int | None]
    constants: dict[str, Constant] = field(default_factory=dict)
    macros: dict[str, Macro] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    uses: int = 0
    produced: int = 0
    expanded: int = 0

    def run(self, rows: Iterable[Row], depth: int = 0) -> Iterator[Label | Statement]:
        """Labels and statements in order. Raises PayloadError at the row that is wrong."""
        source = iter(rows)
        for row in source:
            self._count(row)
            if not row.text or row.text.isspace():
                continue
            try:
                yield from self._row(row, source, depth)
            except SourceError as e:
                raise row.error(e.what, e.column) from None

    def _count(self, row: Row) -> None:
        self.produced += 1
        if self.produced > MAX_ROWS:
            raise row.error(f"more than {MAX_ROWS} lines after macros and repetition")

    def _row(self, row: Row, source: Iterator[Row], depth: int) -> Iterator[Label | Statement]:
        text, at = row.text, 0
        while label := _LABEL.match(text, at):
            if label[1].lower() in ("es", "cs", "ss", "ds", "fs", "gs"):
                raise row.error(f"{label[1]} is a register and cannot be a label", label.start(1) + 1)
            name = label[1]
            if name.isdigit():
                self.counts[name] = self.counts.get(name, 0) + 1
                name = local_name(name, self.counts[name])
            yield Label(row, name, label.start(1) + 1)
            at = label.end()
        if not text[at:].strip():
            return
        if assign := (_SET.match(text, at) or _ASSIGN.match(text, at)):
            yield from self._assign(row, assign[1], assign.start(1) + 1, text[assign.end() :], assign.end() + 1)
            return
        word = _WORD.match(text, at)
        if not word:
            raise SourceError("expected an instruction, a directive or a label", at + 1)
        column = word.start(1) + 1
        rest, rest_column = text[word.end() :], word.end() + 1
        lower = word[1].lower()
        if macro := self.macros.get(word[1]):
            yield from self.run(self._expanded(macro, row, rest, rest_column, depth), depth + 1)
        elif lower in _OPENS:
            yield from self._block(row, lower, rest, rest_column, source, depth)
        elif lower in _CLOSERS:
            raise SourceError(f"{lower} without its opening directive", column)
        elif lower == ".purgem":
            self.macros.pop(rest.strip(), None)
        elif lower == ".error":
            shown = unquote(rest, rest_column).decode("utf-8", "replace") if re.match(r"^([\"']).*\1$", rest) else rest
            raise SourceError(shown or ".error", column)
        else:
            yield Statement(row, lower, column, rest, rest_column, dict(self.counts) if self.counts else {})

    def _assign(self, row: Row, name: str, column: int, text: str, text_column: int) -> Iterator[Label]:
        """Notes a definition; one that mentions "." gets a hidden label, for the address is that of this line."""
        parser = Parser(tokenize(text, text_column), len(row.text) + 1)
        node = parser.expression()
        parser.finish()
        if name in (".", "$"):
            raise SourceError("the current address cannot be set: use .skip, .fill or .p2align", column)
        hidden = local_name(".", len(self.constants))
        pinned = _pin(node, hidden)
        if pinned != node:
            yield Label(row, hidden, column)
        node = pinned
        constant = Constant(row, name, node)
        before = self.constants.get(name)
        if before:
            try:
                same = self.value(before.node) == self.value(node)
            except SourceError:
                same = False
            if not same:
                raise SourceError(f"{name} is already defined at {before.row.file}:{before.row.line}", column)
        self.constants[name] = constant

    def value(self, node: Node, depth: int = 0) -> int:
        """The value of an expression of constants known so far. Raises SourceError for labels and unknown names."""

        def lookup(name: str, column: int) -> Value:
            if depth > MAX_MACRO_DEPTH:
                raise SourceError(f"{name} is defined by itself", column)
            if name in self.constants:
                try:
                    return Value(self.value(self.constants[name].node, depth + 1), 0)
                except SourceError as e:
                    raise SourceError(f"{name}: {e.what}", column) from None
            given = self.given(name)
            if given is None:
                what = "the current address" if name == "." else f"{name!r}"
                raise SourceError(f"{what} is no constant known at this point", column)
            return Value(given, 0)

        return evaluate(node, lookup).number

    def _number(self, text: str, column: int) -> int:
        parser = Parser(tokenize(text, column), column + len(text))
        node = parser.expression()
        parser.finish()
        return self.value(node)

    # -- blocks ---------------------------------------------------------------------------------------------------

    def _collect(self, opened: Row, word: str, source: Iterator[Row]) -> list[tuple[Row, str, str, int]]:
        """Rows up to the closing directive, which is the last: (row, word, rest, column of rest). Nesting counted."""
        stack = [_OPENS[word]]
        found = []
        for row in source:
            self._count(row)
            match = _WORD.match(row.text)
            inner = match[1].lower() if match else ""
            inner = ".endm" if inner == ".endmacro" else inner
            rest, column = (row.text[match.end() :], match.end() + 1) if match else ("", 1)
            if inner == stack[-1]:
                stack.pop()
            elif inner in _OPENS:
                stack.append(_OPENS[inner])
            # Only directives of this very block keep their word; those of inner blocks are plain rows here.
            found.append((row, inner if len(stack) <= 1 else "", rest, column))
            if not stack:
                return found
        raise opened.error(f"{word} without {_OPENS[word]}")

    def _block(
        self, row: Row, word: str, rest: str, column: int, source: Iterator[Row], depth: int
    ) -> Iterator[Label | Statement]:
        collected = self._collect(row, word, source)
        body = [found[0] for found in collected[:-1]]
        if word == ".macro":
            self._define(row, rest, column, tuple(body))
        elif word in _CONDITIONS:
            yield from self.run(self._chosen(word, rest, column, collected), depth)
        elif word == ".rept":
            count = self._number(rest, column)
            if not 0 <= count * max(len(body), 1) <= MAX_ROWS:
                raise SourceError(f".rept {count}: out of range", column)
            for _ in range(count):
                self._count(row)  # a turn costs, even of nothing
                yield from self.run(body, depth)
        else:
            (name, _), *values = split_arguments(rest)
            if not re.fullmatch(_NAME, name):
                raise SourceError(".irp wants a name, then values: .irp x, 1, 2", column)
            for value, _at in values:
                self._count(row)
                yield from self.run([self._substituted(inner, {name: value}, inner.uses) for inner in body], depth)

    def _chosen(self, word: str, rest: str, column: int, collected: list[tuple[Row, str, str, int]]) -> list[Row]:
        """The rows of the first branch whose condition holds."""
        chosen: list[Row] = []
        done = taking = self._holds(word, rest, column)
        for row, inner, inner_rest, inner_column in collected[:-1]:
            if inner == ".else":
                taking, done = not done, True
            elif inner == ".elseif":
                try:
                    taking = not done and self._holds(".if", inner_rest, inner_column)
                except SourceError as e:
                    raise row.error(e.what, e.column) from None
                done = done or taking
            elif taking:
                chosen.append(row)
        return chosen

    def _holds(self, word: str, rest: str, column: int) -> bool:
        name = rest.strip()
        if word == ".if":
            return bool(self._number(rest, column))
        if word in (".ifb", ".ifnb"):
            return (not name) == (word == ".ifb")
        if not name:
            raise SourceError(f"{word} wants a name", column)
        known = name in self.constants or name in self.macros or self.given(name) is not None
        return known == (word == ".ifdef")

    # -- macros ---------------------------------------------------------------------------------------------------

    def _define(self, row: Row, rest: str, column: int, body: tuple[Row, ...]) -> None:
        name = _WORD.match(rest)
        if not name or not re.fullmatch(_NAME, name[1]):
            raise SourceError(".macro wants a name: .macro NAME a, b=default", column)
        if before := self.macros.get(name[1]):
            raise SourceError(f"macro {name[1]} is already defined at {before.row.file}:{before.row.line}", column)
        for inner in body:
            if (word := _WORD.match(inner.text)) and word[1].lower() == ".macro":
                raise inner.error("a macro cannot define another")
        parameters: list[tuple[str, str | None, bool]] = []
        listed = rest[name.end() :].removeprefix(",")
        if "," not in listed and "=" not in listed:
            listed = ",".join(listed.split())  # blanks separate parameters too, as in GNU as
        for text, at in split_arguments(listed) if listed.strip() else []:
            parameter = _PARAMETER.match(text)
            if not parameter or any(parameter[1] == known for known, _, _ in parameters):
                raise SourceError(f"bad macro parameter {text!r}", column + name.end() + at)
            parameters.append((parameter[1], parameter[3], bool(parameter[2])))
        self.macros[name[1]] = Macro(row, name[1], tuple(parameters), body)

    def _expanded(self, macro: Macro, row: Row, rest: str, column: int, depth: int) -> list[Row]:
        if depth >= MAX_MACRO_DEPTH:
            raise SourceError(f"macro {macro.name} nested {depth} deep: does it use itself?", column)
        given = split_arguments(rest) if rest.strip() else []
        names = [name for name, _, _ in macro.parameters]
        values: dict[str, str] = {}
        for position, (text, at) in enumerate(given):
            key, eq, named = text.partition("=")
            if eq and key.strip() in names and not named.startswith("="):
                values[key.strip()] = named.strip()
            elif position < len(names):
                values[names[position]] = text
            else:
                takes = f"takes {', '.join(names)}" if names else "takes nothing"
                raise SourceError(f"macro {macro.name} {takes}; {text!r} is too many", column + at)
        for name, default, required in macro.parameters:
            if not values.get(name) and (default is None or required):
                raise SourceError(f"macro {macro.name} needs a value for {name!r}", column)
            values[name] = values.get(name) or default or ""
        values["@"] = str(self.uses)
        self.uses += 1
        if self.uses > MAX_USES:
            raise SourceError(
                f"macro {macro.name} is the {MAX_USES + 1}th use of a macro: does one use itself?", column
            )
        uses = (*row.uses, (row.file, row.line, macro.name))
        return [self._substituted(inner, values, uses) for inner in macro.body]

    def _substituted(self, row: Row, values: dict[str, str], uses: tuple[tuple[str, int, str], ...]) -> Row:
        def value(found: re.Match[str]) -> str:
            if found[1]:
                return ""
            return values.get(found[2] or found[3], found[0])  # unknown: \n inside a text, or an outer \x

        text = _USE.sub(value, row.text) if "\\" in row.text else row.text
        if len(text) > MAX_ROW_LENGTH:
            raise row.error(f"line longer than {MAX_ROW_LENGTH} characters after its parameters are put in")
        self.expanded += len(text) + 1
        if self.expanded > MAX_EXPANDED:
            by = f"macro {uses[-1][2]}" if uses else ".irp"
            raise row.error(f"{by}: more than {MAX_EXPANDED} characters come out of macros: does one use itself?")
        return Row(row.file, row.line, text, uses)
