; lesson: loop
; says: with last = 10 your guest stored sum = 0, and 1 + 2 + ... + 10 is 55. That is in RBX; RESULT stores RAX
; param:   last = 10
; result:  sum  u64

%include "results.inc"

start:
    xor   eax, eax
    mov   ecx, PARAM_last
again:
    add   rbx, rcx
    dec   ecx
    jnz   again
    RESULT sum
    PASS
