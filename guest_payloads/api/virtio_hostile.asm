; summary: drivers that break every rule of the ring: the device stops and asks for a reset, the host never notices
; proves:  virtio_hostile
; needs:   KVM_CAP_IOEVENTFD, KVM_CAP_IRQFD
; machine: irqchip=split timeout=30
; param:   skip = 0       attacks at the beginning of the table that are left out
; result:  attacks  u64   attacks that were made, on all queues together
;
; Each row of the table below is a driver: the size and the areas of its queue, two descriptors, an indirect table of
; two, the first head in the available ring, and the available index. After it the device must say NEEDS_RESET, in its
; status and, once it was running, by a configuration interrupt; and after the reset it must serve an honest request.
;
; Every queue that `targets` names is attacked with all rows: a source of random bytes, a disk, a network card and a
; console, the latter two from both sides, and the card's commands. For a queue that only takes, the rows' buffers are to
; be read, not written.
;
; What came of attack i is at OUTCOME + 16 * i: the status after it (u32), the causes of interrupts ORed (u32), the
; used index (u32), and the bytes that the honest request brought (u32).

%include "results.inc"
%include "apic.inc"

QUEUE   = DATA_BASE
BUFFER  = DATA_BASE + 0x1000              ; where an attack would write
HONEST  = DATA_BASE + 0x1800
TABLE   = DATA_BASE + 0x2000              ; the indirect table
OUTCOME = DATA_BASE + 0x3000
NOWHERE = 0x10000000                      ; no memory there
FEATURES = VIRTIO_F_VERSION_1_MASK | VIRTIO_RING_F_INDIRECT_DESC_MASK

NEXT     = VRING_DESC_F_NEXT
WRITE    = VRING_DESC_F_WRITE
INDIRECT = VRING_DESC_F_INDIRECT

ROW_DESC  = 0x00                          ; u64: address of the descriptors; available and used ring follow
ROW_NUM   = 0x18                          ; u32: size of the queue
ROW_HEAD  = 0x1c                          ; u16
ROW_IDX   = 0x1e                          ; u16
ROW_DESCS = 0x20                          ; two descriptors
ROW_TABLE = 0x40                          ; two more, for TABLE
ROW_SIZE  = 0x60

.macro QUEUE_IS num=VQ_ENTRIES, head=0, idx=1, desc=QUEUE, avail=QUEUE+VQ_AVAIL, used=QUEUE+VQ_USED
    .quad \desc, \avail, \used
    .long \num
    .short \head, \idx
.endm

.macro DESC addr, len, flags, next=0
    .quad \addr
    .long \len
    .short \flags, \next
.endm

.macro NO_TABLE
    .quad 0, 0, 0, 0
.endm

TARGET_REQUEST = 0x00                     ; u64: the buffers of an honest request
TARGET_DEVICE  = 0x08                     ; u32: from the first device's registers on
TARGET_QUEUE   = 0x0c                     ; u32
TARGET_TAKES   = 0x10                     ; u32: 1 if the device only reads what is in this queue
TARGET_BUFFERS = 0x14                     ; u32: of the request
TARGET_FEATURES = 0x18                    ; u64: what the driver accepts
TARGET_SIZE    = 0x20

.macro TARGET device, queue, takes, request, buffers=1, features=FEATURES
    .quad \request
    .long \device * 0x1000, \queue, \takes, \buffers
    .quad \features
.endm

start:
    mov   r12d, VIRTIO_MMIO_BASE
    mov   ebx, QUEUE
    call  virtio_irq
    mov   r14d, OUTCOME
    lea   rbp, [rip + targets]
next_target:
    mov   r12d, VIRTIO_MMIO_BASE
    add   r12d, dword ptr [rbp + TARGET_DEVICE]
    lea   r13, [rip + table + PARAM_skip * ROW_SIZE]
next:
    lea   rax, [rip + table_end]
    cmp   r13, rax
    jae   target_done
    call  attack
    call  honest
    inc   r15
    add   r13, ROW_SIZE
    add   r14, 16
    jmp   next
target_done:
    add   rbp, TARGET_SIZE
    lea   rax, [rip + targets_end]
    cmp   rbp, rax
    jb    next_target
    mov   rax, r15
    RESULT attacks
    PASS

