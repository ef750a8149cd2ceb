; summary: NAME says hello and adds up
; result: sum  u64   the numbers from 1 to 100: 5050
; param:  last = 100 the last number that is added
;
; pyvmm run NAME.asm
; pyvmm run NAME.asm --param last=10 --trace
; pyvmm run NAME.asm --watch
;
; The lines above are the header: pyvmm reads what the guest stores and which parameters it has. A file NAME.py beside
; this one with `def check(guest)` compares results on the host.

%include "results.inc"              ; RESULT, PASS, FAIL

start:                              ; the CPU begins here: 64-bit mode, ring 0, a stack, paging on
    lea   rsi, [rip + greeting]
    call  print                     ; of console.inc: text to the debug console, port 0xe9

    mov   ecx, PARAM_last           ; the header's parameter, as a constant
    xor   eax, eax
add_next:
    add   rax, rcx
    dec   rcx
    jnz   add_next
    RESULT sum                      ; stores RAX where the host finds it

    PASS                            ; an OUT to the exit port: the run ends

greeting:
    .asciz "hello from NAME\n"

%include "console.inc"              ; code: behind your own, so that nobody runs into it
