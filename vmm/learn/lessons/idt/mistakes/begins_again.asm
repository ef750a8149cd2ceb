; lesson: idt
; says: your guest took #DF (double fault)
; says: The stack is at its end: RSP is 0x100
; summary: a handler of one's own for #UD, which steps over the instruction
; result:  taken  u64      how many #UD were taken
; result:  stack  u64      by how much RSP is lower at the end than at the start

%include "results.inc"

start:
    mov   edi, UD_VECTOR
    lea   rsi, [rip + on_ud]
    call  set_gate                        ; vector 6 of the IDT: on_ud
    xor   ebp, ebp                        ; how many were taken
    mov   r12, rsp
    ud2                                   ; two bytes that are no instruction: #UD
    nop
    ud2                                   ; and once more
    sub   r12, rsp
    mov   rax, r12
    RESULT stack
    mov   eax, ebp
    RESULT taken
    PASS

%include "idt.inc"

on_ud:                                    ; on the stack, from RSP up: RIP, CS, RFLAGS, RSP, SS
    inc   ebp
    jmp   start
