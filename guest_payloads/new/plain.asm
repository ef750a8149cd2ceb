; summary: NAME says hello and adds up
; result: sum  u64   the numbers from 1 to 100: 5050
; param:  last = 100 the last number that is added
;
; pyvmm run NAME.asm
; pyvmm run NAME.asm --param last=10 --trace
;
; A file NAME.py beside this one with `def check(guest)` compares results on the host.

%include "results.inc"

start:
    lea   rsi, [rip + greeting]
    call  print

    mov   ecx, PARAM_last
    xor   eax, eax
add_next:
    add   rax, rcx
    dec   rcx
    jnz   add_next
    RESULT sum

    PASS

greeting:
    .asciz "hello from NAME\n"

%include "console.inc"
