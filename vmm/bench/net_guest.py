# SPDX-License-Identifier: GPL-2.0-or-later
"""A driver of virtio-net whose frames come back: a guest of the bench for pyvmm, the C floor and QEMU.

It keeps `depth` frames under way: for each that comes back it gives the buffer again and sends another. As a driver of
Linux it uses EVENT_IDX, is interrupted for what it receives and not for what it sent, and halts when there is nothing
to take. After each `count` frames it writes the stamp port. It knows the guest map and registers of virtio-mmio; no
host.
"""

from __future__ import annotations

from vmm.abi import virtio, virtio_net
from vmm.bench.guests import STAMP, VECTOR, Guest
from vmm.machine.memory.layout import REGIONS

ENTRIES = 16  # of each queue
BUFFER = 2048  # bytes
DATA = REGIONS["data"].base
BASE = DATA + 0x2_0000
"""u64 there: where to look for devices; the next u64: how far they are apart."""
FEATURES = virtio.feature(virtio.VIRTIO_F_VERSION_1, virtio.VIRTIO_RING_F_EVENT_IDX)

_TEXT = """
RX = {data}                               ; a queue: descriptors, available ring at 0x400, used ring at 0x800
TX = {data} + 0x1000
BUFFERS = {data} + 0x2000                 ; to receive into, then to send
RX_USED_EVENT  = RX + 0x400 + VRING_RING + 2 * {entries}
TX_USED_EVENT  = TX + 0x400 + VRING_RING + 2 * {entries}
RX_AVAIL_EVENT = RX + 0x800 + VRING_RING + 8 * {entries}
TX_AVAIL_EVENT = TX + 0x800 + VRING_RING + 8 * {entries}
DONE    = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK

start:
    mov   edi, {base}
    mov   r12, qword ptr [rdi]
    mov   r13, qword ptr [rdi + 8]
find:
    cmp   dword ptr [r12 + VIRTIO_MMIO_DEVICE_ID], VIRTIO_ID_NET
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
    xor   eax, eax
    mov   edx, RX
queue:
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_SEL], eax
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_NUM], {entries}
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_DESC_LOW], edx
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_DESC_HIGH], 0
    add   edx, 0x400
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_AVAIL_LOW], edx
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_AVAIL_HIGH], 0
    add   edx, 0x400
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_USED_LOW], edx
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_USED_HIGH], 0
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_READY], 1
    mov   edx, TX
    inc   eax
    cmp   eax, 2
    jb    queue
    mov   dword ptr [r12 + VIRTIO_MMIO_STATUS], DONE | VIRTIO_CONFIG_S_DRIVER_OK

{interrupts}
    ; a descriptor a buffer, in both queues; those to send have a header of zeros and a broadcast frame
    xor   esi, esi
    mov   edi, BUFFERS
describe:
    mov   eax, esi
    shl   eax, 4
    mov   qword ptr [rax + RX], rdi
    mov   dword ptr [rax + RX + 8], {buffer}
    mov   word ptr [rax + RX + 12], VRING_DESC_F_WRITE
    mov   word ptr [rsi * 2 + RX + 0x400 + VRING_RING], si
    lea   edx, [rdi + {entries} * {buffer}]
    mov   qword ptr [rax + TX], rdx
    mov   dword ptr [rax + TX + 8], VIRTIO_NET_HDR_SIZE + {size}
    mov   word ptr [rax + TX + 12], 0
    mov   word ptr [rsi * 2 + TX + 0x400 + VRING_RING], si
    mov   dword ptr [rdx + VIRTIO_NET_HDR_SIZE], -1
    mov   dword ptr [rdx + VIRTIO_NET_HDR_SIZE + 4], 0x0002ffff
    mov   word ptr [rdx + VIRTIO_NET_HDR_SIZE + 12], 0xb588
    add   edi, {buffer}
    inc   esi
    cmp   esi, {entries}
    jb    describe

    mov   r8d, {entries}                  ; available index of RX
    mov   word ptr [RX + 0x400 + VRING_AVAIL_idx], r8w
    mfence
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_NOTIFY], 0
    xor   r9d, r9d                        ; used elements of RX taken
    mov   r10d, {count}                   ; until the stamp
    xor   r11d, r11d                      ; available index of TX
    mov   ebx, {depth}
first:
    call  send
    dec   ebx
    jnz   first

more:
    cmp   word ptr [RX + 0x800 + VRING_USED_idx], r9w
    je    none
take:
    mov   edx, r9d
    and   edx, {entries} - 1
    mov   esi, dword ptr [rdx * 8 + RX + 0x800 + VRING_RING]
    cmp   dword ptr [rdx * 8 + RX + 0x800 + VRING_RING + 4], VIRTIO_NET_HDR_SIZE + {size}
    jne   failed
    inc   r9d
    mov   edx, r8d                        ; the buffer again
    and   edx, {entries} - 1
    mov   word ptr [rdx * 2 + RX + 0x400 + VRING_RING], si
    mov   edx, r8d
    inc   r8d
    mov   word ptr [RX + 0x400 + VRING_AVAIL_idx], r8w
    mfence
    cmp   word ptr [RX_AVAIL_EVENT], dx
    jne   again
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_NOTIFY], 0
again:
    call  send
    dec   r10d
    jnz   more
    mov   al, 0x2e
    out   {stamp}, al
    mov   r10d, {count}
    jmp   more
none:
    mov   word ptr [RX_USED_EVENT], r9w   ; an interrupt for the next one
    mfence
    cmp   word ptr [RX + 0x800 + VRING_USED_idx], r9w
    jne   take
    cli
    cmp   word ptr [RX + 0x800 + VRING_USED_idx], r9w
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

send:                                     ; the next descriptor of TX; the ring names it already
    mov   edx, r11d
    inc   r11d
    lea   eax, [r11 + 0x4000]             ; no interrupt for what was sent
    mov   word ptr [TX_USED_EVENT], ax
    mov   word ptr [TX + 0x400 + VRING_AVAIL_idx], r11w
    mfence
    cmp   word ptr [TX_AVAIL_EVENT], dx
    jne   sent
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_NOTIFY], 1
sent:
    ret

{handler}"""


def echoed_frames(size: int, depth: int, count: int) -> Guest:
    """The guest; its code lies at region `code`. `size` bytes a frame.

    Raises:
        PayloadError: the text does not assemble.
    """
    from vmm.asm.assembler import assemble
    from vmm.bench.virtio_guest import handler, interrupts

    assert virtio_net.NET_HDR.size + size <= BUFFER
    code = REGIONS["code"].base
    text = _TEXT.format(
        data=DATA, entries=ENTRIES, base=BASE, features_low=FEATURES & 0xFFFFFFFF,
        features_high=FEATURES >> 32, interrupts=interrupts(VECTOR),
        handler=handler(), count=count, depth=depth, buffer=BUFFER, size=size, stamp=STAMP,
    )  # fmt: skip
    program = assemble(text, base=code)
    return Guest(program.code, count, handler=program.symbols["handler"] - code)
