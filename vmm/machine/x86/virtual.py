# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest memory by guest-virtual address, through the page tables that a vCPU has loaded. It joins memory and paging.

Segment bases are the caller's affair: addresses are linear. Rights are not checked: the host may look anywhere.
"""

from __future__ import annotations

from vmm.abi.x86 import PAGE
from vmm.errors import GuestMemoryError
from vmm.kvm.state import Sregs
from vmm.machine.memory.slots import GuestMemory
from vmm.machine.x86.page_walk import Translation, walk


def translate(memory: GuestMemory, sregs: Sregs, va: int) -> Translation:
    """Walk the guest's tables for one address; a failure is a value too."""
    return walk(memory.read_u64, sregs.cr3, sregs.cr4, sregs.efer, sregs.cr0, va)


def _pieces(memory: GuestMemory, sregs: Sregs, va: int, size: int, doing: str) -> list[tuple[int, int]]:
    """(GPA, bytes) of each page of [va, va + size)."""
    pieces = []
    while size > 0:
        translation = walk(memory.read_u64, sregs.cr3, sregs.cr4, sregs.efer, sregs.cr0, va, keep=False)
        if translation.gpa is None:
            raise GuestMemoryError(f"{doing} guest-virtual {va:#x}: {translate(memory, sregs, va).failure}")
        count = min(size, PAGE - va % PAGE)
        pieces.append((translation.gpa, count))
        va, size = va + count, size - count
    return pieces


def read_virtual(memory: GuestMemory, sregs: Sregs, va: int, size: int) -> bytes:
    """`size` bytes from a guest-virtual address.

    Raises:
        GuestMemoryError: a page is not mapped, or not backed by a memslot.
    """
    pieces = _pieces(memory, sregs, va, size, "reading")
    return b"".join(memory.read(gpa, count) for gpa, count in pieces)


def write_virtual(memory: GuestMemory, sregs: Sregs, va: int, data: bytes) -> None:
    """Write at a guest-virtual address, also where the guest itself could only read.

    Raises:
        GuestMemoryError: a page is not mapped (then nothing is written), or not backed by a memslot.
    """
    done = 0
    for gpa, count in _pieces(memory, sregs, va, len(data), "writing"):
        memory.write(gpa, data[done : done + count])
        done += count
