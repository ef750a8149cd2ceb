; summary: virtio-rng: a driver finds a device, and asks for random bytes by interrupt and by polling
; proves:  virtio_rng
; needs:   KVM_CAP_IOEVENTFD, KVM_CAP_IRQFD
; machine: irqchip=split timeout=30
; param:   features = 0x110000000   what the driver accepts: VIRTIO_F_VERSION_1, VIRTIO_RING_F_INDIRECT_DESC
; param:   pin = 0         pin of the IOAPIC that has the interrupt (irqchip=kernel); 0: it is an MSI
; result:  magic    u32    "virt", 0x74726976
; result:  version  u32    of the register layout: 2
; result:  id       u32    of the device: 4, entropy
; result:  offered  u64    the features that the device offers
; result:  status   u32    after the driver said FEATURES_OK: 0xb, the device agrees
; result:  first    u64    bytes written into the first buffer: its size, 64
; result:  woken    u64    interrupts for it: 1
; result:  quiet    u64    interrupts that came for the second one, with callbacks off: 0
; result:  second   u64    bytes in the second buffer, a chain of 16 and 48
; result:  raced    u64    callbacks on again, with a third buffer used meanwhile: 1, look again
; result:  third    u64    bytes in the third
; result:  status_end u32  the device's status at the end: 0xf, and no NEEDS_RESET
;
; The host half adds the device. What it has of the five operations: add, kick, wait for the interrupt, get; then with
; callbacks off add, kick, poll.

%include "results.inc"
%include "apic.inc"

QUEUE  = DATA_BASE
FIRST  = DATA_BASE + 0x1000               ; three buffers, which the host half reads
SECOND = DATA_BASE + 0x1100
THIRD  = DATA_BASE + 0x1200
FIRST_SIZE   = 64
SECOND_SIZE  = 16                         ; of its first part; the rest is further on
REST_OFFSET  = 0x80
REST_SIZE    = 48
THIRD_SIZE   = 32

start:
    mov   r12d, VIRTIO_MMIO_BASE
    mov   ebx, QUEUE
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_MAGIC_VALUE]
    RESULT magic
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_VERSION]
    RESULT version
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_DEVICE_ID]
    RESULT id
    call  virtio_offered
    RESULT offered

    mov   rax, PARAM_features
    call  virtio_init
    RESULT status
    test  eax, VIRTIO_CONFIG_S_FEATURES_OK
    jz    refused
    xor   eax, eax
    call  virtio_queue
    call  virtio_irq
.if PARAM_pin
    mov   edi, IOAPIC_DEFAULT_PHYS_BASE >> 12
    shl   rdi, 12
    mov   dword ptr [rdi], 0x10 + 2 * PARAM_pin            ; IOREGSEL: low half of the pin's entry
    mov   dword ptr [rdi + 0x10], VIRTIO_VECTOR            ; IOWIN: fixed, edge, not masked, to APIC id 0
.endif
    call  virtio_ready

    ; by interrupt
    lea   rsi, [rip + first]
    mov   ecx, 1
    call  vq_add
    call  vq_kick
    call  vq_wait
    mov   eax, ecx
    RESULT first
taken:                                    ; polling may have been faster than the interrupt
    mov   rax, qword ptr [rip + virtio_interrupts]
    test  rax, rax
    jz    taken
    RESULT woken

    ; by polling
    call  vq_disable
    lea   rsi, [rip + second]
    mov   ecx, 2
    call  vq_add
    call  vq_kick
poll_second:
    pause
    call  vq_get
    cmp   rax, -1
    je    poll_second
    mov   r14d, ecx

    ; callbacks on again, and not forgetting what was used before they were
    lea   rsi, [rip + third]
    mov   ecx, 1
    call  vq_add
    call  vq_kick
used_meanwhile:
    pause
    movzx eax, word ptr [rbx + VQ_USED + VRING_USED_idx]
    cmp   ax, word ptr [rbx + VQ_SEEN]
    je    used_meanwhile
    mov   rax, qword ptr [rip + virtio_interrupts]
    dec   rax                                              ; all but the one for the first buffer
    RESULT quiet
    mov   eax, r14d
    RESULT second
    call  vq_enable
    RESULT raced
    call  vq_get
    mov   eax, ecx
    RESULT third
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_STATUS]
    RESULT status_end
refused:
    PASS

.p2align 3
first:
    .quad FIRST
    .long FIRST_SIZE, VRING_DESC_F_WRITE
second:                                   ; one chain of two buffers
    .quad SECOND
    .long SECOND_SIZE, VRING_DESC_F_WRITE
    .quad SECOND + REST_OFFSET
    .long REST_SIZE, VRING_DESC_F_WRITE
third:
    .quad THIRD
    .long THIRD_SIZE, VRING_DESC_F_WRITE

%include "idt.inc"
%include "virtio.inc"
