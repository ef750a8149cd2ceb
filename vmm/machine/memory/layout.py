# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest-physical map: which bytes mean what before a payload runs its first instruction. Plain numbers, no I/O.

`MAP` is the only copy of these addresses: page tables take their attributes from it, the assembler its constants, a
post-mortem the name of the place that was touched. It knows nothing of page-table or descriptor formats.
"""

from __future__ import annotations

import os

from vmm.abi.x86 import LARGE_PAGE, PAGE
from vmm.base.light import cache, lru_cache
from vmm.base.record import Record
from vmm.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1 << 30
FOUR_GIB = 4 * GIB


class Region(Record):
    """`size` bytes from guest-physical `base`. The flags are the rights that the boot page tables give.

    A region with `ram=False` has no memory of ours behind it: a device or KVM itself answers there.
    """

    name: str
    base: int
    size: int
    mapped: bool
    writable: bool
    user: bool
    executable: bool
    what: str
    ram: bool = True

    @property
    def end(self) -> int:
        """First address after the region."""
        return self.base + self.size

    def __contains__(self, address: int) -> bool:
        return self.base <= address < self.end


MAX_CPUS = 1020
"""As many TSS descriptors as the gdt region holds: (0x4000 - 0x40) / 16."""

CPU_BLOCK_SIZE = 0x8000


def _row(name: str, base: int, size: int, rights: str, what: str, *, ram: bool = True) -> Region:
    """A row from letters: r mapped, w writable, u from ring 3, x executable; "-" is not mapped."""
    return Region(name, base, size, "r" in rights, "w" in rights, "u" in rights, "x" in rights, what, ram)


# fmt: off
MAP: tuple[Region, ...] = (
    _row("null",         0x00_0000,   0x1000, "-",   "a null pointer faults here"),
    _row("gdt",          0x00_1000,   0x4000, "rw",  "segment descriptors; TSS descriptors from 0x40"),
    _row("idt",          0x00_5000,   0x1000, "rw",  "256 gates, for payloads to replace"),
    _row("gates",        0x00_6000,   0x1000, "rx",  "256 stubs that report their vector to the host"),
    _row("trampoline",   0x00_8000,   0x1000, "rwx", "where a SIPI starts a second vCPU, in real mode"),
    _row("results",      0x00_9000,   0x1000, "rw",  "256 slots: u64 value, u8 written, 7 bytes spare"),
    _row("page_tables",  0x00_a000, 0x1_6000, "rw",  "the boot tables first, then room for more"),
    _row("code",         0x02_0000, 0x6_0000, "rwx", "the payload, text and data"),
    _row("user",         0x08_0000, 0x2_0000, "rwu", "stack and scratch of ring 3"),
    _row("data",         0x0a_0000, 0x5_f000, "rw",  "free for payloads: shared structures, buffers"),
    _row("guard",        0x0f_f000,   0x1000, "-",   "a stack overflow of vCPU 0 faults here"),
    _row("cpus",         0x10_0000, MAX_CPUS * CPU_BLOCK_SIZE, "rw", "a block per vCPU; RAM after the last is free"),
    _row("scratch_mmio", 0xd000_0000, 0x1000, "rw",  "a device of plain registers to practise on", ram=False),
    _row("virtio_mmio",  0xd100_0000, 0x2_0000, "rw", "virtio devices, a page of registers for each", ram=False),
    _row("ioapic",       0xfec0_0000, 0x1000, "rw",  "the I/O APIC, where KVM provides one", ram=False),
    _row("lapic",        0xfee0_0000, 0x1000, "rw",  "each vCPU's own local APIC", ram=False),
    _row("identity_map", 0xfffb_c000, 0x1000, "rw",  "KVM_SET_IDENTITY_MAP_ADDR: a page KVM keeps on VMX", ram=False),
    _row("kvm_tss",      0xfffb_d000, 0x3000, "rw",  "KVM_SET_TSS_ADDR: three pages KVM keeps on VMX", ram=False),
)

# The same kind of row, with offsets into a per-vCPU block in place of addresses. The guard lies last: it stops the
# boot stack of the *next* vCPU; that of vCPU 0 is stopped by the region `guard`.
CPU_BLOCK: tuple[Region, ...] = (
    _row("boot_stack",   0x0000, 0x2000, "rw", "RSP starts at its end"),
    _row("ring0_stack",  0x2000, 0x1000, "rw", "RSP0: an interrupt out of ring 3 lands here"),
    _row("ist1_stack",   0x3000, 0x1000, "rw", "IST1: #DF and #MC, which must not trust the current stack"),
    _row("tss",          0x4000, 0x3000, "rw", "104 bytes, the 8 KiB I/O bitmap, one byte of ones"),
    _row("cpu_guard",    0x7000, 0x1000, "-",  "a stack overflow of the next vCPU faults here, in the first 2 MiB"),
)
# fmt: on

REGIONS: dict[str, Region] = {region.name: region for region in MAP}
_PART: dict[str, Region] = {part.name: part for part in CPU_BLOCK}

USER_STACK_TOP = REGIONS["user"].end
RESULT_SLOT_SIZE = 16
LOW_RAM_END = REGIONS["scratch_mmio"].base
"""Below 4 GiB, RAM stops here and devices begin; what does not fit continues at 4 GiB."""


class CpuBlock(Record):
    """Addresses inside the block of one vCPU. A stack is given by its top: the value that RSP takes, 4 KiB aligned."""

    index: int
    base: int

    @property
    def boot_stack_top(self) -> int:
        return self.base + _PART["boot_stack"].end

    @property
    def ring0_stack_top(self) -> int:
        return self.base + _PART["ring0_stack"].end

    @property
    def ist1_stack_top(self) -> int:
        return self.base + _PART["ist1_stack"].end

    @property
    def tss(self) -> int:
        return self.base + _PART["tss"].base


@cache
def cpu_block(index: int) -> CpuBlock:
    """The block of the vCPU with this index: 0, 1, 2, ... in order of creation, whatever its APIC id is."""
    if not 0 <= index < MAX_CPUS:
        raise UsageError(f"vCPU index {index} is outside the guest map, which has blocks 0 to {MAX_CPUS - 1}")
    return CpuBlock(index, REGIONS["cpus"].base + index * CPU_BLOCK_SIZE)


@lru_cache(maxsize=64)  # every load asks for the same few
def region_at(gpa: int) -> Region | None:
    """The row of `MAP` that holds this guest-physical address."""
    return next((region for region in MAP if gpa in region), None)


def describe(gpa: int) -> str:
    """Where an address lies, in words: `data+0x10`, `cpus[3].tss+0x4`; empty for a place without a name."""
    region = region_at(gpa)
    if region is None:
        return ""
    offset = gpa - region.base
    if region.name == "cpus":
        index, offset = divmod(offset, CPU_BLOCK_SIZE)
        part = next(part for part in CPU_BLOCK if offset in part)
        return f"cpus[{index}].{part.name}+{offset - part.base:#x}"
    return f"{region.name}+{offset:#x}"


FREE = _row("free", 0, CPU_BLOCK_SIZE, "rw", "the block of a vCPU that is not there: plain RAM")


def rows_below(limit: int, cpus: int) -> Iterator[tuple[int, Region]]:
    """The rows of `MAP` that begin below `limit`, each after its base; `cpus` as the CPU_BLOCK rows of so many vCPUs,
    and plain RAM behind the last.
    """
    for row in MAP:
        if row.name != "cpus":
            if row.base < limit:
                yield row.base, row
            continue
        for base in range(row.base, min(row.end, limit), CPU_BLOCK_SIZE):
            for part in CPU_BLOCK if base < row.base + cpus * CPU_BLOCK_SIZE else (FREE,):
                yield base + part.base, part


@cache
def asm_constants() -> dict[str, int]:
    """Names for the assembler: `X_BASE` and `X_SIZE` of every region, and what is derived from them."""

    def named() -> Iterator[tuple[str, int]]:
        for region in MAP:
            yield f"{region.name.upper()}_BASE", region.base
            yield f"{region.name.upper()}_SIZE", region.size
        for part in CPU_BLOCK:
            yield f"CPU_{part.name.upper().removeprefix('CPU_')}_OFFSET", part.base
        yield "CPU_BLOCK_SIZE", CPU_BLOCK_SIZE
        yield "USER_STACK_TOP", USER_STACK_TOP
        yield "RESULT_SLOT_SIZE", RESULT_SLOT_SIZE

    return dict(named())


# --- how much memory -------------------------------------------------------------------------------------------------

DEFAULT_MEMORY = 0x20_0000
"""2 MiB: room for the map and 32 vCPUs."""

BOOT_TABLE_PAGES = 7
"""Of the page_tables region, what the first 4 GiB take: PML4, PDPT, four page directories, one page table."""

SPARE_TABLE_PAGES = 4
"""Of the rest, what stays free for a payload's own mappings however large the memory is."""

