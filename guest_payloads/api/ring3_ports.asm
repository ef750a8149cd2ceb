; summary: port I/O of ring 3, by the I/O bitmap of the TSS: what it may do, and what is #GP
; proves:  ring3_ports
; machine: timeout=30
; user:    user_begin user_end
; ports:   0x80 0x81
; result:  allowed  u64   #GPs taken by OUT to 0x80, an allowed port: 0
; result:  read     u64   by IN from 0x81, allowed too: 0
; result:  value    u64   what that IN brought: the device's 0x5a
; result:  wide     u64   by OUT of two bytes to 0x80, both of whose ports are allowed: 0
; result:  denied   u64   by OUT to 0x82, which is not: 1
; result:  partly   u64   by OUT of two bytes to 0x81, whose second port is not: 1
;
; IOPL is 0, so the CPU looks into the bitmap behind the TSS: a port whose bit is clear is ring 3's. An access of
; several bytes needs each of its ports. Where it is refused the CPU raises #GP, and nothing has come to the bus: the
; host half notes what did. Nothing else in this folder does I/O in ring 3 (kernel.inc says why).

%include "results.inc"
%include "ring3.inc"

COUNTS = DATA_BASE                        ; u64 for each step: the #GPs that it took
VALUE  = USER_BASE                        ; u64: what IN brought

; Before an instruction of ring 3: its #GP is counted at `index`, and the guest goes on at `next`.
.macro TRY index, port, next
    mov   ebx, \index
    mov   edx, \port
    lea   r14, [rip + \next]
.endm

.macro FAULTS index, name
    mov   rax, qword ptr [COUNTS + \index * 8]
    RESULT \name
.endm

start:
    mov   edi, GP_VECTOR
    lea   rsi, [rip + general_protection]
    call  set_gate
    mov   edi, UD_VECTOR
    lea   rsi, [rip + finish]
    call  set_gate
    ENTER_RING3 program

general_protection:
    inc   qword ptr [rbx * 8 + COUNTS]
    add   rsp, 8                          ; the error code
    mov   qword ptr [rsp], r14
    iretq

finish:                                   ; ring 3 comes by UD2
    FAULTS 0, allowed
    FAULTS 1, read
    mov   rax, qword ptr [VALUE]
    RESULT value
    FAULTS 2, wide
    FAULTS 3, denied
    FAULTS 4, partly
    PASS

.p2align 12
user_begin:
program:
    mov   eax, 0x2211
    TRY   0, 0x80, second
    out   dx, al
second:
    xor   eax, eax
    TRY   1, 0x81, third
    in    al, dx
third:
    mov   qword ptr [VALUE], rax
    mov   eax, 0x4433
    TRY   2, 0x80, fourth
    out   dx, ax
fourth:
    TRY   3, 0x82, fifth
    out   dx, al
fifth:
    TRY   4, 0x81, last
    out   dx, ax
last:
    ud2
.p2align 12
user_end:

%include "idt.inc"
