# SPDX-License-Identifier: GPL-2.0-or-later
"""One instruction to bytes: prefixes, quirks, branches, then keystone; what comes back is checked.

keystone cuts immediates without a word (`ret 0x10000`, `cmp al, 0x100`, `push 0x80000000`) and ends the whole process
for `mov ah, r8b`: both are caught here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from vmm.abi.record import record, replace
from vmm.asm import branches, keystone_engine, quirks, strings
from vmm.asm.expand import Statement, local_name
from vmm.asm.expression import Lookup, SourceError, evaluate
from vmm.asm.operands import Operand, parse, render
from vmm.asm.registers import GPR32, GPR64
from vmm.asm.source import default_folders, read_text

_MNEMONIC = re.compile(r"[a-z][a-z0-9]*")
_ATT = re.compile(r"%[a-z]{2,3}\b|\$(?:0x)?\d", re.IGNORECASE)
_SHIFTS = frozenset(("shl", "shr", "sal", "sar", "rol", "ror", "rcl", "rcr"))


@record
class Instruction:
    """A parsed instruction, ready to be encoded at any address."""

    mnemonic: str
    column: int
    mode: int
    prefixes: bytes
    operands: list[Operand]
    suggest: Callable[[str], Iterable[str]]

    @property
    def relative(self) -> bool:
        """Whether the bytes depend on the address even without a label: a jump to a number."""
        return branches.is_branch(self.mnemonic, self.operands)

    def encode(self, lookup: Lookup, address: int, old_size: int) -> bytes:
        """The bytes at `address`. Raises SourceError."""
        if self.relative:
            if self.operands[0].kind == "far":
                other = 0x66 in self.prefixes
                return self.prefixes + branches.far(self.mnemonic, self.operands[0], self.mode, lookup, other)
            at = address + len(self.prefixes)
            size = old_size - len(self.prefixes)
            return self.prefixes + branches.encode(self.mnemonic, self.operands[0], self.mode, lookup, at, size)
        return self.prefixes + self._plain(lookup, address + len(self.prefixes))

    def _plain(self, lookup: Lookup, address: int) -> bytes:
        key = " ".join((self.mnemonic, *(operand.text for operand in self.operands if operand.kind == "reg")))
        if self.mnemonic == key or len(self.operands) == 1:
            fixed = quirks.FIXED.get((key, self.mode))
            if fixed and all(operand.kind == "reg" for operand in self.operands):
                return fixed
        if self.mode == 16 and self.mnemonic in ("push", "ret", "retf") and len(self.operands) == 1:
            operand = self.operands[0]
            if operand.kind == "imm":
                return self._word_immediate(lookup)
        if strings.is_string(self.mnemonic, self.operands):
            return strings.encode(self.mnemonic, self.column, self.operands, self.mode)
        mnemonic, wide = self._far_through_memory()
        moffs = self._moffs()
        code = self._keystone(mnemonic, lookup, None, moffs)
        if any(operand.terms and operand.terms[0][0].kind == "ip" for operand in self.operands):
            code = self._keystone(mnemonic, lookup, address + len(code) + wide, moffs)
        self._check_immediates(code, lookup)
        if self.mode == 32 and mnemonic in quirks.NO_66_IN_32:
            code = code.removeprefix(b"\x66")
        if wide:  # REX.W, joined with a REX that is there already
            code = bytes((code[0] | 0x48,)) + code[1:] if code[0] & 0xF0 == 0x40 else b"\x48" + code
        return code

    def _keystone(self, mnemonic: str, lookup: Lookup, end: int | None, moffs: str) -> bytes:
        texts = [render(operand, self.mode, lookup, end, moffs) for operand in self.operands]
        if mnemonic in ("lar", "lsl") and len(texts) == 2:
            source = self.operands[1].register
            if source and source.bits == 16 and source.kind == "gpr":
                # keystone wants the 32-bit name (LSL: the destination's width); the encoding is the same.
                target = self.operands[0].register
                wide = mnemonic == "lsl" and target is not None and target.bits == 64
                texts[1] = (GPR64 if wide else GPR32)[source.number]
        text = f"{mnemonic} {', '.join(texts)}".rstrip()
        try:
            return keystone_engine.encode(text, self.mode)
        except keystone_engine.Refused as e:
            raise self._explain(e, text) from None

    def _word_immediate(self, lookup: Lookup) -> bytes:
        """`push`, `ret` and `retf` with a number in 16-bit code: keystone makes them 32 bits wide."""
        operand = self.operands[0]
        assert operand.node is not None
        value = evaluate(operand.node, lookup).number
        low = -(1 << 15) if self.mnemonic == "push" else 0
        if not low <= value < 1 << 16:
            raise SourceError(f"{value:#x} does not fit in 16 bits", operand.column)
        signed = value - (1 << 16) if value >= 1 << 15 else value
        if self.mnemonic == "push" and -128 <= signed < 128:
            return b"\x6a" + signed.to_bytes(1, "little", signed=True)
        opcode = {"push": b"\x68", "ret": b"\xc2", "retf": b"\xca"}[self.mnemonic]
        return opcode + (value & 0xFFFF).to_bytes(2, "little")

    def _far_through_memory(self) -> tuple[str, bool]:
        """`jmp far [m]`, `jmp fword ptr [m]` are keystone's ljmp; `tbyte` asks for the 64-bit offset."""
        name, operands = self.mnemonic, self.operands
        if name in ("jmp", "call", "ljmp", "lcall") and len(operands) == 1 and operands[0].kind == "mem":
            operand = operands[0]
            if operand.distance == "far" or operand.size in ("fword", "tbyte") or name[0] == "l":
                wide = operand.size == "tbyte" or (operand.size == "qword" and self.mode == 64)
                if wide and self.mode != 64:
                    raise SourceError("a far pointer of ten bytes exists in 64-bit code only", operand.column)
                return "l" + name.removeprefix("l"), wide
        return name, False

    def _moffs(self) -> str:
        """The mnemonic, if this is a MOV between the accumulator and an absolute address; else ""."""
        direct = (
            self.mnemonic in ("mov", "movabs")
            and len(self.operands) == 2
            and any(o.kind == "mem" and not o.terms for o in self.operands)
            and any(o.register is not None and o.text in ("al", "ax", "eax", "rax") for o in self.operands)
        )
        return self.mnemonic if direct else ""

    def _check_immediates(self, code: bytes, lookup: Lookup) -> None:
        for operand in self.operands:
            if operand.kind != "imm" or operand.node is None:
                continue
            value = evaluate(operand.node, lookup).number
            if value == 1 and self.mnemonic in _SHIFTS:
                continue
            if not _contains(code, value):
                raise SourceError(f"{value:#x} does not fit in this operand of {self.mnemonic}", operand.column)

    def _explain(self, refused: keystone_engine.Refused, text: str) -> SourceError:
        if refused.reason == "mnemonic":
            near = ", ".join(self.suggest(self.mnemonic))
            hint = f"; did you mean {near}?" if near else ""
            if _is_shared_macro(self.mnemonic):
                hint = ', but there is a macro for it: %include "insns"'
            return SourceError(f"unknown instruction {self.mnemonic!r}{hint}", self.column)
        if sum(operand.kind == "mem" for operand in self.operands) > 1:
            return SourceError("two memory operands: load one into a register first", self.operands[1].column)
        memory = next((o for o in self.operands if o.kind == "mem"), None)
        if memory and not memory.size and not any(o.kind == "reg" and o.text != "cl" for o in self.operands):
            return SourceError("the size of this memory is unknown: write dword ptr [...]", memory.column)
        if refused.reason == "feature":
            return SourceError(f"`{text}` does not exist in {self.mode}-bit code", self.column)
        registers = [o for o in self.operands if o.register and o.register.kind == "gpr"]
        if len({o.register.bits for o in registers if o.register}) > 1:
            return SourceError(f"`{text}`: registers of different widths do not fit together", registers[-1].column)
        column = self.operands[-1].column if self.operands else self.column
        return SourceError(f"no such form: `{text}`", column)


def _contains(code: bytes, value: int) -> bool:
    """Whether the number stands in the bytes in a width that keeps it: cut immediates do not."""
    candidates = {value, *(value - (1 << bits) for bits in (16, 32, 64) if value >> (bits - 1) == 1)}
    return any(
        (candidate & ((1 << 8 * width) - 1)).to_bytes(width, "little") in code[1:]
        for candidate in candidates
        for width in (1, 2, 4, 8)
        if -(1 << (8 * width - 1)) <= candidate < (1 << (8 * width))
    )


def _high_byte_clash(operands: list[Operand], mode: int) -> int:
    """The column of an ah/bh/ch/dh that meets an operand needing REX; 0 when there is none. keystone would abort."""
    if mode != 64:
        return 0
    high = next((o for o in operands if o.text in ("ah", "bh", "ch", "dh")), None)
    if high is None:
        return 0
    others = [o.register for o in operands if o.register] + [r for o in operands for r, _ in o.terms if r.number > 7]
    return high.column if any(r.only64 or (r.bits == 64 and r.kind == "gpr") for r in others) else 0


def build(statement: Statement, mode: int, suggest: Callable[[str], Iterable[str]]) -> Instruction:
    """Parses prefixes, mnemonic and operands. Raises SourceError."""

    def local(label: str, direction: str) -> str | None:
        count = statement.locals_before.get(label, 0)
        if direction == "b":
            return local_name(label, count) if count else None
        return local_name(label, count + 1)

    word, column, rest, rest_column = statement.word, statement.column, statement.rest, statement.rest_column
    prefixes = bytearray()
    while (byte := _prefix(word, mode, column)) is not None:
        prefixes.append(byte)
        stripped = rest.lstrip()
        column = rest_column + len(rest) - len(stripped)
        if not stripped:
            raise SourceError(f"{word} needs an instruction after it, on the same line", statement.column)
        word, _, rest = stripped.partition(" ")
        rest_column = column + len(word) + 1
        word = word.lower()
    if hint := quirks.NOT_INSTRUCTIONS.get(word):
        raise SourceError(f"{word!r} is not known here; write {hint}", column)
    if word.startswith("%"):
        raise SourceError(f"{word!r}: AT&T syntax and NASM directives are not supported; write Intel syntax", column)
    if not _MNEMONIC.fullmatch(word):
        raise SourceError(f"expected an instruction, found {word!r}", column)
    if _ATT.search(rest):
        raise SourceError("AT&T syntax is not supported: write `mov rax, rbx`, destination first", rest_column)
    if word in quirks.BARE_PREFIXES:
        raise SourceError(f"{word} cannot stand before an instruction: {quirks.BARE_PREFIXES[word]}", column)
    word = quirks.ALIASES.get(word, word)
    if why := quirks.REFUSED.get((word, mode)):
        raise SourceError(why, column)
    operands = parse(rest, rest_column, mode, local)
    if word in ("ljmp", "lcall") and len(operands) == 2 and operands[0].kind == operands[1].kind == "imm":
        operands = [replace(operands[1], kind="far", selector=operands[0].node)]  # `ljmp 0x8, label`, as GNU as has it
    if word == "nop" and operands:
        raise SourceError("keystone encodes nop with operands wrongly: use .p2align or .byte", column)
    if clash := _high_byte_clash(operands, mode):
        raise SourceError("ah, bh, ch and dh cannot be used together with r8-r15, spl-dil or a 64-bit register", clash)
    if operands and word in ("lgdtd", "lidtd") and mode == 16:
        prefixes.append(0x66)
        word = word[:-1]
    return Instruction(word, column, mode, bytes(prefixes), operands, suggest)


def _prefix(word: str, mode: int, column: int) -> int | None:
    if word in quirks.PREFIXES:
        return quirks.PREFIXES[word]
    if word in quirks.SIZE_PREFIXES:
        byte, modes = quirks.SIZE_PREFIXES[word]
        if mode not in modes:
            raise SourceError(f"{word} changes nothing in {mode}-bit code", column)
        return byte
    return None


def _is_shared_macro(word: str) -> bool:
    """Whether `insns.inc` has a macro of this name; asked only when something is wrong already."""
    from pathlib import Path

    files = [Path(folder, "insns.inc") for folder in default_folders()]
    return any(re.search(rf"^\.macro {re.escape(word)}\b", read_text(file), re.M) for file in files if file.is_file())


def near(word: str, candidates: Iterable[str]) -> list[str]:
    """Up to three names that look like `word`, best first."""
    from difflib import get_close_matches  # only a mistake pays for it

    return get_close_matches(word, list(candidates), n=3, cutoff=0.6)
