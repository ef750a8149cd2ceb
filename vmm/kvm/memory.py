# SPDX-License-Identifier: GPL-2.0-or-later
"""Host memory that backs guest memory: an anonymous mapping, and its address for KVM.

It knows mmap; it knows nothing of guest-physical addresses (that is vmm/machine/memory/slots.py).
"""

from __future__ import annotations

import mmap

from vmm.abi.x86 import PAGE
from vmm.errors import HostError, UsageError, exhausted
from vmm.kvm._kvm import ffi, lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python names it from 3.12 on; x86 Linux's value


NULL = ffi.NULL


class Touched:
    """Which pages of a mapping one of us has written, for who has to know (KVM's own log knows the guest's writes): a
    byte for each page, and one that says whether any is marked. C reads and marks them too (_queue.c, _snapshot.c).
    """

    def __init__(self, size: int) -> None:
        self.pages: Any = ffi.new("__u8[]", size // PAGE)
        self.marked: Any = ffi.new("__u8 *")

    def mark(self, start: int, size: int) -> None:
        """These bytes, from the mapping's first on, were written."""
        if size > 0:
            self.marked[0] = 1
            for page in range(start // PAGE, (start + size - 1) // PAGE + 1):
                self.pages[page] = 1


class Mapping:
    """A private anonymous mapping of `size` bytes (a multiple of 4096), zero until touched; with `fd`, of that file.

    The pages are not reserved: a 1 GiB guest costs what it touches.

    Raises:
        UsageError: the size is not a positive multiple of 4096.
        HostError: the host has no room for it.
    """

    def __init__(self, size: int, *, shared: bool = False, fd: int = -1) -> None:
        if size <= 0 or size % PAGE:
            raise UsageError(f"a memory of {size} bytes: give a positive multiple of {PAGE}")
        kind = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
        try:
            self.bytes = mmap.mmap(fd, size, flags=kind | (mmap.MAP_ANONYMOUS if fd < 0 else 0) | MAP_NORESERVE)
        except OSError as error:
            raise exhausted(f"mapping {size} bytes of guest memory", "mmap", error.errno or 0) from error
        except (OverflowError, ValueError) as error:
            raise HostError(
                f"mapping {size} bytes of guest memory: mmap: {error}", hint="a smaller --memory"
            ) from error
        # The view pins the mapping: mmap.close() refuses while it lives, so KVM can never write into freed memory.
        self._view = ffi.from_buffer(self.bytes)
        self.size = size
        self.droppable = not shared and fd < 0
        """Whether MADV_DONTNEED makes zeros of its pages (madvise(2)): private, and of no file."""

    @classmethod
    def unmapped(cls, size: int) -> Mapping:
        """One that was closed."""
        made = cls(size)
        made.close()
        return made

    users = 0  # VMs with a memslot over it
    held_back: set[int] | None = None
    """Where pages are supplied on demand, those that are there. Who touches another one of them waits with the GIL, for
    ever (userfaultfd.py)."""
    touched: Touched | None = None
    """Where who writes these bytes says so; nobody asks, as a rule."""

    @property
    def start(self) -> Any:
        """The first byte, as C takes a pointer to it.

        Raises:
            HostError: it has been unmapped.
        """
        if self._view is None:
            raise HostError("this guest memory has been unmapped; it went with the VM that used it")
        return self._view

    @property
    def hva(self) -> int:
        """The host virtual address of the first byte. Errors as `start`."""
        return int(ffi.cast("uintptr_t", self.start))

    def watch(self) -> Touched:
        """Mark from now on which pages are written by us; the same for each who asks."""
        if self.touched is None:
            self.touched = Touched(self.size)
        return self.touched

    def refault(self, offset: int, size: int) -> None:
        """Take whole pages away from whoever has them mapped, KVM's tables for guests included, and give them back:
        their bytes stay, and the next access of each finds no translation. mprotect(2), twice.

        Raises:
            HostError: the host cannot.
        """
        done = lib.vmm_refault(ffi.cast("void *", self.hva + offset), size)
        if done < 0:
            raise exhausted(f"taking {size} bytes of guest memory away for a moment", "mprotect", -done)

    def close(self) -> None:
        """Unmap. Idempotent.

        Raises:
            UsageError: a VM that is open has a memslot over it; the guest would write into whatever comes next.
        """
        if self.users:
            raise UsageError("this memory is a guest's; close the VM, and it goes with it")
        if self._view is not None:
            ffi.release(self._view)
            self._view = None
            self.bytes.close()


LEFT = 16 << 20  # bytes of a mapping that is kept: a limit of address space (RLIMIT_AS) counts it
_left: list[Mapping] = []


def leave(mapping: Mapping) -> None:
    """Give back the pages of a plain VM's memory, and keep the mapping for the next one of this process: to map and to
    unmap, with the Python around them, is a fiftieth of a machine's life (row lifecycle). One is kept.
    """
    if mapping.size > LEFT or _left:
        mapping.close()
        return
    try:
        mapping.bytes.madvise(mmap.MADV_DONTNEED)  # zeros, as if it were new
    except OSError:
        mapping.close()
    else:
        _left.append(mapping)


def left_or_new(size: int) -> Mapping:
    """A mapping of zeros for a plain VM. Errors as Mapping."""
    try:
        mapping = _left.pop()
    except IndexError:
        return Mapping(size)
    if mapping.size == size:
        return mapping
    mapping.close()
    return Mapping(size)
