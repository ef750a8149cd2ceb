# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver of virtio-blk that reads 4 KiB at random places: a guest of the bench for pyvmm, the C floor and QEMU.

It keeps `depth` requests in flight, as a driver of Linux does: EVENT_IDX, an interrupt with its status read and
acknowledged, HLT when there is nothing to take. After each `count` requests it writes the stamp port. It knows the
guest map and registers of virtio-mmio; no host.
"""

from __future__ import annotations

from vmm.abi import virtio
from vmm.abi.virtio import SECTOR
from vmm.abi.x86 import PAGE
from vmm.bench.guests import STAMP, VECTOR, Guest
from vmm.machine.memory.layout import REGIONS

ENTRIES = 32  # of the queue: 3 descriptors a request
MOST_DEPTH = ENTRIES // 3
PAGES = 4096  # of the disk
DISK_SIZE = PAGES * PAGE
DATA = REGIONS["data"].base
BASE = DATA + 0x1_0000
"""u64 there: where to look for devices; the next u64: how far they are apart."""
FEATURES = virtio.feature(virtio.VIRTIO_F_VERSION_1, virtio.VIRTIO_RING_F_EVENT_IDX)

_TEXT = """
QUEUE   = {queue}
AVAIL   = QUEUE + 0x400
USED    = QUEUE + 0x800
HEADERS = QUEUE + 0x1000                  ; 0x20 bytes for the head of each chain: header, status at 0x10
BUFFERS = QUEUE + 0x2000
USED_EVENT  = AVAIL + VRING_RING + 2 * {entries}
AVAIL_EVENT = USED + VRING_RING + 8 * {entries}
DONE    = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK

start:
    mov   edi, {base}
    mov   r12, qword ptr [rdi]
    mov   r13, qword ptr [rdi + 8]
find:
    cmp   dword ptr [r12 + VIRTIO_MMIO_DEVICE_ID], VIRTIO_ID_BLOCK
    je    found
    add   r12, r13
    jmp   find
found:
    mov   dword ptr [r12 + VIRTIO_MMIO_STATUS], 0
    mov   dword ptr [r12 + VIRTIO_MMIO_STATUS], VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER
    mov   dword ptr [r12 + VIRTIO_MMIO_DRIVER_FEATURES_SEL], 0
    mov   dword ptr [r12 + VIRTIO_MMIO_DRIVER_FEATURES], {features_low}
    mov   dword ptr [r12 + VIRTIO_MMIO_DRIVER_FEATURES_SEL], 1
    mov   dword ptr [r12 + VIRTIO_MMIO_DRIVER_FEATURES], {features_high}
    mov   dword ptr [r12 + VIRTIO_MMIO_STATUS], DONE
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_SEL], 0
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_NUM], {entries}
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_DESC_LOW], QUEUE
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_DESC_HIGH], 0
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_AVAIL_LOW], AVAIL
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_AVAIL_HIGH], 0
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_USED_LOW], USED
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_USED_HIGH], 0
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_READY], 1
    mov   dword ptr [r12 + VIRTIO_MMIO_STATUS], DONE | VIRTIO_CONFIG_S_DRIVER_OK

{interrupts}
    mov   ebx, QUEUE
    xor   r8d, r8d                        ; available index
    xor   r9d, r9d                        ; used elements taken
    mov   r10d, {count}                   ; until the stamp
    mov   r11d, 12345                     ; where on the disk
    xor   esi, esi                        ; head
first:
    mov   eax, esi
    shl   eax, 5
    add   eax, HEADERS
    mov   dword ptr [rax], VIRTIO_BLK_T_IN
    mov   edi, esi
    shl   edi, 4
    add   rdi, rbx
    mov   qword ptr [rdi], rax
    mov   dword ptr [rdi + 8], VIRTIO_BLK_OUTHDR_SIZE
    mov   word ptr [rdi + 12], VRING_DESC_F_NEXT
    lea   edx, [rsi + 1]
    mov   word ptr [rdi + 14], dx
    mov   ecx, esi
    shl   ecx, 12
    add   ecx, BUFFERS
    mov   qword ptr [rdi + 16], rcx
    mov   dword ptr [rdi + 24], {page}
    mov   word ptr [rdi + 28], VRING_DESC_F_NEXT | VRING_DESC_F_WRITE
    inc   edx
    mov   word ptr [rdi + 30], dx
    add   eax, 0x10
    mov   qword ptr [rdi + 32], rax
    mov   dword ptr [rdi + 40], 1
    mov   word ptr [rdi + 44], VRING_DESC_F_WRITE
    call  submit
    add   esi, 3
    cmp   esi, 3 * {depth}
    jb    first

more:
    cmp   word ptr [USED + VRING_USED_idx], r9w
    je    none
take:
    mov   edx, r9d
    and   edx, {entries} - 1
    mov   esi, dword ptr [rbx + rdx * 8 + 0x800 + VRING_RING]
    inc   r9d
    mov   eax, esi
    shl   eax, 5
    cmp   byte ptr [rax + HEADERS + 0x10], VIRTIO_BLK_S_OK
    jne   failed
    call  submit
    dec   r10d
    jnz   more
    mov   al, 0x2e
    out   {stamp}, al
    mov   r10d, {count}
    jmp   more
none:
    mov   word ptr [USED_EVENT], r9w      ; an interrupt for the next one
    mfence
    cmp   word ptr [USED + VRING_USED_idx], r9w
    jne   take
    cli
    cmp   word ptr [USED + VRING_USED_idx], r9w
    jne   some
    sti
    hlt
    jmp   more
some:
    sti
    jmp   take
failed:
    cli
    hlt
    jmp   failed

submit:                                   ; ESI = head of a chain; it reads at another place now
    lea   r11d, [r11 + r11 * 4 + 1]
    mov   eax, r11d
    shr   eax, 12
    and   eax, {pages} - 1
    shl   eax, 3
    mov   edx, esi
    shl   edx, 5
    mov   dword ptr [rdx + HEADERS + VIRTIO_BLK_OUTHDR_sector], eax
    mov   byte ptr [rdx + HEADERS + 0x10], 0xff            ; no status yet
    mov   edx, r8d
    and   edx, {entries} - 1
    mov   word ptr [rbx + rdx * 2 + 0x400 + VRING_RING], si
    mov   edx, r8d
    inc   r8d
    mov   word ptr [AVAIL + VRING_AVAIL_idx], r8w
    mfence
    cmp   word ptr [AVAIL_EVENT], dx
    jne   submitted
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_NOTIFY], 0
submitted:
    ret

{handler}"""


def disk_reads(depth: int, count: int) -> Guest:
    """The guest; its code lies at region `code`.

    Raises:
        PayloadError: the text does not assemble.
    """
    from vmm.asm.assembler import assemble
    from vmm.bench.virtio_guest import handler, interrupts

    code = REGIONS["code"].base
    text = _TEXT.format(
        queue=DATA, entries=ENTRIES, base=BASE, features_low=FEATURES & 0xFFFFFFFF,
        features_high=FEATURES >> 32, interrupts=interrupts(VECTOR),
        handler=handler(), count=count, depth=depth, page=PAGE, pages=PAGES, stamp=STAMP,
    )  # fmt: skip
    program = assemble(text, base=code)
    return Guest(program.code, count, handler=program.symbols["handler"] - code)


assert PAGE == 8 * SECTOR  # what `submit` counts with
