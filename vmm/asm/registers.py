# SPDX-License-Identifier: GPL-2.0-or-later
"""The names of the x86 registers as an assembler spells them: class, number, and the modes that have them.

Source: Intel SDM volume 1, section 3.4 and volume 2, section 2.2.1 (REX). Pure data.
"""

from __future__ import annotations

from vmm.base.light import NamedTuple


def words(text: str) -> list[str]:
    """The words of a table."""
    return text.split()


class Register(NamedTuple):
    """`kind` is one of gpr, segment, control, debug, ip, fpu, mmx, vector, mask, bound; `bits` its width."""

    name: str
    kind: str
    bits: int
    number: int
    only64: bool


def _rows() -> list[Register]:
    legacy = ("ax", "cx", "dx", "bx", "sp", "bp", "si", "di")
    found = [
        Register(name, "gpr", 8, n, False) for n, name in enumerate(("al", "cl", "dl", "bl", "ah", "ch", "dh", "bh"))
    ]
    found += [Register(name, "gpr", 8, n, True) for n, name in enumerate(("spl", "bpl", "sil", "dil"), 4)]
    for number, name in enumerate(legacy):
        found.append(Register(name, "gpr", 16, number, False))
        found.append(Register(f"e{name}", "gpr", 32, number, False))
        found.append(Register(f"r{name}", "gpr", 64, number, True))
    for number in range(8, 16):
        for suffix, bits in (("b", 8), ("w", 16), ("d", 32), ("", 64)):
            found.append(Register(f"r{number}{suffix}", "gpr", bits, number, True))
    found += [Register(name, "segment", 16, n, False) for n, name in enumerate(("es", "cs", "ss", "ds", "fs", "gs"))]
    found += [Register(f"cr{n}", "control", 64, n, n > 7) for n in range(16)]
    found += [Register(f"dr{n}", "debug", 64, n, n > 7) for n in range(16)]
    found += [Register("rip", "ip", 64, 0, True), Register("eip", "ip", 32, 0, True)]
    found += [Register("st", "fpu", 80, 0, False)]
    found += [Register(f"mm{n}", "mmx", 64, n, False) for n in range(8)]
    for name, bits in (("xmm", 128), ("ymm", 256), ("zmm", 512)):
        found += [Register(f"{name}{n}", "vector", bits, n, n > 7) for n in range(32)]
    found += [Register(f"k{n}", "mask", 64, n, False) for n in range(8)]
    found += [Register(f"bnd{n}", "bound", 128, n, False) for n in range(4)]
    return found


REGISTERS: dict[str, Register] = {row.name: row for row in _rows()}
GPR64 = {row.number: row.name for row in REGISTERS.values() if row.kind == "gpr" and row.bits == 64}
GPR32 = {row.number: row.name for row in REGISTERS.values() if row.kind == "gpr" and row.bits == 32}
