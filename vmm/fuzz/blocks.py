# SPDX-License-Identifier: GPL-2.0-or-later
"""Where blocks of 64-bit code begin, and the numbers that it compares with: read from the code, which is not run.

Followed from its entries by jumps and calls to an address. What is jumped to by a register is not found: it has no
block of its own, and is run all the same. Data between functions is never taken for code.
"""

from __future__ import annotations

from collections.abc import Iterable

from vmm.asm.code_or_data import ENDS
from vmm.asm.disassembler import MAX_LENGTH, decode

MOST = 1 << 16
"""Instructions."""
WIDTHS = (1, 2, 4, 8)


def blocks(code: bytes, base: int, entries: Iterable[int]) -> tuple[frozenset[int], tuple[bytes, ...]]:
    """(addresses at which a block begins, immediate operands as little-endian words) of `code`, which is at `base`."""
    begins: set[int] = set()
    words: dict[bytes, None] = {}
    todo = [each for each in entries if base <= each < base + len(code)]
    seen: set[int] = set()
    while todo and len(seen) < MOST:
        at = todo.pop()
        begins.add(at)
        while base <= at < base + len(code) and at not in seen:
            seen.add(at)
            found = decode(code[at - base : at - base + MAX_LENGTH], at, 64)
            if found is None:
                break
            behind = at + found.size
            jumps = found.mnemonic.startswith(("j", "loop")) or found.mnemonic == "call"
            for part in found.parts:
                if part.kind == "imm" and jumps:
                    todo += [part.number] if base <= part.number < base + len(code) else []
                elif part.kind == "imm" and part.size in WIDTHS:
                    words[(part.number % (1 << 8 * part.size)).to_bytes(part.size, "little")] = None
            if found.mnemonic in ENDS:
                break
            if jumps:
                todo.append(behind)
                break
            at = behind
    return frozenset(begins), tuple(words)
