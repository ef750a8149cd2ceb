# SPDX-License-Identifier: GPL-2.0-or-later
"""Segment, TSS and gate descriptors as bytes, and the stack frame that a default gate leaves for the host.

One table of segments feeds both the GDT and the hidden parts of segment registers (KVM_SET_SREGS), so the two cannot
disagree. It knows no vCPU and no memory. Sources: Intel SDM vol. 3A, 3.4.5 (segment descriptors), 6.14 (64-bit
interrupts), 7.7 (64-bit TSS); AMD APM vol. 2, 4.8, 8.9 and 12.2.5.
"""

from __future__ import annotations

from vmm.abi import ports
from vmm.abi.x86 import (
    CODE16_CS,
    CODE32_CS,
    DATA16_DS,
    FIRST_TSS,
    HAS_ERROR_CODE,
    KERNEL_CS,
    KERNEL_DS,
    USER_CS,
    USER_DS,
)
from vmm.base.light import cache
from vmm.base.record import Record, replace
from vmm.errors import GuestMemoryError
from vmm.kvm.buffers import counted_up, packed_u64
from vmm.machine.memory.layout import REGIONS, CpuBlock, check_cpus, cpu_block

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# --- segments --------------------------------------------------------------------------------------------------------

CODE, DATA, TSS_AVAILABLE, TSS_BUSY = 0xB, 0x3, 0x9, 0xB
"""Descriptor types. Code and data come with the accessed bit set, as a load leaves them and VM entry demands."""


class Segment(Record):
    """What a segment register holds, by the field names of `struct kvm_segment`. `limit` is in bytes, inclusive."""

    selector: int
    base: int = 0
    limit: int = 0xFFFF_FFFF
    type: int = DATA
    present: int = 1
    dpl: int = 0
    db: int = 0
    s: int = 1
    l: int = 0
    g: int = 1

    def encode(self) -> bytes:
        """The descriptor: 8 bytes, or 16 for a system segment (s=0), whose base has 64 bits."""
        limit = self.limit >> 12 if self.g else self.limit
        access = self.present << 7 | self.dpl << 5 | self.s << 4 | self.type
        flags = self.g << 3 | self.db << 2 | self.l << 1
        low = limit & 0xFFFF | (self.base & 0xFFFFFF) << 16 | access << 40 | (limit >> 16 | flags << 4) << 48
        low |= (self.base >> 24 & 0xFF) << 56
        return low.to_bytes(8, "little") + (b"" if self.s else (self.base >> 32).to_bytes(8, "little"))


SEGMENTS: tuple[Segment, ...] = (
    Segment(KERNEL_CS, type=CODE, l=1),
    Segment(KERNEL_DS, db=1),
    Segment(USER_DS, dpl=3, db=1),
    Segment(USER_CS, type=CODE, dpl=3, l=1),
    Segment(CODE32_CS, type=CODE, db=1),
    Segment(CODE16_CS, limit=0xFFFF, type=CODE, g=0),
    Segment(DATA16_DS, limit=0xFFFF, g=0),
)
"""In the order of the GDT. SYSRET needs the user pair as it is: SS at STAR[63:48]+8, 64-bit CS at STAR[63:48]+16."""

_BY_SELECTOR = {row.selector: row for row in SEGMENTS}


def segment(selector: int) -> Segment:
    """The register value for one of the selectors of vmm.abi.x86 (KERNEL_CS, USER_DS, ...)."""
    return _BY_SELECTOR[selector]


def null_segment() -> Segment:
    """An unusable register, such as LDTR: selector 0, not present."""
    return Segment(0, limit=0, type=0, present=0, s=0, g=0)


def tss_segment(index: int) -> Segment:
    """TR of the vCPU with this index. Busy, as LTR leaves it and VM entry demands."""
    return Segment(FIRST_TSS + 16 * index, cpu_block(index).tss, TSS_SIZE - 1, TSS_BUSY, s=0, g=0)


@cache
def gdt(cpus: int) -> bytes:
    """The bytes of the gdt region: null, SEGMENTS, one TSS descriptor per vCPU from FIRST_TSS. The limit is len - 1.

    The TSS descriptors say "available" although TR is loaded: a payload may LTR again, and a busy one would be #GP.
    """
    check_cpus(cpus)
    tasks = (replace(tss_segment(index), type=TSS_AVAILABLE) for index in range(cpus))
    return bytes(8) + b"".join(row.encode() for row in (*SEGMENTS, *tasks))


# --- task state ------------------------------------------------------------------------------------------------------

TSS_FIXED = 104
TSS_BITMAP = 0x1_0000 // 8
TSS_SIZE = TSS_FIXED + TSS_BITMAP + 1
"""The last byte is ones: the CPU reads two bytes of the bitmap at a time, and the second must lie inside the limit."""


