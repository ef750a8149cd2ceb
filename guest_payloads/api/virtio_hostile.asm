; summary: drivers that break every rule of the ring: the device stops and asks for a reset, the host never notices
; proves:  virtio_hostile
; needs:   KVM_CAP_IOEVENTFD, KVM_CAP_IRQFD
; machine: irqchip=split timeout=30
; param:   skip = 0       attacks at the beginning of the table that are left out
; result:  attacks  u64   attacks that were made
;
; Each row of the table below is a driver: the size and the areas of its queue, two descriptors, an indirect table of
; two, the first head in the available ring, and the available index. After it the device must say NEEDS_RESET, in its
; status and, once it was running, by a configuration interrupt; and after the reset it must serve an honest request.
;
; What came of row i is at OUTCOME + 16 * i: the status after the attack (u32), the causes of interrupts ORed (u32), the
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

start:
    mov   r12d, VIRTIO_MMIO_BASE
    mov   ebx, QUEUE
    call  virtio_irq
    lea   r13, [rip + table + PARAM_skip * ROW_SIZE]
    mov   r14d, OUTCOME
next:
    lea   rax, [rip + table_end]
    cmp   r13, rax
    jae   finished
    call  attack
    call  honest
    inc   r15
    add   r13, ROW_SIZE
    add   r14, 16
    jmp   next
finished:
    mov   rax, r15
    RESULT attacks
    PASS

attack:
    mov   rax, FEATURES
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
    mov   ax, word ptr [r13 + ROW_HEAD]
    mov   word ptr [rbx + VQ_AVAIL + VRING_RING], ax
    mov   ax, word ptr [r13 + ROW_IDX]
    mov   word ptr [rbx + VQ_AVAIL + VRING_AVAIL_idx], ax

    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_SEL], 0
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
    mov   dword ptr [r12 + VIRTIO_MMIO_QUEUE_NOTIFY], 0
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
    mov   rax, FEATURES
    call  virtio_init
    call  clear
    xor   eax, eax
    call  virtio_queue
    call  virtio_ready
    lea   rsi, [rip + request]
    mov   ecx, 1
    call  vq_add
    call  vq_kick
    call  vq_wait
    mov   dword ptr [r14 + 12], ecx
    ret

clear:                                                     ; the queue's page, after the device has let go of it
    mov   edi, QUEUE
    xor   eax, eax
    mov   ecx, 512
    rep   stosq
    ret

.p2align 3
request:
    .quad HONEST
    .long 32, WRITE

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
