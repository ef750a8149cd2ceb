; summary: virtio-console: a guest writes, the host answers, the guest echoes; then the window changes its size
; proves:  virtio_console
; needs:   KVM_CAP_IOEVENTFD, KVM_CAP_IRQFD
; machine: irqchip=split timeout=30
; param:   features = 0x100000001   what the driver accepts: VERSION_1, VIRTIO_CONSOLE_F_SIZE
; result:  id       u32    of the device: 3, console
; result:  offered  u64    the features that the device offers
; result:  status   u32    after the driver said FEATURES_OK: 0xb, the device agrees
; result:  queues   u32    queues that became ready: 2, one to receive and one to transmit
; result:  cols     u32    width of the window at first: 80
; result:  received u64    bytes of the host's answer
; result:  woken    u64    interrupts so far: 1, for the answer; output had its callbacks off
; result:  echoed   u64    bytes that the device says it wrote while it took the echo: 0
; result:  wider    u32    width after the host changed it: 132
; result:  causes   u32    what interrupted: 3, a used buffer and a changed configuration
; result:  status_end u32  the device's status at the end: 0xf, and no NEEDS_RESET
;
; Queue 0 brings input: the driver gives empty buffers in advance, and the device keeps them until there is something to
; say. Queue 1 takes output. The host half answers the first line with another, and the echo with a new window size.

%include "results.inc"
%include "apic.inc"

RECEIVE  = DATA_BASE                      ; the two queues
TRANSMIT = DATA_BASE + 0x1000
INPUT    = DATA_BASE + 0x2000

start:
    mov   r12d, VIRTIO_MMIO_BASE
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_DEVICE_ID]
    RESULT id
    call  virtio_offered
    RESULT offered
    mov   rax, PARAM_features
    call  virtio_init
    RESULT status
    test  eax, VIRTIO_CONFIG_S_FEATURES_OK
    jz    refused
    mov   ebx, RECEIVE
    xor   eax, eax
    call  virtio_queue
    mov   r13d, eax
    mov   ebx, TRANSMIT
    mov   eax, 1
    call  virtio_queue
    add   eax, r13d
    RESULT queues
    call  vq_disable                                       ; who only writes need not hear that it was read
    call  virtio_irq
    call  virtio_ready
    movzx eax, word ptr [r12 + VIRTIO_MMIO_CONFIG + VIRTIO_CONSOLE_CONFIG_cols]
    RESULT cols

    ; somewhere to put input
    mov   ebx, RECEIVE
    lea   rsi, [rip + input]
    mov   ecx, 1
    call  vq_add
    call  vq_kick

    ; say something
    mov   ebx, TRANSMIT
    lea   rsi, [rip + hello]
    mov   ecx, 1
    call  vq_add
    call  vq_kick

    ; the answer
    mov   ebx, RECEIVE
    call  vq_wait
    mov   r13d, ecx
    mov   eax, ecx
    RESULT received
woken:                                                     ; polling may have been faster than the interrupt
    mov   rax, qword ptr [rip + virtio_interrupts]
    test  rax, rax
    jz    woken
    RESULT woken

    ; get the first line's buffer back, then send the echo: one chain of two buffers
    mov   ebx, TRANSMIT
    call  sent
    mov   dword ptr [rip + echo + 24], r13d                ; as long as the answer was
    lea   rsi, [rip + echo]
    mov   ecx, 2
    call  vq_add
    call  vq_kick
    call  sent
    mov   eax, ecx
    RESULT echoed

resized:                                                   ; sleep until the configuration has changed
    cli
    test  dword ptr [rip + virtio_causes], VIRTIO_MMIO_INT_CONFIG
    jnz   changed
    sti
    hlt
    jmp   resized
changed:
    sti
    movzx eax, word ptr [r12 + VIRTIO_MMIO_CONFIG + VIRTIO_CONSOLE_CONFIG_cols]
    RESULT wider
    mov   rax, qword ptr [rip + virtio_causes]
    RESULT causes
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_STATUS]
    RESULT status_end
refused:
    PASS

sent:
    pause
    call  vq_get
    cmp   rax, -1
    je    sent
    ret

.p2align 3
hello:
    .quad text
    .long text_end - text, 0
input:
    .quad INPUT
    .long 64, VRING_DESC_F_WRITE
echo:
    .quad prefix
    .long 6, 0
    .quad INPUT
    .long 0, 0
text:
    .ascii "guest: anybody there?\n"
text_end:
prefix:
    .ascii "echo: "

%include "idt.inc"
%include "virtio.inc"