def tss(block: CpuBlock, allowed_ports: Iterable[int] = ()) -> bytes:
    """The 64-bit TSS of a vCPU: RSP0 and IST1 from its block, ring 3 kept off every port but `allowed_ports`.

    An access of 2 or 4 bytes needs each of its ports allowed.
    """
    bitmap = bytearray(b"\xff" * TSS_BITMAP)
    for port in allowed_ports:
        if not 0 <= port < 0x1_0000:
            raise ValueError(f"{port:#x} is not an I/O port; ports end at 0xffff")
        bitmap[port // 8] &= ~(1 << port % 8)
    stacks = (block.ring0_stack_top, 0, 0, 0, block.ist1_stack_top, 0, 0, 0, 0, 0, 0)  # RSP0-2, reserved, IST1-7
    fixed = bytes(4) + packed_u64(stacks) + bytes(10) + TSS_FIXED.to_bytes(2, "little")
    return fixed + bytes(bitmap) + b"\xff"


# --- interrupt gates -------------------------------------------------------------------------------------------------

VECTORS = 256
STUB_SIZE = 16
GATE_SIZE = 16

USER_VECTORS = frozenset({3, 4})
"""#BP and #OF: INT3 and INTO are meant for ring 3. INT n on any other gate is #GP there."""

IST1_VECTORS = frozenset({8, 18})
"""#DF and #MC take IST1. #DF is what a bad RSP turns into; #MC can come at any instruction, also between SYSCALL and
the load of a kernel stack. NMI stays on the current stack: an IST always starts from its top, so one NMI inside
another (its handler took a fault, whose IRET lets the next one in) would overwrite the first frame."""


def stub_address(vector: int) -> int:
    """Where the default handler of a vector starts."""
    return REGIONS["gates"].base + STUB_SIZE * vector


def gate(handler: int, *, selector: int = KERNEL_CS, ist: int = 0, dpl: int = 0, trap: bool = False) -> bytes:
    """One 16-byte IDT entry. An interrupt gate (the default) clears IF, a trap gate leaves it. `handler` is 64 bits."""
    kind = 0x80 | dpl << 5 | (0xF if trap else 0xE)
    low = handler & 0xFFFF | selector << 16 | ist << 32 | kind << 40 | (handler >> 16 & 0xFFFF) << 48
    return packed_u64((low, handler >> 32 & 0xFFFF_FFFF))


@cache
def idt(user_vectors: frozenset[int] = USER_VECTORS, ist1_vectors: frozenset[int] = IST1_VECTORS) -> bytes:
    """The bytes of the idt region: each vector to its stub; ring 3 may reach `user_vectors` by INT n."""
    # Most differ in the handler's low 16 bits alone, which the region does not leave: one gate is made, and counted up.
    first = gate(stub_address(0))
    table = bytearray(first * VECTORS)
    lows = counted_up(int.from_bytes(first[:8], "little"), STUB_SIZE, VECTORS)
    memoryview(table).cast("Q")[::2] = memoryview(lows).cast("Q")
    for v in user_vectors | ist1_vectors:
        special = gate(stub_address(v), ist=int(v in ist1_vectors), dpl=3 if v in user_vectors else 0)
        table[GATE_SIZE * v : GATE_SIZE * (v + 1)] = special
    return bytes(table)


@cache
def gates() -> bytes:
    """The bytes of the gates region: 256 stubs, each complete in its 16 bytes, so no tail is shared.

        push 0                  6a 00             only where the CPU pushes no error code
        push VECTOR             68 imm32          imm8 would be sign-extended from 0x80 on
        out  FAULT, al          e6 f5             the host stops here and reads a FaultFrame at RSP
        hlt                     f4
        jmp  hlt                eb fd             an NMI can end HLT
        hlt ...                 f4                to the end of the stub

    No register is changed, and every instruction is one that an emulated ring 0 has.
    """
    tail = bytes((0xE6, ports.FAULT, 0xF4, 0xEB, 0xFD))
    # As above, all but a few differ in one byte alone.
    table = bytearray((b"\x6a\x00\x68" + bytes(4) + tail).ljust(STUB_SIZE, b"\xf4") * VECTORS)
    table[3::STUB_SIZE] = bytes(range(VECTORS))
    for v in HAS_ERROR_CODE:
        stub = b"\x68" + v.to_bytes(4, "little") + tail
        table[STUB_SIZE * v : STUB_SIZE * (v + 1)] = stub.ljust(STUB_SIZE, b"\xf4")
    return bytes(table)


class FaultFrame(Record):
    """What lies at RSP when a default gate does its OUT: seven u64, the vector at the lowest address.

    `rip` to `ss` are what the CPU pushed. Vectors without an error code show 0. Where the CPU pushes an error code but
    INT n or an external interrupt used the vector, there is none: `error_code` is then RIP, `rip` is CS, and so on.
    """

    vector: int
    error_code: int
    rip: int
    cs: int
    rflags: int
    rsp: int
    ss: int

    @classmethod
    def parse(cls, data: bytes) -> FaultFrame:
        """From the FAULT_FRAME_SIZE bytes at RSP. Raises GuestMemoryError if there are fewer."""
        if len(data) < FAULT_FRAME_SIZE:
            raise GuestMemoryError(
                f"a fault frame has {FAULT_FRAME_SIZE} bytes, but only {len(data)} could be read at RSP"
            )
        return cls(*(int.from_bytes(data[at : at + 8], "little") for at in range(0, FAULT_FRAME_SIZE, 8)))

    def encode(self) -> bytes:
        """The bytes that parse reads."""
        return packed_u64([getattr(self, name) for name in self.__match_args__])


FAULT_FRAME_SIZE = 8 * len(FaultFrame.__match_args__)
