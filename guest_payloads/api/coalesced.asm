; summary: writes that KVM collects in a ring, and that the VMM sees in order with the exits around them
; proves:  coalesced_mmio, coalesced_pio
; needs:   KVM_CAP_COALESCED_MMIO
; machine: timeout=30
; param:   mmio = 0xd0700000   the zone, 0x100 bytes; 0x800 above it is a register that always exits
; param:   port = 0x1400       the port of the other zone
; param:   few = 20            writes in a burst that fits into the ring
; param:   many = 400          writes in one that does not: KVM has room for 169
; result:  written u64   the number in the last write
;
; Every write carries the next number, so that the order in which devices see them can be checked. A device that takes
; many writes and answers none (a frame buffer, a log) loses nothing if they come late, but order it needs.

%include "results.inc"

.macro TO_ZONE                            ; a collected write, to one of 16 registers
    inc   ebp
    mov   edi, ebp
    and   edi, 0xf
    mov   dword ptr [rbx + rdi * 4], ebp
.endm

.macro TO_REGISTER                        ; a write that exits
    inc   ebp
    mov   dword ptr [rbx + 0x800], ebp
.endm

.macro TO_PORT                            ; a collected write to a port, where KVM can
    inc   ebp
    mov   eax, ebp
    out   dx, eax
.endm

start:
    mov   ebx, PARAM_mmio
    mov   edx, PARAM_port
    xor   ebp, ebp
    mov   ecx, PARAM_few
burst:
    TO_ZONE
    dec   ecx
    jnz   burst
    TO_REGISTER                           ; behind all of them

    mov   ecx, PARAM_few
ports:
    TO_PORT
    dec   ecx
    jnz   ports
    TO_REGISTER

    mov   ecx, PARAM_few
mixed:                                    ; both zones share the ring
    TO_ZONE
    TO_PORT
    dec   ecx
    jnz   mixed
    TO_REGISTER

    mov   ecx, PARAM_many
flood:
    TO_ZONE
    dec   ecx
    jnz   flood
    TO_REGISTER

    mov   al, 1
    out   DELAY_PORT, al                  ; the host half takes the zones back
    mov   ecx, PARAM_few
alone:
    TO_ZONE
    TO_PORT
    dec   ecx
    jnz   alone
    mov   eax, ebp
    RESULT written
    PASS
