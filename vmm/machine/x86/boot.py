# SPDX-License-Identifier: GPL-2.0-or-later
"""How a vCPU starts: the tables of the guest map written once, and registers for long mode in ring 0 or 3.

It joins layout, paging and descriptors with a vCPU; it knows no payload. Source: Intel SDM vol. 3A, 9.8.5 (entering
IA-32e mode), of which KVM_SET_SREGS sets the end state directly.
"""

from __future__ import annotations

from vmm.abi.x86 import CR0, CR4, EFER, KERNEL_CS, KERNEL_DS, RFLAGS, USER_CS, USER_DS
from vmm.base.light import lru_cache
from vmm.errors import UsageError
from vmm.kvm.buffers import packed
from vmm.kvm.plain import pieces
from vmm.machine.memory import layout
from vmm.machine.x86 import descriptors
from vmm.machine.x86 import page_entries as paging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from vmm.kvm.vcpu import Vcpu
    from vmm.machine.memory.slots import GuestMemory

LONG_MODE_CR0 = CR0.PE | CR0.MP | CR0.ET | CR0.NE | CR0.WP | CR0.PG
LONG_MODE_CR4 = CR4.PAE | CR4.OSFXSR | CR4.OSXMMEXCPT
START_RFLAGS = {0: int(RFLAGS.FIXED), 3: int(RFLAGS.FIXED | RFLAGS.IF)}  # by ring
LONG_MODE_EFER = EFER.SCE | EFER.LME | EFER.LMA | EFER.NX
XCR0_X87_SSE = 0x3


def write_tables(
    memory: GuestMemory, cpus: int, *, user: paging.UserRanges = (), allowed_ports: Iterable[int] = ()
) -> None:
    """Write GDT, IDT, gates, page tables and each vCPU's TSS where layout.MAP puts them."""
    for gpa, data in _tables(memory.size, cpus, user, tuple(allowed_ports)):
        memory.write(gpa, data)


@lru_cache(maxsize=16)
def image(memory: int, user: paging.UserRanges, allowed_ports: tuple[int, ...]) -> bytes:
    """The tables of a plain machine, as `Plain.load` takes them."""
    return pieces(_tables(memory, 1, user, allowed_ports))


@lru_cache(maxsize=64)
def registers(entry: int, ring: int) -> tuple[bytes, bytes]:
    """(struct kvm_sregs, struct kvm_regs) of the one vCPU that starts there (`long_mode`)."""
    return _sregs(0, 1, ring), packed("struct kvm_regs", _regs(0, entry, 1, ring))


@lru_cache(maxsize=16)
def _tables(memory: int, cpus: int, user: paging.UserRanges, ports: tuple[int, ...]) -> tuple[tuple[int, bytes], ...]:
    """(guest-physical address, bytes) of each, one for all VMs of such a shape in a process."""
    layout.check_boot_tables(memory)
    base = layout.REGIONS
    return (
        (base["gdt"].base, descriptors.gdt(cpus)),
        (base["idt"].base, descriptors.idt()),
        (base["gates"].base, descriptors.gates()),
        (paging.ROOT, paging.identity_map(memory, user, cpus)),
        *((layout.cpu_block(index).tss, _tss(index, ports)) for index in range(cpus)),
    )


@lru_cache(maxsize=16)
def _tss(index: int, allowed_ports: tuple[int, ...]) -> bytes:
    return descriptors.tss(layout.cpu_block(index), allowed_ports)


def _segment(row: descriptors.Segment) -> dict[str, int]:
    """The `struct kvm_segment` of a descriptor's row."""
    values = {name: getattr(row, name) for name in row.__match_args__}
    return values | {"unusable": int(not row.present)}


def long_mode(vcpu: Vcpu, index: int, entry: int, *, cpus: int = 1, ring: int = 0) -> None:
    """Set the registers of the vCPU with this index to start at `entry` in 64-bit mode.

    RDI holds the index and RSI the number of vCPUs. Ring 0 starts on the boot stack with interrupts off; ring 3
    on the stack of region `user` with interrupts on. Everything else is zero.
    """
    vcpu.start_sregs(_sregs(index, cpus, ring))
    vcpu.start_regs(_regs(index, entry, cpus, ring))


def _regs(index: int, entry: int, cpus: int, ring: int) -> dict[str, int]:
    stack = layout.USER_STACK_TOP if ring else layout.cpu_block(index).boot_stack_top
    return {"rip": entry, "rsp": stack, "rdi": index, "rsi": cpus, "rflags": START_RFLAGS[ring]}


@lru_cache(maxsize=64)
def _sregs(index: int, cpus: int, ring: int) -> bytes:
    """Segments, descriptor tables and control registers of a vCPU that starts, packed once for all VMs of a process."""
    if ring not in START_RFLAGS:
        raise UsageError(f"a vCPU starts in ring 0 or 3, not {ring}")
    data = _segment(descriptors.segment(USER_DS if ring else KERNEL_DS))
    tables = layout.REGIONS["gdt"], layout.REGIONS["idt"]
    return packed(
        "struct kvm_sregs",
        {
            "cs": _segment(descriptors.segment(USER_CS if ring else KERNEL_CS)),
            **dict.fromkeys(("ds", "es", "fs", "gs", "ss"), data),
            "tr": _segment(descriptors.tss_segment(index)),
            "ldt": _segment(descriptors.null_segment()),
            "gdt": {"base": tables[0].base, "limit": len(descriptors.gdt(cpus)) - 1},
            "idt": {"base": tables[1].base, "limit": tables[1].size - 1},
            "cr0": int(LONG_MODE_CR0), "cr3": paging.ROOT, "cr4": int(LONG_MODE_CR4), "efer": int(LONG_MODE_EFER),
        },
    )  # fmt: skip
