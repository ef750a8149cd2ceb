; summary: single-step, breakpoints, watchpoints and INT3 that the host sets, in ring 0 and in ring 3
; proves:  singlestep_ring0, singlestep_ring3, hw_breakpoints_ring0, hw_breakpoints_ring3, watchpoints_ring0
; proves:  watchpoints_ring3, sw_breakpoints_ring0, sw_breakpoints_ring3
; machine: timeout=30
; user:    user_begin user_end
;
; The labels one to six are where the host half waits for the guest. At the end RBX is 3 and RCX too, whatever the host
; has looked at meanwhile. UD2 is the end: of all ways out of ring 3 it is the one that every host has.

WATCHED = USER_BASE

.p2align 12
user_begin:
start:
    mov   edi, WATCHED
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
done:
    ud2
.p2align 12
user_end:
