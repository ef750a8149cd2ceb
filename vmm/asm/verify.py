# SPDX-License-Identifier: GPL-2.0-or-later
"""What was assembled is what was written: bytes are decoded again and compared with the operands before they count.

Compared are the mnemonic, every register, the width of memory, segment, base, index, scale and displacement, immediates
and targets, prefixes, and that nothing is left over. Other names of the same thing, and what capstone cannot show, are
the tables of vmm/asm/synonyms.py. It encodes nothing.
"""

from __future__ import annotations

import re

from vmm.asm import synonyms
from vmm.asm.disassembler import Decoded, Part, decode
from vmm.asm.expression import Lookup, SourceError
from vmm.asm.verify_operands import STRINGS, Differs, first, said

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmm.asm.instruction import Instruction

_SEGMENTS = frozenset((0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65))
_LEGACY = _SEGMENTS | {0x66, 0x67, 0xF0, 0xF2, 0xF3}
_NOT_BEFORE_VEX = frozenset((0x66, 0xF0, 0xF2, 0xF3))
_BRACES = re.compile(r"\{[^}]*\}")


def check(written: Instruction, code: bytes, lookup: Lookup, address: int) -> None:
    """Raises SourceError where `code`, which stands at `address`, is another instruction than `written`."""
    exact = synonyms.EXACT.get((written.mnemonic, written.mode))
    if exact is not None and not written.operands and written.prefixes + exact == code:
        return
    found, code = _decoded(written, code, address)
    try:
        if 0xF0 in written.prefixes:
            _check_lock(written)
        if exact is not None:
            raise Differs("the manual has other bytes")
        if found is None:
            raise Differs("which cannot be decoded")
        _compare(written, found, code, lookup, address)
    except Differs as e:
        shown = f"`{found.text}` ({code.hex(' ')})" if found else code.hex(" ")
        advice = synonyms.ADVICE.get(written.mnemonic, "write another form, or the bytes with .byte")
        raise SourceError(
            f"{written.mnemonic} would come out as {shown}: {e}; {advice}", e.column or written.column
        ) from None


def _decoded(written: Instruction, code: bytes, address: int) -> tuple[Decoded | None, bytes]:
    """The instruction in pieces, and the bytes that were decoded.

    capstone 5 takes the 66 of an opcode for a width in 16-bit code. Those instructions have the same bytes in 32-bit
    code, but for the width of addresses: they are decoded there, with 67 where it was not, and without where it was.
    """
    found = decode(code, address, written.mode)
    if written.mode != 16 or not _is_vector(written):
        return found, code
    other = code.replace(b"\x67", b"", 1) if 0x67 in _prefixes(code) else b"\x67" + code
    return decode(other, address, 32), other


def _is_vector(written: Instruction) -> bool:
    return written.mnemonic in synonyms.PREFIXED or any(
        row.register and row.register.kind in ("vector", "mmx", "mask") for row in written.operands
    )


def _prefixes(code: bytes) -> bytes:
    """The legacy prefixes before the opcode."""
    at = next((at for at, byte in enumerate(code) if byte not in _LEGACY), len(code))
    return code[:at]


def _after_prefixes(code: bytes) -> bytes:
    return code[len(_prefixes(code)) :]


def _compare(written: Instruction, found: Decoded, code: bytes, lookup: Lookup, address: int) -> None:
    if found.size != len(code):
        raise Differs(f"{len(code) - found.size} bytes are left over")
    operands = written.operands
    ours, number = synonyms.pseudo(written.mnemonic) or (written.mnemonic, None)
    ours = synonyms.name(ours, operands, written.mode, 0x66 in written.prefixes)
    if 0xF3 in written.prefixes:
        ours = synonyms.REPEATED.get(ours, ours)
    theirs, predicate = synonyms.pseudo(found.mnemonic) or (found.mnemonic, None)
    theirs = synonyms.SAME.get(theirs, theirs)
    if _is_exchange(written, code):
        return
    if ours in STRINGS and operands and theirs[:-1] == ours:
        theirs = ours  # the width stands in the operands
    if written.mode != 64 and synonyms.WIDE.get(theirs) == ours and _after_prefixes(code)[2] & 0x80:
        theirs = ours
    if ours != theirs:
        raise Differs(f"that is {found.mnemonic}")
    row = operands[0].register if ours in synonyms.IMPLIED - {"skinit"} and operands else None
    if row and row.kind == "gpr" and row.bits != found.address_bits:
        raise Differs(f"the address has {found.address_bits} bits; write addr32 or addr16 before it, and no operand")
    _check_far(written, found, code)
    _check_prefixes(written, found, code)
    _check_decorations(written, found, code)
    want = [operand for operand in operands if operand.kind != "reg" or operand.text]
    have = [part for part in found.parts if part.register[:1] != "k" or "{" + part.register + "}" not in _braces(found)]
    if predicate is not None:
        have.append(Part("imm", 1, number=code[-1]))
    if number is not None and have.pop().number != number:
        raise Differs("the comparison is another")
    have = said(ours, want, have, found)
    if len(want) != len(have):
        raise Differs(f"it has {len(have)} operands, {len(want)} were written")
    end = address + len(code)
    problem = first(written, found, list(zip(want, have, strict=True)), lookup, end)
    if problem and ours in synonyms.SYMMETRIC:
        reverse = list(zip(want, reversed(have), strict=True))
        problem = problem if first(written, found, reverse, lookup, end) else None
    if problem:
        raise problem


