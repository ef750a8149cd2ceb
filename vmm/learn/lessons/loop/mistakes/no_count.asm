; lesson: loop
; says: your guest came to no end: it spins in lines 12 to 13, from `add rax, rcx` to `jnz again`. RCX is still 10: nothing counts it down
; param:   last = 10
; result:  sum  u64

%include "results.inc"

start:
    xor   eax, eax
    mov   ecx, PARAM_last
again:
    add   rax, rcx
    jnz   again
    RESULT sum
    PASS
