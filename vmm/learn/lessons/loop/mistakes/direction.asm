; lesson: loop
; says: RCX was counted to 0, and RAX is 0: nothing was added to it
; summary: add up the numbers from 1 to `last`
; param:   last = 10       the check runs the guest with others, too
; result:  sum  u64        1 + 2 + ... + last

%include "results.inc"

start:
    xor   eax, eax                        ; RAX = 0: the sum so far
    mov   ecx, PARAM_last                 ; RCX = the number that is added next
again:
    add   rcx, rax
    dec   rcx
    jnz   again
    RESULT sum                            ; stores RAX
    PASS
