# SPDX-License-Identifier: GPL-2.0-or-later
"""Statements to a program: addresses, symbols, and passes until nothing moves. It knows no file and no cache.

A first pass guesses that a label further down is right here; statements that asked for a label or for the current
address are encoded again until every label stays where it was. All others are encoded once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

from vmm.asm import directives, instruction, quirks, sections
from vmm.asm.directives import Encode
from vmm.asm.expand import Constant, Label, Statement
from vmm.asm.expression import Lookup, SourceError, Value, evaluate
from vmm.asm.instruction import near
from vmm.asm.program import Line, Program
from vmm.asm.registers import REGISTERS
from vmm.asm.source import Row
from vmm.asm.verify import check
from vmm.base.record import Record, field
from vmm.errors import PayloadError

MAX_PASSES = 40
# Names that a payload's header makes; what to write there.
_FROM_HEADER = {
    "R_": "result; write `; result: {} u64 WHAT IT IS`",
    "PARAM_": "parameter; write `; param: {} = 1 WHAT IT IS`",
}
_SETTLE = 8  # from this pass on an instruction only grows, and NOPs fill the difference


class _Piece(Record, frozen=False):
    """One statement on its way: `code` of the last pass, `fixed` once it is known to depend on no address.

    `own` is how much of `code` is the statement's own: NOPs may follow. `verify` reads an instruction's bytes again.
    """

    statement: Statement
    mode: int
    encode: Encode
    code: bytes = b""
    fixed: bool = False
    verify: Callable[[bytes, Lookup, int], None] | None = None
    own: int = 0


class _Names(Record, frozen=False, cached=True):
    """Names to values while a pass runs. `asked` tells whether an address was used since it was last cleared."""

    given: Mapping[str, int]
    constants: Mapping[str, Constant]
    labels: dict[str, int | None] = field(default_factory=dict)
    here: int = 0
    asked: bool = False
    open: list[str] = field(default_factory=list)

    def lookup(self, name: str, column: int) -> Value:
        if name == ".":
            self.asked = True
            return Value(self.here, 1)
        if name in self.labels:
            self.asked = True
            address = self.labels[name]
            return Value(self.here if address is None else address, 1)
        if constant := self.constants.get(name):
            if name in self.open:
                raise SourceError(f"{name} is defined by itself", column)
            self.open.append(name)
            try:
                return evaluate(constant.node, self.lookup)
            except SourceError as e:
                raise constant.row.error(e.what, e.column) from None
            finally:
                self.open.pop()
        if name in self.given:
            return Value(self.given[name], 0)
        raise SourceError(self._unknown(name), column)

    def _unknown(self, name: str) -> str:
        if " " in name:
            return f"no local label {name.split()[0]}: after this line"
        for prefix, what in _FROM_HEADER.items():
            if name.startswith(prefix):
                return f"unknown symbol {name!r}: the header declares no {what.format(name.removeprefix(prefix))}"
        known = [label for label in self.labels if " " not in label]
        found = ", ".join(near(name, (*known, *self.constants, *self.given, *REGISTERS)))
        return f"unknown symbol {name!r}" + (f"; did you mean {found}?" if found else "")


def lay_out(
    items: Iterable[Label | Statement],
    name: str,
    base: int,
    given: Mapping[str, int],
    constants: Mapping[str, Constant],
    macros: Mapping[str, object],
) -> Program:
    """Places the items from `base` on. Raises PayloadError at the row that is wrong.

    `items` is consumed before `constants` and `macros` are looked at, since reading it is what fills them.
    """
    names = _Names(given, constants)
    where: dict[str, Row] = {}
    ordered = _in_order(items, names, where, macros)
    for label, row in where.items():
        if label in constants:
            other = constants[label].row
            raise row.error(f"{label} is both a label and a constant, defined at {other.file}:{other.line}")
    _check_constants(constants, names)
    _settle(ordered, names, base)
    _verify(ordered, names, base)
    return _program(ordered, names, name, base)


def _in_order(
    items: Iterable[Label | Statement], names: _Names, where: dict[str, Row], macros: Mapping[str, object]
) -> list[Label | _Piece]:
    """Labels and pieces, section after section."""
    section = sections.Sections()
    found: dict[str, list[Label | _Piece]] = {}
    mode = 64

    def add(item: Label | Statement, name: str) -> None:
        if isinstance(item, Label):
            _declare(item, names, where)
        found.setdefault(name, []).append(item if isinstance(item, Label) else _piece(item, mode, macros))

    for item in items:
        if isinstance(item, Statement) and item.word in sections.WORDS:
            try:
                if item.word not in (".comm", ".lcomm"):
                    section.switch(item)
                    continue
                for each in sections.common(item):
                    add(each, ".bss")
            except SourceError as e:
                raise item.row.error(e.what, e.column) from None
        elif section.dropped:
            continue
        elif isinstance(item, Statement) and item.word in directives.MODES:
            mode = directives.MODES[item.word]
        elif isinstance(item, Label) or not directives.ignored(item.word):
            add(item, section.current)
    return [item for name in sorted(found, key=section.key) for item in found[name]]


def _declare(label: Label, names: _Names, where: dict[str, Row]) -> None:
    if label.name in where:
        before = where[label.name]
        raise label.row.error(f"label {label.name} is already at {before.file}:{before.line}", label.column)
    if label.name.lower() in REGISTERS:
        raise label.row.error(f"{label.name} is a register and cannot be a label", label.column)
    if label.name in (".", "$"):
        raise label.row.error(f"{label.name} stands for the current address and cannot be a label", label.column)
    where[label.name] = label.row
    names.labels[label.name] = None


def _check_constants(constants: Mapping[str, Constant], names: _Names) -> None:
    """A definition that cannot be evaluated is an error even where nothing uses it."""
    for constant in constants.values():
        if constant.name.lower() in REGISTERS:
            raise constant.row.error(f"{constant.name} is a register and cannot be a constant")
        try:
            names.lookup(constant.name, 0)
        except SourceError as e:
            raise constant.row.error(e.what, e.column) from None


def _piece(statement: Statement, mode: int, macros: Mapping[str, object]) -> _Piece:
    def instructions(word: str) -> list[str]:
        return near(word, (*macros, *quirks.COMMON.split()))

    try:
        if statement.word.startswith("."):
            return _Piece(statement, mode, directives.build(statement, mode, lambda word: near(word, directives.NAMES)))
        parsed = instruction.build(statement, mode, instructions)
    except SourceError as e:
        raise statement.row.error(e.what, e.column) from None
    return _Piece(statement, mode, parsed.encode, verify=partial(check, parsed))


def _settle(ordered: list[Label | _Piece], names: _Names, base: int) -> None:
    for turn in range(MAX_PASSES):
        moved = _one_pass(ordered, names, base, turn)
        if not moved.labels and moved.error:
            raise moved.error
        if not moved.labels and not moved.sizes:
            return
    piece = next(item for item in ordered if isinstance(item, _Piece) and not item.fixed)
    raise piece.statement.row.error("the layout does not settle: sizes here depend on each other in a circle")


def _verify(ordered: list[Label | _Piece], names: _Names, base: int) -> None:
    """No instruction is believed before its bytes were decoded again: see vmm/asm/verify.py."""
    address = base
    believed: set[tuple[int, str, str, bytes]] = set()  # what stands in many places is read once
    for item in ordered:
        if isinstance(item, Label):
            continue
        key = (item.mode, item.statement.word, item.statement.rest, item.code[: item.own])
        if item.verify and not (item.fixed and key in believed):
            believed.add(key)
            names.here = address
            try:
                item.verify(item.code[: item.own], names.lookup, address)
            except SourceError as e:
                raise item.statement.row.error(e.what, e.column) from None
        address += len(item.code)


class _Moved(Record, frozen=False):
    labels: bool = False
    sizes: bool = False
    error: PayloadError | None = None


def _one_pass(ordered: list[Label | _Piece], names: _Names, base: int, turn: int) -> _Moved:
    moved = _Moved()
    address = base
    for item in ordered:
        if isinstance(item, Label):
            if names.labels[item.name] != address:
                names.labels[item.name] = address
                moved.labels = True
            continue
        if not item.fixed:
            _encode(item, names, address, turn, moved)
        address += len(item.code)
        if address - base > directives.MAX_SIZE:
            raise item.statement.row.error(f"the program grows beyond {directives.MAX_SIZE:#x} bytes here")
    return moved


def _encode(piece: _Piece, names: _Names, address: int, turn: int, moved: _Moved) -> None:
    names.here, names.asked = address, False
    error: PayloadError | None = None
    code = piece.code
    try:
        code = piece.encode(names.lookup, address, len(piece.code))
    except SourceError as e:
        error = piece.statement.row.error(e.what, e.column)
    except PayloadError as e:  # raised at another row: the constant that could not be evaluated
        error = e
    piece.fixed = not names.asked and not _is_branch(piece)
    if error and piece.fixed:
        raise error
    moved.error = moved.error or error  # it may vanish when labels have their places
    piece.own = len(code)
    if turn >= _SETTLE and piece.verify and len(code) < len(piece.code):
        code += directives.nops(len(piece.code) - len(code), piece.mode)
    moved.sizes = moved.sizes or len(code) != len(piece.code)
    piece.code = code


def _is_branch(piece: _Piece) -> bool:
    """Even `jmp 0x1000` depends on the address it stands at."""
    owner: Callable[..., bytes] | instruction.Instruction | None = getattr(piece.encode, "__self__", None)
    return isinstance(owner, instruction.Instruction) and owner.relative


def _program(ordered: list[Label | _Piece], names: _Names, name: str, base: int) -> Program:
    code = bytearray()
    lines = []
    for item in ordered:
        if isinstance(item, Label) or not item.code:
            continue
        row = item.statement.row
        text = row.text[item.statement.column - 1 :]
        file, line, origin = row.file, row.line, ""
        if row.uses:
            file, line, macro = row.uses[0]
            macro = ", ".join(f"{use[2]}" for use in row.uses)
            origin = f"{macro} ({row.file}:{row.line})"
        lines.append(Line(base + len(code), len(item.code), file, line, text, origin))
        code += item.code
    known = [(label, address) for label, address in names.labels.items() if address is not None and " " not in label]
    symbols = dict(
        sorted(known, key=lambda each: each[1])
    )  # sections may have moved them; of equals the first stays so
    constants = {each: names.lookup(each, 0).number for each in names.constants}
    return Program(name, base, bytes(code), symbols, tuple(lines), constants)
