; summary: single-step, breakpoints, watchpoints and INT3 that the host sets, in ring 0 and in ring 3
; user:    user_begin user_end
; ports:   0x80 0xf4
;
; The labels one to six are where the host half waits for the guest. At the end RBX is 3 and RCX too, whatever the host
; has looked at meanwhile.

WATCHED = USER_BASE

.p2align 12
user_begin:
start:
    mov   edi, WATCHED
    out   DELAY_PORT, al                  ; here the host sets its traps
one:
    mov   ebx, 1
two:
    add   ebx, 2
three:
    mov   dword ptr [rdi], ebx            ; a write
four:
    mov   ecx, dword ptr [rdi]            ; a read
five:
    nop
six:
    xor   eax, eax
    out   EXIT_PORT, al
    hlt
.p2align 12
user_end:
