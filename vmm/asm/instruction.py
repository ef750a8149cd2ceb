# SPDX-License-Identifier: GPL-2.0-or-later
"""One instruction to bytes: prefixes, quirks, branches, then keystone. vmm/asm/verify.py reads what comes out again.

keystone cuts immediates without a word (`ret 0x10000`, `cmp al, 0x100`), which verify.py finds, and ends the whole
process for `mov ah, r8b`, which is caught here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from vmm.asm import branches, keystone_engine, mend, quirks, strings, synonyms
from vmm.asm.expand import Statement, local_name
from vmm.asm.expression import Lookup, SourceError
from vmm.asm.operands import Operand, parse, render
from vmm.asm.registers import GPR32, GPR64
from vmm.asm.source import default_folders, read_text
from vmm.base.record import Record, replace

_MNEMONIC = re.compile(r"[a-z][a-z0-9]*")
_ATT = re.compile(r"%[a-z]{2,3}\b|\$(?:0x)?\d", re.IGNORECASE)


class Instruction(Record):
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
        try:
            return self._encoded(lookup, address, old_size)
        except SourceError:
            # `RESULT answer` without its include: that the macro is missing comes before what its operand may mean.
            if not self.relative and self._unknown():
                raise self._no_such() from None
            raise

    def _unknown(self) -> bool:
        """Whether nobody here has the mnemonic; asked only when something is wrong already."""
        return not (
            strings.is_string(self.mnemonic, self.operands)
            or self.mnemonic in mend.STACK
            or any(name.split()[0] == self.mnemonic for name, _ in quirks.FIXED)
            or keystone_engine.knows(self.mnemonic, self.mode)
        )

    def _no_such(self) -> SourceError:
        names = self.suggest(self.mnemonic)
        if same := [each for each in names if each.lower() == self.mnemonic.lower() and each != self.mnemonic]:
            return SourceError(f"no instruction {self.mnemonic!r}; a macro's name is exact: {same[0]}", self.column)
        if found := _shared_macro(self.mnemonic):
            return _not_included(*found, self.column)
        near = ", ".join(names)
        hint = f"; did you mean {near}?" if near else ""
        return SourceError(f"unknown instruction {self.mnemonic!r}{hint}", self.column)

    def _encoded(self, lookup: Lookup, address: int, old_size: int) -> bytes:
        if self.relative:
            if self.operands[0].kind == "far":
                other = 0x66 in self.prefixes
                return self.prefixes + branches.far(self.mnemonic, self.operands[0], self.mode, lookup, other)
            at = address + len(self.prefixes)
            size = old_size - len(self.prefixes)
            other = 0x66 in self.prefixes
            code = branches.encode(
                self.mnemonic, self.operands[0], self.mode, lookup, at, size, other and self.mode != 64
            )
            if other and self.mode == 64 and len(code) > 2:
                raise SourceError(
                    "data16 before a jump that is not short is read by some processors only: leave it out", self.column
                )
            return self.prefixes + code
        return self.prefixes + self._plain(lookup, address + len(self.prefixes))

    def _plain(self, lookup: Lookup, address: int) -> bytes:
        key = " ".join((self.mnemonic, *(operand.text for operand in self.operands if operand.kind == "reg")))
        if self.mnemonic == key or len(self.operands) == 1:
            fixed = quirks.FIXED.get((key, self.mode))
            if fixed and all(operand.kind == "reg" for operand in self.operands):
                return fixed
        if self.mnemonic in mend.STACK and self.operands and all(operand.kind == "imm" for operand in self.operands):
            return mend.stack(self.mnemonic, self.operands, self.mode, lookup, 0x66 in self.prefixes)
        if strings.is_string(self.mnemonic, self.operands):
            return strings.encode(self.mnemonic, self.column, self.operands, self.mode)
        mnemonic, wide = self._far_through_memory()
        moffs = self._moffs()
        code = self._keystone(mnemonic, lookup, None, moffs)
        if any(operand.terms and operand.terms[0][0].kind == "ip" for operand in self.operands):
            code = self._keystone(mnemonic, lookup, address + len(code) + wide, moffs)
        code = mend.without_66(code, self.mnemonic, self.operands, self.mode)
        code = mend.displacement(code, self.operands, lookup)
        if wide:  # REX.W, joined with a REX that is there already
            code = bytes((code[0] | 0x48,)) + code[1:] if code[0] & 0xF0 == 0x40 else b"\x48" + code
        return code

    def _keystone(self, mnemonic: str, lookup: Lookup, end: int | None, moffs: str) -> bytes:
        texts = [render(operand, self.mode, lookup, end, moffs) for operand in self.operands]
        if mnemonic in ("lar", "lsl") and len(texts) == 2:
            source = self.operands[1].register
            target = self.operands[0].register
            if source and source.bits == 16 and source.kind == "gpr" and target and target.bits > 16:
                # keystone wants the 32-bit name (LSL: the destination's width); the encoding is the same.
                wide = mnemonic == "lsl" and target.bits == 64
                texts[1] = (GPR64 if wide else GPR32)[source.number]
        text = f"{mnemonic} {', '.join(texts)}".rstrip()
        try:
            return keystone_engine.encode(text, self.mode)
        except keystone_engine.Refused as e:
            raise self._explain(e, text) from None

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

    def _explain(self, refused: keystone_engine.Refused, text: str) -> SourceError:
        if refused.reason == "mnemonic":
            return self._no_such()
        if sum(operand.kind == "mem" for operand in self.operands) > 1:
            return SourceError("two memory operands: load one into a register first", self.operands[1].column)
        memory = next((o for o in self.operands if o.kind == "mem"), None)
        unsaid = self.mnemonic in synonyms.AMBIGUOUS or not any(
            o.kind == "reg" and o.text != "cl" for o in self.operands
        )
        if memory and not memory.size and unsaid:
            return SourceError("the size of this memory is unknown: write dword ptr [...]", memory.column)
        if refused.reason == "feature":
            return SourceError(f"`{text}` does not exist in {self.mode}-bit code", self.column)
        registers = [o for o in self.operands if o.register and o.register.kind == "gpr"]
        if len({o.register.bits for o in registers if o.register}) > 1:
            return SourceError(f"`{text}`: registers of different widths do not fit together", registers[-1].column)
        column = self.operands[-1].column if self.operands else self.column
        shown = text.replace("riz*1 + ", "")  # how an absolute address is said to keystone
        if memory and (wide := self._too_wide(text)):
            return SourceError(f"{wide} has more than 32 bits: load it into a register first, then store that", column)
        control = next((o.text for o in self.operands if o.register and o.register.kind in ("control", "debug")), "")
        if memory and control:
            return SourceError(
                f"`{shown}`: {control} goes to and from a register only, as `mov rax, {control}`", column
            )
        return SourceError(f"no such form: `{shown}`", column)

    def _too_wide(self, text: str) -> str:
        """The immediate of this rendered instruction, if no instruction with memory takes as much; else ""."""
        last = text.rpartition(", ")[2]
        if not self.operands or self.operands[-1].kind != "imm" or not last.startswith(("0x", "-0x")):
            return ""
        return last if not -(1 << 31) <= int(last, 16) < 1 << 32 else ""


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
        word = stripped.split(None, 1)[0]
        rest = stripped[len(word) :]
        rest_column = column + len(word)
        word = word.lower()
    if hint := quirks.NOT_INSTRUCTIONS.get(word):
        raise SourceError(f"{word!r} is not known here; write {hint}", column)
    if word.startswith("%"):
        raise SourceError(f"{word!r}: AT&T syntax and NASM directives are not supported; write Intel syntax", column)
    if not _MNEMONIC.fullmatch(word):
        if found := _shared_macro(word):
            raise _not_included(*found, column)
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
    if word == "movsx" and len(operands) == 2 and _bits(operands[1]) == 32:
        word = "movsxd"  # the manual's name for this width; compilers write movsx
    if word == "xlatb" and operands:
        raise SourceError("xlatb takes no operands: it reads [rbx + al]", operands[0].column)
    if word == "nop" and operands:
        raise SourceError("keystone encodes nop with operands wrongly: use .p2align or .byte", column)
    if clash := _high_byte_clash(operands, mode):
        raise SourceError("ah, bh, ch and dh cannot be used together with r8-r15, spl-dil or a 64-bit register", clash)
    if operands and word in ("lgdtd", "lidtd") and mode == 16:
        prefixes.append(0x66)
        word = word[:-1]
    elif word in ("lgdt", "lidt", "sgdt", "sidt") and mode == 16 and operands and operands[0].size == "fword":
        prefixes.append(0x66)  # six bytes: all of the base counts, as GNU as has it
    return Instruction(word, column, mode, bytes(prefixes), operands, suggest)


def _bits(operand: Operand) -> int:
    """The width of a register or of memory that says it; 0 where it is unsaid."""
    return operand.register.bits if operand.register else {"byte": 8, "word": 16, "dword": 32}.get(operand.size, 0)


def _prefix(word: str, mode: int, column: int) -> int | None:
    if word in quirks.PREFIXES:
        return quirks.PREFIXES[word]
    if word in quirks.SIZE_PREFIXES:
        byte, modes = quirks.SIZE_PREFIXES[word]
        if mode not in modes:
            raise SourceError(f"{word} changes nothing in {mode}-bit code", column)
        return byte
    return None


def _shared_macro(word: str) -> tuple[str, str] | None:
    """A macro of this name in the files that come with pyvmm, and its file; asked only when something is wrong."""
    from pathlib import Path

    for folder in default_folders():
        for file in sorted(Path(folder).glob("*.inc")):
            if found := re.search(rf"^\.macro ({re.escape(word)})\b", read_text(file), re.M | re.I):
                return found[1], file.name
    return None


def _not_included(name: str, file: str, column: int) -> SourceError:
    return SourceError(f'there is a macro {name}, but its file is not included: %include "{file}"', column)


def near(word: str, candidates: Iterable[str]) -> list[str]:
    """Up to three names that look like `word`, best first."""
    from difflib import get_close_matches  # only a mistake pays for it

    return get_close_matches(word, list(candidates), n=3, cutoff=0.6)
