; lesson: loop
; summary: add up the numbers from 1 to `last`
; param:   last = 10       the check runs the guest with others, too
; result:  sum  u64        1 + 2 + ... + last
;
; The text of this lesson: pyvmm learn show 3

%include "results.inc"

start:
    xor   eax, eax                        ; RAX = 0: the sum so far
    mov   ecx, PARAM_last                 ; RCX = the number that is added next
    ; >>> your code: a loop that adds RCX to RAX, for RCX = last, last - 1, ... 1
    RESULT sum                            ; stores RAX
    PASS