attack:
    mov   rax, qword ptr [rbp + TARGET_FEATURES]
    call  virtio_init
    mov   qword ptr [rip + virtio_causes], 0               ; what comes late from before the reset has no cause any more
    call  clear
    lea   rsi, [r13 + ROW_DESCS]
    mov   edi, QUEUE
    mov   ecx, 4
    rep   movsq
    mov   edi, TABLE
    mov   ecx, 4
    rep   movsq
    call  direction
    mov   ax, word ptr [r13 + ROW_HEAD]
    mov   word ptr [rbx + VQ_AVAIL + VRING_RING], ax
    mov   ax, word ptr [r13 + ROW_IDX]
    mov   word ptr [rbx + VQ_AVAIL + VRING_AVAIL_idx], ax

    mov   eax, dword ptr [rbp + TARGET_QUEUE]
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_SEL], eax
    mov   eax, dword ptr [r13 + ROW_NUM]
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_NUM], eax
    mov   eax, dword ptr [r13 + ROW_DESC]
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_DESC_LOW], eax
    mov   eax, dword ptr [r13 + ROW_DESC + 4]
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_DESC_HIGH], eax
    mov   eax, dword ptr [r13 + ROW_DESC + 8]
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_AVAIL_LOW], eax
    mov   eax, dword ptr [r13 + ROW_DESC + 12]
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_AVAIL_HIGH], eax
    mov   eax, dword ptr [r13 + ROW_DESC + 16]
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_USED_LOW], eax
    mov   eax, dword ptr [r13 + ROW_DESC + 20]
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_USED_HIGH], eax
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_READY], 1
    test  dword ptr [r12 + VIRTIO_MMIO_STATUS], VIRTIO_CONFIG_S_NEEDS_RESET
    jnz   attack_over                                      ; the device saw it before it ran: nobody is interrupted
    call  virtio_ready
    mov   eax, dword ptr [rbp + TARGET_QUEUE]
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_NOTIFY], eax
attack_sleep:                                              ; either interrupt will do; the host half knows which is right
    cli
    cmp   qword ptr [rip + virtio_causes], 0
    jne   attack_awake
    sti
    hlt
    jmp   attack_sleep
attack_awake:
    sti
attack_over:
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_STATUS]
    mov   dword ptr [r14], eax
    mov   rax, qword ptr [rip + virtio_causes]
    mov   dword ptr [r14 + 4], eax
    movzx eax, word ptr [rbx + VQ_USED + VRING_USED_idx]
    mov   dword ptr [r14 + 8], eax
    ret

honest:                                                    ; reset, and the device works
    mov   rax, qword ptr [rbp + TARGET_FEATURES]
    call  virtio_init
    call  clear
    mov   eax, dword ptr [rbp + TARGET_QUEUE]
    call  virtio_queue
    call  virtio_ready
    mov   rsi, qword ptr [rbp + TARGET_REQUEST]
    mov   ecx, dword ptr [rbp + TARGET_BUFFERS]
    call  vq_add
    call  vq_kick
    call  vq_wait
    mov   dword ptr [r14 + 12], ecx
    ret

direction:                                                 ; no buffer to write in a queue that is only read
    cmp   dword ptr [rbp + TARGET_TAKES], 0
    je    direction_stays
    lea   rax, [rip + mixed]
    cmp   r13, rax                                         ; this one is about a buffer to write
    je    direction_stays
    and   word ptr [rbx + VRING_DESC_flags], ~WRITE & 0xffff
    and   word ptr [rbx + 16 + VRING_DESC_flags], ~WRITE & 0xffff
    mov   edi, TABLE
    and   word ptr [rdi + VRING_DESC_flags], ~WRITE & 0xffff
    and   word ptr [rdi + 16 + VRING_DESC_flags], ~WRITE & 0xffff
direction_stays:
    ret

clear:                                                     ; the queue's page, after the device has let go of it
    mov   edi, QUEUE
    xor   eax, eax
    mov   ecx, 512
    rep   stosq
    ret

.p2align 3
targets:
    TARGET 0, 0, 0, bytes
    TARGET 1, 0, 0, sector, 3
    TARGET 2, 0, 0, frame_in
    TARGET 3, 1, 1, frame_out
    TARGET 4, 0, 0, bytes
    TARGET 5, 1, 1, line
    TARGET 6, 2, 0, command, 3, FEATURES | VIRTIO_NET_F_CTRL_VQ_MASK | VIRTIO_NET_F_CTRL_RX_MASK
targets_end:

bytes:
    .quad HONEST
    .long 32, WRITE
sector:                                                    ; number 0 of the disk
    .quad blk_header
    .long 16, 0
    .quad HONEST
    .long 512, WRITE
    .quad HONEST + 512
    .long 1, WRITE
frame_in:
    .quad HONEST
    .long 128, WRITE
frame_out:                                                 ; a virtio_net_hdr of zeroes, 60 bytes to everybody
    .quad net_frame
    .long 72, 0