MAX_MEMORY = LOW_RAM_END + (REGIONS["page_tables"].size // PAGE - BOOT_TABLE_PAGES - SPARE_TABLE_PAGES) * GIB
"""One page directory per GiB above 4 GiB: the page_tables region ends here."""

_SIZE = r"(?ai)\s*(?:(0x[0-9a-f]{1,16})|([0-9]{1,19})\s*(?:([kmgt])(?:i?b)?)?)\s*"
_SCALE = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def parse_size(text: str | int) -> int:
    """Bytes in `"2M"`, `"64KiB"`, `"0x1000"`, `"4096"` or 4096. K, M, G and T are powers of 1024.

    Raises UsageError. Whether the amount makes sense is check_memory's question.
    """
    if isinstance(text, int):
        if text < 0:
            raise UsageError(f"a size of {text} bytes is negative; give a number of bytes such as 4096 or 2M")
        return text
    if not isinstance(text, str):
        raise UsageError(f"{text!r} is not a size; give a whole number of bytes such as 4096, or text such as '2M'")
    import re  # takes longer than all of this module, and most runs give no size

    match = re.fullmatch(_SIZE, text)
    if match is None:
        raise UsageError(f"{text[:40]!r} is not a size; give a number of bytes such as 4096, 0x1000, 64K, 2M or 1G")
    hexadecimal, number, unit = match.groups()
    return int(hexadecimal, 16) if hexadecimal else int(number) << _SCALE[(unit or "").lower()]


def format_size(size: int) -> str:
    """The shortest exact spelling that parse_size reads back: `2M`, `1088K`, `4097`."""
    for unit in "TGMK":
        scale = _SCALE[unit.lower()]
        if size and size % (1 << scale) == 0:
            return f"{size >> scale}{unit}"
    return str(size)


def min_memory(cpus: int) -> int:
    """Bytes of RAM that the map needs for this many vCPUs: up to the end of the last block."""
    return cpu_block(cpus - 1).base + CPU_BLOCK_SIZE


@cache
def default_memory(cpus: int) -> int:
    """DEFAULT_MEMORY, or the next 2 MiB above what this many vCPUs need."""
    return max(DEFAULT_MEMORY, -(-min_memory(cpus) // LARGE_PAGE) * LARGE_PAGE)


@cache
def host_memory() -> int:
    """Bytes of physical memory in this host."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_cpus(cpus: int) -> int:
    """`cpus` itself, if the map has room for so many. Raises UsageError."""
    if not 1 <= cpus <= MAX_CPUS:
        raise UsageError(f"{cpus} vCPUs: a machine has 1 to {MAX_CPUS} of them")
    return cpus


def check_memory(size: int, cpus: int, host: int | None = None) -> int:
    """`size` itself, if a machine with `cpus` vCPUs can have that many bytes of RAM. Raises UsageError.

    `host` is the host's own memory in bytes, measured when not given: guest RAM is anonymous memory, and a guest that
    touches more than there is would have the host kill us rather than fail.
    """
    check_cpus(cpus)
    least = min_memory(cpus)
    host = host_memory() if host is None else host
    if least <= size <= host and not size % PAGE:
        return size
    shown = format_size(size)
    if size < least:
        who = "1 vCPU needs" if cpus == 1 else f"{cpus} vCPUs need"
        raise UsageError(f"memory of {shown} is too small: {who} at least {format_size(least)}")
    if size % PAGE:
        raise UsageError(
            f"memory of {shown} bytes is not a whole number of 4 KiB pages; the next is {-(-size // PAGE) * PAGE}"
        )
    raise UsageError(f"memory of {shown} is too large: this host has {host >> 20}M in all")


@lru_cache(maxsize=64)
def checked_ram(size: int, cpus: int) -> tuple[tuple[int, int], ...]:
    """The `ram_ranges` of what `check_memory` lets be."""
    return ram_ranges(check_memory(size, cpus))


def check_boot_tables(size: int) -> None:
    """UsageError for more RAM than the boot page tables map; who brings tables of his own may have it."""
    if size > MAX_MEMORY:
        raise UsageError(
            f"memory of {format_size(size)} is too large: the boot page tables reach {format_size(MAX_MEMORY)}",
            hint="less memory; or an image with page tables of its own",
        )


def ram_ranges(size: int) -> tuple[tuple[int, int], ...]:
    """(base, size) of each stretch of RAM for `size` bytes in all: from 0, then from 4 GiB what devices displace."""
    low = min(size, LOW_RAM_END)
    return ((0, low), (FOUR_GIB, size - low)) if size > low else ((0, low),)
