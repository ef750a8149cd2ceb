; lesson: loop
; says: It is the sum for last = 10, whatever `last` is
; summary: add up the numbers from 1 to `last`
; param:   last = 10       the check runs the guest with others, too
; result:  sum  u64        1 + 2 + ... + last

%include "results.inc"

start:
    xor   eax, eax                        ; RAX = 0: the sum so far
    mov   ecx, PARAM_last                 ; RCX = the number that is added next
    mov   eax, 55
    RESULT sum                            ; stores RAX
    PASS
