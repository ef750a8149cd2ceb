# SPDX-License-Identifier: GPL-2.0-or-later
"""capstone, behind three functions: bytes to instructions, those around an address, and one taken to pieces.

The only module that imports capstone. No byte is ever lost: what does not decode becomes a `.byte` row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from vmm.asm import newer
from vmm.asm.program import Line, Program
from vmm.errors import HostError

FAR = 4096  # bytes behind a symbol that are decoded to find out where instructions begin
MAX_LENGTH = 15  # of one x86 instruction, bytes (Intel SDM volume 2, section 2.3.11)

Reader = Callable[[int, int], bytes]  # (address, size) -> the bytes there, fewer where memory ends


class Insn(NamedTuple):
    """One instruction, or one `.byte` row; `bytes` are those at `address`."""

    address: int
    bytes: bytes
    text: str


@functools.cache
def _engine(bits: int) -> Any:
    try:
        import capstone
    except ImportError as e:
        raise HostError(
            f"disassembling needs capstone, which cannot be imported: {e}", hint="pip install capstone"
        ) from None
    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    return capstone.Cs(capstone.CS_ARCH_X86, modes[bits])


class Part(NamedTuple):
    """One operand as decoded. `kind` is reg, imm or mem; `size` in bytes; a memory operand has the last five fields."""

    kind: str
    size: int
    register: str = ""
    number: int = 0  # the immediate, or the displacement
    segment: str = ""  # as overridden; "" where nothing is
    base: str = ""
    second: str = ""  # the index register
    scale: int = 1


class Decoded(NamedTuple):
    """One instruction taken to pieces. `text` is all of it, `lock` an F0, F2 or F3 that is no part of the opcode."""

    size: int
    mnemonic: str
    text: str
    lock: int
    address_bits: int
    modrm: int
    opcode: bytes
    parts: tuple[Part, ...]


@functools.cache
def _detailed(bits: int) -> Any:
    import capstone

    _engine(bits)  # says what is missing
    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    engine = capstone.Cs(capstone.CS_ARCH_X86, modes[bits])
    engine.detail = True
    return engine


def decode(code: bytes, address: int, bits: int) -> Decoded | None:
    """The first instruction of `code`, in pieces; None when capstone does not know it. Raises HostError."""
    found = next(iter(_detailed(bits).disasm(code, address, 1)), None)
    if found is None:
        return None
    name = found.reg_name
    parts = []
    for operand in found.operands:
        if operand.type == 1:  # X86_OP_REG, X86_OP_IMM, X86_OP_MEM: part of capstone's ABI
            parts.append(Part("reg", operand.size, name(operand.reg)))
        elif operand.type == 2:
            parts.append(Part("imm", operand.size, number=operand.imm))
        else:
            memory = operand.mem
            segment, base, second = (
                name(each) or "" if each else "" for each in (memory.segment, memory.base, memory.index)
            )
            parts.append(Part("mem", operand.size, "", memory.disp, segment, base, second, memory.scale))
    text = f"{found.mnemonic} {found.op_str}".rstrip()
    mnemonic = found.mnemonic.split()[-1]
    return Decoded(found.size, mnemonic, text, found.prefix[0], found.addr_size * 8, found.modrm,
                   bytes(found.opcode), tuple(parts))  # fmt: skip


def _newer(engine: Any, code: bytes, address: int, bits: int) -> Insn | None:
    """The instruction at the start of `code` where capstone would not know it or would cut it."""
    if code[:1] == b"\x0f" and code[1:2] and code[1] in newer.UNDEFINED:
        like = next(engine.disasm_lite(newer.IMUL + code[2:], address, 1), None)
        if like is None:  # it ends before its ModRM does
            return Insn(address, code[:1], f".byte {code[0]:#04x}")
        return Insn(address, code[: like[1]], f"{newer.UNDEFINED[code[1]]} {like[3]}")
    found = newer.match(code)
    if found is None or (found[1].startswith("senduipi") and bits != 64):
        return None
    return Insn(address, code[: found[0]], found[1])


def disassemble(code: bytes, address: int, *, count: int | None = None, bits: int = 64) -> list[Insn]:
    """The instructions of `code`, which stands at `address`; at most `count`. `bits` is 16, 32 or 64.

    Raises HostError when capstone is missing, ValueError for other `bits`.
    """
    if bits not in (16, 32, 64):
        raise ValueError(f"bits={bits}: 16, 32 or 64")
    engine = _engine(bits)
    rows: list[Insn] = []
    at = 0
    while at < len(code) and (count is None or len(rows) < count):
        left = 0 if count is None else count - len(rows)
        for where, size, mnemonic, operands in engine.disasm_lite(code[at:], address + at, left):
            start = where - address
            if code[start] in newer.FIRST and (other := _newer(engine, code[start : start + MAX_LENGTH], where, bits)):
                rows.append(other)
                at = start + len(other.bytes)
                break  # what follows is read anew
            rows.append(Insn(where, code[start : start + size], f"{mnemonic} {operands}".rstrip()))
            at = start + size
        else:
            if at < len(code) and (count is None or len(rows) < count):
                other = _newer(engine, code[at : at + MAX_LENGTH], address + at, bits)
                rows.append(other or Insn(address + at, code[at : at + 1], f".byte {code[at]:#04x}"))
                at += len(rows[-1].bytes)
    return rows


def around(
    code: bytes | Reader,
    rip: int,
    *,
    base: int = 0,
    program: Program | None = None,
    before: int = 4,
    after: int = 4,
    bits: int = 64,
) -> list[Insn]:
    """A few instructions before `rip`, the one at it, and a few after; the row at `rip` is there if memory is.

    `code` is bytes that stand at `base`, or a reader of guest memory. x86 cannot be read backwards: the starts of the
    instructions before come from `program` where its bytes are still in memory, else from the nearest decoding that
    meets `rip` exactly.
    """
    read = _reader(code, base) if isinstance(code, bytes) else code
    rows = _before_by_lines(read, rip, before, bits, program) if program else []
    if not rows:
        begun = _before_by_begin(read, rip, before, bits, program) if program and before else None
        rows = _before_by_decoding(read, rip, before, bits) if begun is None else begun
    return rows + disassemble(read(rip, MAX_LENGTH * (after + 1)), rip, count=after + 1, bits=bits)


def _reader(code: bytes, base: int) -> Reader:
    def read(address: int, size: int) -> bytes:
        start = address - base
        return code[max(start, 0) : max(start + size, 0)]

    return read


def _before_by_lines(read: Reader, rip: int, before: int, bits: int, program: Program) -> list[Insn]:
    """Rows of the statements that end where the next begins, the last at `rip`; [] when memory no longer agrees."""
    if (here := program.line_at(rip)) is None:
        return []
    lines = [line for line in program.lines if line.address <= rip][-(before + 1) :]
    rows: list[Insn] = []
    for line in lines:
        size = min(line.size, rip - line.address)
        data = read(line.address, size)
        start = line.address - program.base
        if len(data) != size:
            return []
        if line.text.startswith(".") and data == program.code[start : start + size]:
            rows += _as_written(line, data)
        elif line is not here or rip == line.address:
            rows += disassemble(data, line.address, bits=bits)
        else:  # rip is inside an instruction: the bytes before it belong to no row of their own
            rows += [Insn(line.address, data, f"{line.text}  (rip is inside)")]
    return rows[-before:] if before else []


def _as_written(line: Line, data: bytes) -> list[Insn]:
    return [Insn(line.address, data[:8], line.text)] if data else []


def _before_by_begin(read: Reader, rip: int, before: int, bits: int, program: Program) -> list[Insn] | None:
    """From where code surely begins, a symbol or what was loaded; before that there is none. None where that is far, or
    does not lead to `rip`.
    """
    for place, most in ((program.symbolize(rip), FAR), (program.place_at(rip), MAX_LENGTH * before)):
        _, plus, offset = (place or "").rpartition("+")
        size = int(offset, 16) if plus else -1
        if 0 <= size <= most:
            rows = disassemble(read(rip - size, size), rip - size, bits=bits)
            end = rows[-1].address + len(rows[-1].bytes) if rows else rip
            if end == rip and not any(row.text.startswith(".byte") for row in rows):
                return rows[-before:]
    return None


def _before_by_decoding(read: Reader, rip: int, before: int, bits: int) -> list[Insn]:
    """The longest clean decoding that ends at `rip`, from as far back as needed."""
    best: list[Insn] = []
    span = min(MAX_LENGTH * before, rip)
    data = read(rip - span, span)
    while span and len(data) < span:  # memory begins somewhere in between
        span -= 1
        data = read(rip - span, span)
    # The farthest start wins: a wrong one meets the right stream after a few instructions, so a long run is right.
    for offset in range(span):
        rows = disassemble(data[offset:], rip - span + offset, bits=bits)
        bad = sum(row.text.startswith(".byte") for row in rows)
        if rows and rows[-1].address + len(rows[-1].bytes) == rip and not bad and len(rows) >= before:
            return rows[-before:]
        if not bad and len(rows) > len(best):
            best = rows
    return best[-before:] if before else []