def _is_exchange(written: Instruction, code: bytes) -> bool:
    """`xchg ax, ax` is shown as a NOP, which it is; `xchg eax, eax` is none in 64-bit code: it clears half of RAX."""
    names = {operand.text for operand in written.operands}
    widths = {"ax", "rax"} if written.mode == 64 else {"ax", "eax"}
    return written.mnemonic == "xchg" and len(names) == 1 and names < widths and code[-1] == 0x90


def _braces(found: Decoded) -> list[str]:
    return [text.replace(" ", "") for text in _BRACES.findall(found.text)]


def _check_decorations(written: Instruction, found: Decoded, code: bytes) -> None:
    asked = sorted(_BRACES.findall("".join(operand.suffix for operand in written.operands)))
    if asked != sorted(_braces(found)):
        raise Differs("the decorations in { } are others")
    if (
        _after_prefixes(code)[0] == 0x62
        and found.mnemonic[0] == "v"
        and not asked
        and found.mnemonic in synonyms.SHORTER
    ):
        names = [part.register for part in found.parts] + [part.base for part in found.parts]
        if not any(name[:1] in ("k", "z") or (name[1:3] == "mm" and int(name[3:]) > 15) for name in names):
            raise Differs("it asks for AVX-512, which the text does not")


def _check_far(written: Instruction, found: Decoded, code: bytes) -> None:
    """Near and far transfers have one name; a far one through memory also has the width of its offset."""
    if found.mnemonic not in ("jmp", "call", "ljmp", "lcall"):
        return
    operand = written.operands[0]
    if written.mode == 16 and operand.kind == "mem" and operand.size == "dword" and not operand.distance:
        raise Differs("dword ptr here is a far pointer to some assemblers", operand.column)
    far = written.mnemonic[0] == "l" or operand.kind == "far" or (
        operand.kind == "mem" and (operand.distance == "far" or operand.size in ("fword", "tbyte"))
    )  # fmt: skip
    through = found.opcode[0] == 0xFF
    if far != (found.modrm >> 3 & 7 in (3, 5) if through else found.opcode[0] in (0x9A, 0xEA)):
        raise Differs("near and far are confused")
    if far and through:
        prefixes = code[: code.index(0xFF)]
        rex = written.mode == 64 and bool(prefixes) and prefixes[-1] & 0xF8 == 0x48
        bits = 64 if rex else (16 if (written.mode == 16) != (0x66 in prefixes) else 32)
        want = {"dword": 16, "fword": 32, "tbyte": 64}.get(operand.size)
        if want not in (None, bits) and 0x66 not in written.prefixes:
            raise Differs(f"the offset has {bits} bits")


def _check_lock(written: Instruction) -> None:
    changed = written.operands if written.mnemonic == "xchg" else written.operands[:1]
    if written.mnemonic not in synonyms.LOCKABLE or not any(operand.kind == "mem" for operand in changed):
        raise Differs("lock stands only before an instruction that changes memory")


def _check_prefixes(written: Instruction, found: Decoded, code: bytes) -> None:
    """Nothing stands before the opcode that neither the text nor the operands ask for."""
    present = bytearray(_prefixes(code))
    for byte in written.prefixes:
        if byte not in present:
            raise Differs(f"the prefix {byte:02x} is missing")
        present.remove(byte)
    rest = code[len(_prefixes(code)) :]
    if rest[0] in (0xC4, 0xC5, 0x62) and found.mnemonic[0] in "vk" and _NOT_BEFORE_VEX & set(written.prefixes):
        raise Differs("no processor takes that prefix before VEX or EVEX")
    if found.mnemonic in synonyms.NEEDS_REP and 0xF3 not in written.prefixes:
        raise Differs("it wants rep before it")
    opcode = rest[1:] if written.mode == 64 and rest[0] & 0xF0 == 0x40 else rest
    repeats = next((byte for byte in present if byte in (0xF2, 0xF3)), 0)
    if repeats and opcode[0] != 0x0F and found.mnemonic != "pause":  # behind 0F they choose the instruction
        raise Differs(f"the prefix {repeats:02x} was not asked for")
    if found.lock and found.lock in present:
        raise Differs(f"the prefix {found.lock:02x} was not asked for")
    segments = [byte for byte in present if byte in _SEGMENTS]
    if segments and not any(operand.kind == "mem" for operand in written.operands):
        raise Differs(f"the prefix {segments[0]:02x} was not asked for")
    if 0x66 in present and found.mnemonic not in synonyms.FLAGS_66:
        at = code.index(0x66)
        mode = 32 if written.mode == 16 and _is_vector(written) else written.mode
        without = decode(code[:at] + code[at + 1 :], 0, mode)
        same = decode(code, 0, mode)
        if without and same and without.text == same.text:
            raise Differs("the prefix 66 changes a width that the text does not show")