line:
    .quad said
    .long SAID, 0
command:                                                   ; the card takes every frame
    .quad net_command
    .long 2, 0
    .quad net_command + 2
    .long 1, 0
    .quad HONEST
    .long 1, WRITE

blk_header:
    .long VIRTIO_BLK_T_IN, 0
    .quad 0
net_frame:
    .fill 12, 1, 0
    .fill 6, 1, 0xff
    .byte 2, 0, 0, 0, 0, 9
    .fill 48, 1, 0x5a
net_command:
    .byte VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, 1
said:
    .ascii "served\n"
SAID = . - said

.p2align 3
table:
; a chain that goes in a circle
    QUEUE_IS
    DESC BUFFER, 16, WRITE | NEXT, 1
    DESC BUFFER, 16, WRITE | NEXT, 0
    NO_TABLE
; a chain that goes on in a descriptor that the table does not have
    QUEUE_IS
    DESC BUFFER, 16, WRITE | NEXT, 0x1000
    DESC 0, 0, 0
    NO_TABLE
; a head that the table does not have
    QUEUE_IS head=0xffff
    DESC BUFFER, 16, WRITE
    DESC 0, 0, 0
    NO_TABLE
; a buffer in memory that is longer than memory
    QUEUE_IS
    DESC BUFFER, 0xffffffff, WRITE
    DESC 0, 0, 0
    NO_TABLE
; a buffer where no memory is
    QUEUE_IS
    DESC NOWHERE, 16, WRITE
    DESC 0, 0, 0
    NO_TABLE
; a buffer that is the device's own registers
    QUEUE_IS
    DESC VIRTIO_MMIO_BASE, 16, WRITE
    DESC 0, 0, 0
    NO_TABLE
; a buffer whose end is beyond 64 bits
    QUEUE_IS
    DESC 0xfffffffffffffff0, 32, WRITE
    DESC 0, 0, 0
    NO_TABLE
; an index that runs ahead: more chains than the ring has room for
    QUEUE_IS idx=VQ_ENTRIES + 1
    DESC BUFFER, 16, WRITE
    DESC 0, 0, 0
    NO_TABLE
; an index that goes backwards, which is far ahead
    QUEUE_IS idx=0xffff
    DESC BUFFER, 16, WRITE
    DESC 0, 0, 0
    NO_TABLE
; something to read after something to write
mixed:
    QUEUE_IS
    DESC BUFFER, 16, WRITE | NEXT, 1
    DESC BUFFER, 16, 0
    NO_TABLE
; a queue of an odd size
    QUEUE_IS num=7
    DESC BUFFER, 16, WRITE
    DESC 0, 0, 0
    NO_TABLE
; a queue of more entries than the device has
    QUEUE_IS num=0x8000
    DESC BUFFER, 16, WRITE
    DESC 0, 0, 0
    NO_TABLE
; descriptors where no memory is
    QUEUE_IS desc=NOWHERE
    DESC BUFFER, 16, WRITE
    DESC 0, 0, 0
    NO_TABLE
; an available ring that memory ends in
    QUEUE_IS avail=DATA_BASE + 0x160000 - 8
    DESC BUFFER, 16, WRITE
    DESC 0, 0, 0
    NO_TABLE
; a used ring at the end of 64 bits
    QUEUE_IS used=0xfffffffffffffffc
    DESC BUFFER, 16, WRITE
    DESC 0, 0, 0
    NO_TABLE
; an indirect table that is not whole descriptors
    QUEUE_IS
    DESC TABLE, 24, INDIRECT
    DESC 0, 0, 0
    DESC BUFFER, 16, WRITE
    DESC 0, 0, 0
; an indirect table where no memory is
    QUEUE_IS
    DESC NOWHERE, 16, INDIRECT
    DESC 0, 0, 0
    NO_TABLE
; an indirect table that names itself
    QUEUE_IS
    DESC TABLE, 16, INDIRECT
    DESC 0, 0, 0
    DESC TABLE, 16, INDIRECT
    DESC 0, 0, 0
; an indirect table that goes in a circle
    QUEUE_IS
    DESC TABLE, 32, INDIRECT
    DESC 0, 0, 0
    DESC BUFFER, 16, WRITE | NEXT, 1
    DESC BUFFER, 16, WRITE | NEXT, 0
; an indirect descriptor in the middle of a chain
    QUEUE_IS
    DESC TABLE, 16, INDIRECT | NEXT, 1
    DESC BUFFER, 16, WRITE
    DESC BUFFER, 16, WRITE
    DESC 0, 0, 0
table_end:

%include "idt.inc"
%include "virtio.inc"
