; summary: virtio-net: a neighbour is asked for its address and pinged, a long frame comes in pieces, the cable is pulled
; proves:  virtio_net
; needs:   KVM_CAP_IOEVENTFD, KVM_CAP_IRQFD
; machine: irqchip=split timeout=30
; param:   features = 0x100078028   what the driver accepts: VERSION_1, CTRL_RX, CTRL_VQ, STATUS, MRG_RXBUF, MAC, MTU
; result:  id       u32    of the device: 1, network card
; result:  offered  u64    the features that the device offers
; result:  status   u32    after the driver said FEATURES_OK: 0xb, the device agrees
; result:  mac      u64    the card's address, its first byte lowest
; result:  mtu      u32    what the host said: 1400
; result:  link     u32    VIRTIO_NET_S_LINK_UP: 1
; result:  neighbour u64   the address by which the neighbour answered the ARP request
; result:  woken    u64    interrupts for it: 1
; result:  echoed   u32    bytes of the ICMP echo reply that are those of the request: 32
; result:  command  u8     answer to the command that ends promiscuous mode: 0, VIRTIO_NET_OK
; result:  buffers  u32    that the long frame came in: 3
; result:  long     u32    its bytes, with the header
; result:  intact   u32    those of its last 600 that are as the neighbour sent them
; result:  down     u32    the link's status after the cable was pulled: 0
; result:  up       u32    and after it was plugged in: 1
; result:  causes   u32    what interrupted: 3, used buffers and a changed configuration
; result:  status_end u32  the device's status at the end: 0xf, and no NEEDS_RESET
;
; The neighbour is the host half: 192.0.2.2 at the other end of a pair of sockets. The guest is 192.0.2.1. A frame of the
; experimental type 0x88b5 asks the neighbour for something: L, for a frame to somebody else and then a long one to us; P,
; to pull the cable; a frame that is sent then is lost, and after it the cable is there again.

%include "results.inc"
%include "apic.inc"

FRAME = VIRTIO_NET_HDR_SIZE               ; where the frame begins in a buffer
ETHER_PAYLOAD = 14                        ; and where in the frame what it carries
ARP_SENDER    = 22                        ; the sender's address in an ARP frame
ICMP_DATA     = 42                        ; behind Ethernet, IPv4 and ICMP headers
ECHO_SIZE     = 32
LONG_SIZE     = 600

.macro LINK name
    movzx eax, word ptr [r12 + VIRTIO_MMIO_CONFIG + VIRTIO_NET_CONFIG_status]
    RESULT \name
.endm

; put our address into a frame as its sender, and send it
.macro SEND frame, size
    mov   eax, dword ptr [rip + net_mac]
    mov   dword ptr [rip + \frame + 6], eax
    mov   ax, word ptr [rip + net_mac + 4]
    mov   word ptr [rip + \frame + 10], ax
    lea   rsi, [rip + \frame]
    mov   ecx, \size
    call  net_send
.endm

start:
    mov   r12d, VIRTIO_MMIO_BASE
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_DEVICE_ID]
    RESULT id
    call  virtio_offered
    RESULT offered
    mov   rax, PARAM_features
    mov   ebp, 6
    call  net_up
    RESULT status
    test  eax, VIRTIO_CONFIG_S_FEATURES_OK
    jz    refused
    mov   rax, qword ptr [rip + net_mac]
    RESULT mac
    movzx eax, word ptr [r12 + VIRTIO_MMIO_CONFIG + VIRTIO_NET_CONFIG_mtu]
    RESULT mtu
    LINK  link

    ; who has 192.0.2.2?
    mov   rax, qword ptr [rip + net_mac]
    mov   dword ptr [rip + arp + ARP_SENDER], eax
    shr   rax, 32
    mov   word ptr [rip + arp + ARP_SENDER + 4], ax
    SEND  arp, 42
    call  net_receive
    mov   rax, qword ptr [rsi + FRAME + ARP_SENDER]
    shl   rax, 16
    shr   rax, 16
    RESULT neighbour
    mov   dword ptr [rip + ping], eax                      ; and from here on it is spoken to by its own address
    mov   dword ptr [rip + asks], eax
    shr   rax, 32
    mov   word ptr [rip + ping + 4], ax
    mov   word ptr [rip + asks + 4], ax
