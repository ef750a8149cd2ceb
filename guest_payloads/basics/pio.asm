; summary: port I/O in every width, and string I/O with REP
; param:   port = 0x1234   the port at which the host half listens
; result:  in8     u64   what the host answered to an 8-bit IN
; result:  in16    u64   to a 16-bit IN
; result:  in32    u64   to a 32-bit IN
; result:  ins     u64   8 bytes that REP INSW gathered from one port
; result:  nobody  u64   a port that no device claims reads all ones
;
; An IN or OUT leaves the guest with its port, width and data (KVM_EXIT_IO). REP OUTS may bring many elements in one
; exit, all for the same port; the elements lie one after the other in the data.

%include "results.inc"

start:
    mov   dx, PARAM_port
    mov   al, 0x11
    out   dx, al
    mov   ax, 0x2222
    out   dx, ax
    mov   eax, 0x44444444
    out   dx, eax

    xor   eax, eax
    in    al, dx
    RESULT in8
    xor   eax, eax
    in    ax, dx
    RESULT in16
    xor   eax, eax
    in    eax, dx
    RESULT in32

    cld
    lea   rsi, [rip + words]
    mov   ecx, 5
    rep   outsw                           ; five 16-bit elements, in order, to one port
    mov   edi, DATA_BASE
    mov   ecx, 4
    rep   insw
    mov   rax, qword ptr [DATA_BASE]
    RESULT ins

    mov   dx, 0x5678
    xor   eax, eax
    in    al, dx
    RESULT nobody
    PASS

words:
    .word 0x1000, 0x2001, 0x3002, 0x4003, 0x5004

