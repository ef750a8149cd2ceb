# SPDX-License-Identifier: GPL-2.0-or-later
"""capstone, behind two functions: bytes to instructions, and the instructions around an address.

The only module that imports capstone. No byte is ever lost: what does not decode becomes a `.byte` row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from vmm.asm.program import Line, Program
from vmm.errors import HostError

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
            f"disassembling needs capstone, which cannot be imported: {e}\n  try: pip install capstone"
        ) from None
    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    return capstone.Cs(capstone.CS_ARCH_X86, modes[bits])


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
            rows.append(Insn(where, code[start : start + size], f"{mnemonic} {operands}".rstrip()))
            at = start + size
        if at < len(code) and (count is None or len(rows) < count):
            rows.append(Insn(address + at, code[at : at + 1], f".byte {code[at]:#04x}"))
            at += 1
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
        rows = _before_by_decoding(read, rip, before, bits)
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