woken:                                                     ; polling may have been faster than the interrupt
    mov   rax, qword ptr [rip + virtio_interrupts]
    test  rax, rax
    jz    woken
    RESULT woken

    ; are you there?
    SEND  ping, 74
    call  net_receive
    lea   rdi, [rip + ping + ICMP_DATA]
    add   rsi, FRAME + ICMP_DATA
    mov   ecx, ECHO_SIZE
    call  alike
    RESULT echoed

    ; only what is for us: a command, and its answer
    mov   ebx, NET_CONTROL
    mov   eax, 2
    call  virtio_queue
    call  vq_disable
    lea   rsi, [rip + command]
    mov   ecx, 3
    call  vq_add
    call  vq_kick
commanded:
    pause
    call  vq_get
    cmp   rax, -1
    je    commanded
    movzx eax, byte ptr [rip + answer]
    RESULT command

    ; more than one buffer can hold
    mov   byte ptr [rip + asks + ETHER_PAYLOAD], 0x4c      ; L
    SEND  asks, 60
    xor   r13d, r13d                                       ; bytes so far, and bytes that are right
    xor   r14d, r14d
    call  net_receive
    movzx eax, word ptr [rsi + VIRTIO_NET_HDR_num_buffers]
    mov   r9d, eax
    RESULT buffers
    add   r13d, ecx
    add   rsi, FRAME + ETHER_PAYLOAD
    sub   ecx, FRAME + ETHER_PAYLOAD
    lea   rdi, [rip + long_data]
long_next:
    mov   r10d, ecx
    mov   r11, rdi
    call  alike
    add   r14d, eax
    lea   rdi, [r11 + r10]
    dec   r9d
    jz    long_done
    push  rdi
    call  net_receive                                      ; the others are there at the same time
    pop   rdi
    add   r13d, ecx
    jmp   long_next
long_done:
    mov   eax, r13d
    RESULT long
    mov   eax, r14d
    RESULT intact

    ; no cable
    mov   byte ptr [rip + asks + ETHER_PAYLOAD], 0x50      ; P
    SEND  asks, 60
    call  changed
    LINK  down
    SEND  asks, 60                                         ; lost
    call  changed
    LINK  up
    mov   rax, qword ptr [rip + seen]
    RESULT causes
    mov   eax, dword ptr [r12 + VIRTIO_MMIO_STATUS]
    RESULT status_end
refused:
    PASS

changed:                                                   ; sleep until the configuration has changed
    cli
    mov   rax, qword ptr [rip + virtio_causes]
    or    qword ptr [rip + seen], rax
    test  eax, VIRTIO_MMIO_INT_CONFIG
    jnz   changed_now
    sti
    hlt
    jmp   changed
changed_now:
    mov   qword ptr [rip + virtio_causes], 0
    sti
    ret

alike:                                                     ; EAX = how many of the ECX bytes at RSI and RDI are the same
    xor   eax, eax
alike_next:
    mov   dl, byte ptr [rsi]
    cmp   dl, byte ptr [rdi]
    jne   alike_not
    inc   eax
alike_not:
    inc   rsi
    inc   rdi
    dec   ecx
    jnz   alike_next
    ret

.p2align 3
seen:
    .quad 0
command:
    .quad class
    .long VIRTIO_NET_CTRL_HDR_SIZE, 0
    .quad off
    .long 1, 0
    .quad answer
    .long 1, VRING_DESC_F_WRITE
class:
    .byte VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC
off:
    .byte 0
answer:
    .byte 0xff

arp:                                                       ; RFC 826: Ethernet, IPv4, a request
    .byte 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0x08, 0x06
    .byte 0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01
    .byte 0, 0, 0, 0, 0, 0, 0xc0, 0x00, 0x02, 0x01         ; who asks
    .byte 0, 0, 0, 0, 0, 0, 0xc0, 0x00, 0x02, 0x02         ; for whom
ping:                                                      ; RFC 791, RFC 792; both checksums are done
    .byte 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00
    .byte 0x45, 0x00, 0x00, 0x3c, 0x00, 0x01, 0x00, 0x00, 0x40, 0x01, 0xf6, 0xbc
    .byte 0xc0, 0x00, 0x02, 0x01, 0xc0, 0x00, 0x02, 0x02
    .byte 0x08, 0x00, 0x82, 0x73, 0x70, 0x76, 0x00, 0x01
    .ascii "ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`"
asks:                                                      ; a frame of 60 bytes, the least that Ethernet has
    .byte 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x88, 0xb5
    .skip 46
long_data:                                                 ; what the neighbour sends: the host half knows it by this label
    .skip LONG_SIZE

%include "idt.inc"
%include "net.inc"
%include "virtio.inc"
