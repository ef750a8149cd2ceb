# SPDX-License-Identifier: GPL-2.0-or-later
"""String instructions with operands (`movs byte ptr [rdi], byte ptr [rsi]`), encoded here.

keystone 0.9.2 crashes the process on some of them and prints warnings to stderr on others. The operands say only the
width, the width of the address and the source's segment: Intel SDM volume 2, MOVS, CMPS, STOS, LODS, SCAS, INS, OUTS.
"""

from __future__ import annotations

from vmm.asm.expression import SourceError
from vmm.asm.operands import Operand

# stem -> (opcode of the byte form, operands: d is [rdi], s is [rsi], a the accumulator, x is dx)
_STEMS = {"movs": (0xA4, "ds"), "cmps": (0xA6, "sd"), "stos": (0xAA, "da"), "lods": (0xAC, "as"), "scas": (0xAE, "ad"),
          "ins": (0x6C, "dx"), "outs": (0x6E, "xs")}  # fmt: skip
_SIZES = {"byte": 8, "word": 16, "dword": 32, "qword": 64}
_SUFFIXED = {f"{stem}{suffix}" for stem in _STEMS for suffix in "bwdq"}
_SEGMENTS = {"es": 0x26, "cs": 0x2E, "ss": 0x36, "ds": 0x3E, "fs": 0x64, "gs": 0x65}


def is_string(mnemonic: str, operands: list[Operand]) -> bool:
    """Whether this module encodes it: a string instruction with operands, which are not those of the SSE namesakes."""
    if not operands or any(o.register and o.register.kind == "vector" for o in operands):
        return False
    return mnemonic in _STEMS or mnemonic in _SUFFIXED


def encode(mnemonic: str, column: int, operands: list[Operand], mode: int) -> bytes:
    """The bytes. Raises SourceError for operands that the instruction does not have."""
    if mnemonic not in _STEMS:
        raise SourceError(f"{mnemonic} takes no operands: its letter says the width", column)
    opcode, shape = _STEMS[mnemonic]
    stosb_style = len(operands) == 1 and "a" in shape  # `stos byte ptr [rdi]`, the accumulator unsaid
    wanted = shape.replace("a", "") if stosb_style else shape
    if len(operands) != len(wanted):
        raise SourceError(f"{mnemonic} takes {len(shape)} operands", column)
    sizes = set()
    prefixes = bytearray()
    for operand, role in zip(operands, wanted, strict=True):
        if role in "ds":
            prefixes += _pointer(mnemonic, operand, role, mode)
            if operand.size:
                sizes.add(_SIZES.get(operand.size, 0))
        elif operand.text not in ({"al", "ax", "eax", "rax"} if role == "a" else {"dx"}):
            raise SourceError(f"{mnemonic}: expected {'the accumulator' if role == 'a' else 'dx'}", operand.column)
        elif operand.register and role == "a":
            sizes.add(operand.register.bits)
    if len(sizes) != 1 or sizes & {0} or (sizes == {64} and (mode != 64 or mnemonic in ("ins", "outs"))):
        raise SourceError(f"{mnemonic}: write one width: {mnemonic} byte ptr ...", operands[0].column)
    bits = sizes.pop()
    if bits == 8:
        return bytes(dict.fromkeys(prefixes)) + bytes((opcode,))
    if (bits == 16 and mode != 16) or (bits == 32 and mode == 16):
        prefixes.append(0x66)
    wide = b"\x48" if bits == 64 else b""
    return bytes(dict.fromkeys(prefixes)) + wide + bytes((opcode + 1,))


def _pointer(mnemonic: str, operand: Operand, role: str, mode: int) -> bytes:
    """The prefixes that [rdi] or [rsi] asks for."""
    name = "di" if role == "d" else "si"
    register = operand.terms[0][0] if len(operand.terms) == 1 else None
    if operand.kind != "mem" or operand.node or register is None or register.name[-2:] != name or operand.terms[0][1]:
        raise SourceError(f"{mnemonic}: expected [{'r' if mode == 64 else ''}{name}]", operand.column)
    prefixes = bytearray()
    if register.bits != mode:
        prefixes.append(0x67)
    if operand.segment and operand.segment != ("es" if role == "d" else "ds"):
        if role == "d":
            raise SourceError(f"{mnemonic}: the destination is always in es", operand.column)
        prefixes.append(_SEGMENTS[operand.segment])
    return bytes(prefixes)
