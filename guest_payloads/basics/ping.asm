; summary: a network card in use: who has the gateway's address, and does it answer a ping?
; machine: irqchip=split timeout=10
; devices: virtio_net
; param:   ip      = 0x0a000264    our own IPv4 address, 10.0.2.100
; param:   gateway = 0x0a000202    whom to ping, 10.0.2.2
; param:   count   = 3             how many pings
; result:  link     u32   1 if there is a cable
; result:  found    u64   the gateway's MAC address, its first byte lowest
; result:  answers  u64   pings that were answered with the bytes that were sent
;
; `pyvmm run ping --net slirp4netns:SOCKET` talks to `slirp4netns --target-type=bess SOCKET`; docs/virtio.md has passt and
; tap devices. Without a cable the payload is skipped.

%include "results.inc"
%include "apic.inc"

FEATURES = VIRTIO_F_VERSION_1_MASK | VIRTIO_NET_F_MAC_MASK | VIRTIO_NET_F_STATUS_MASK | VIRTIO_NET_F_MRG_RXBUF_MASK
FRAME = VIRTIO_NET_HDR_SIZE               ; where the frame begins in a buffer
TYPE  = 12                                ; in a frame: what it carries, in network order
ARP_REPLY = 0x0200
ARP_OPERATION = 20
ARP_SENDER    = 22
IP_HEADER = 14
IP_SIZE   = 20
ICMP      = 34
ICMP_SIZE = 40                            ; with 32 bytes of data

; a 32-bit number in network order
.macro NETWORK place, number
    mov   eax, \number
    bswap eax
    mov   dword ptr [rip + \place], eax
.endm

start:
    mov   r12d, VIRTIO_MMIO_BASE
    mov   rax, FEATURES
    mov   ebp, VQ_ENTRIES
    call  net_up
    movzx eax, word ptr [r12 + VIRTIO_MMIO_CONFIG + VIRTIO_NET_CONFIG_status]
    RESULT link
    test  eax, VIRTIO_NET_S_LINK_UP
    jz    nobody

    mov   rax, qword ptr [rip + net_mac]
    mov   dword ptr [rip + arp + 6], eax
    mov   dword ptr [rip + arp + 22], eax
    mov   dword ptr [rip + ping + 6], eax
    shr   rax, 32
    mov   word ptr [rip + arp + 10], ax
    mov   word ptr [rip + arp + 26], ax
    mov   word ptr [rip + ping + 10], ax
    NETWORK arp + 28, PARAM_ip
    NETWORK arp + 38, PARAM_gateway
    NETWORK ping + 26, PARAM_ip
    NETWORK ping + 30, PARAM_gateway
    lea   rsi, [rip + ping + IP_HEADER]
    mov   ecx, IP_SIZE
    call  checksum
    mov   word ptr [rip + ping + 24], ax

ask:
    lea   rsi, [rip + arp]
    mov   ecx, 42
    call  net_send
find:
    call  net_receive
    cmp   word ptr [rsi + FRAME + TYPE], 0x0608            ; ARP
    jne   find_next
    cmp   word ptr [rsi + FRAME + ARP_OPERATION], ARP_REPLY
    je    found
find_next:
    call  net_again                                        ; others may have something to say as well, and a host that
    jmp   ask                                              ; has just seen the cable loses its first answer: ask again
found:
    mov   rax, qword ptr [rsi + FRAME + ARP_SENDER]
    shl   rax, 16
    shr   rax, 16
    RESULT found
    mov   dword ptr [rip + ping], eax
    shr   rax, 32
    mov   word ptr [rip + ping + 4], ax
    call  net_again

    xor   r13d, r13d
    mov   r14d, PARAM_count
next:
    dec   r14
    js    done
    mov   word ptr [rip + ping + ICMP + 6], r14w           ; another sequence number, and so another checksum
    mov   word ptr [rip + ping + ICMP + 2], 0
    lea   rsi, [rip + ping + ICMP]
    mov   ecx, ICMP_SIZE
    call  checksum
    mov   word ptr [rip + ping + ICMP + 2], ax
    lea   rsi, [rip + ping]
    mov   ecx, 74
    call  net_send
answer:
    call  net_receive
    cmp   word ptr [rsi + FRAME + TYPE], 0x0008            ; IPv4, ICMP, an echo reply, and ours by number
    jne   answer_next
    cmp   byte ptr [rsi + FRAME + IP_HEADER + 9], 1
    jne   answer_next
    cmp   word ptr [rsi + FRAME + ICMP], 0
    jne   answer_next
    cmp   word ptr [rsi + FRAME + ICMP + 6], r14w
    je    answered
answer_next:
    call  net_again
    jmp   answer
answered:
    push  rsi
    add   rsi, FRAME + ICMP + 8
    lea   rdi, [rip + ping + ICMP + 8]
    mov   ecx, ICMP_SIZE - 8
compare:
    mov   al, byte ptr [rsi]
    cmp   al, byte ptr [rdi]
    jne   compared
    inc   rsi
    inc   rdi
    dec   ecx
    jnz   compare
    inc   r13
compared:
    pop   rsi
    call  net_again
    jmp   next
done:
    mov   rax, r13
    RESULT answers
    cmp   r13, PARAM_count
    jne   short_of
    PASS
short_of:
    FAIL
nobody:
    SKIP

.p2align 3
arp:                                                       ; RFC 826: Ethernet, IPv4, a request
    .byte 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0x08, 0x06
    .byte 0x00, 0x01, 0x08, 0x00, 0x06, 0x04, 0x00, 0x01
    .byte 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
    .byte 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
ping:                                                      ; RFC 791, RFC 792
    .byte 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x08, 0x00
    .byte 0x45, 0x00, 0x00, 0x3c, 0x00, 0x01, 0x00, 0x00, 0x40, 0x01, 0x00, 0x00
    .byte 0, 0, 0, 0, 0, 0, 0, 0
    .byte 0x08, 0x00, 0x00, 0x00, 0x70, 0x76, 0x00, 0x00
    .ascii "ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`"

%include "idt.inc"
%include "net.inc"
%include "virtio.inc"
