; lesson: loop
; says: with last = 10 your guest stored sum = 45, and 1 + 2 + ... + 10 is 55. What is missing is 10, the first number
; param:   last = 10
; result:  sum  u64

%include "results.inc"

start:
    xor   eax, eax
    mov   ecx, PARAM_last
again:
    dec   ecx
    add   rax, rcx
    test  ecx, ecx
    jnz   again
    RESULT sum
    PASS
