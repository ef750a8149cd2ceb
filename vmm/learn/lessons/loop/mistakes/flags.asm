; lesson: loop
; says: your guest stored sum = 0, and 1 + 2 + ... + 10 is 55. RCX is 0xfffffffffffffff7 at the end
; says: ADD sets them, too
; summary: add up the numbers from 1 to `last`
; param:   last = 10       the check runs the guest with others, too
; result:  sum  u64        1 + 2 + ... + last

%include "results.inc"

start:
    xor   eax, eax                        ; RAX = 0: the sum so far
    mov   ecx, PARAM_last                 ; RCX = the number that is added next
again:
    dec   rcx
    add   rax, rcx
    jnz   again
    RESULT sum                            ; stores RAX
    PASS
