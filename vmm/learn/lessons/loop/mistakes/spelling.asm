; lesson: loop
; says: your text does not assemble:
; param:   last = 10
; result:  sum  u64

%include "results.inc"

start:
    xor   eax, eax
    mov   ecx, PARAM_last
again:
    add   rax, rcx
    decr  ecx
    jnz   again
    RESULT sum
    PASS
