; lesson: ring3
; says: That is what lies at `program`, taken for an address
; summary: into ring 3, and back by an exception
; user:    user_begin user_end
; result:  cs    u64       CS where the exception came from
; result:  rip   u64       RIP there
; result:  rsp   u64       and RSP

%include "results.inc"

start:
    mov   edi, GP_VECTOR
    lea   rsi, [rip + on_gp]
    call  set_gate
    push  USER_DS
    push  USER_STACK_TOP
    push  X86_EFLAGS_FIXED
    push  USER_CS
    push  qword ptr [program]
    iretq

on_gp:                                    ; on the stack: error code, RIP, CS, RFLAGS, RSP, SS
    mov   rax, qword ptr [rsp + 8]
    RESULT rip
    mov   rax, qword ptr [rsp + 16]
    RESULT cs
    mov   rax, qword ptr [rsp + 32]
    RESULT rsp
    PASS

%include "idt.inc"

.p2align 12                               ; a page of its own: this one is open to ring 3
user_begin:
program:
    cli                                   ; interrupts off: only the kernel may, so in ring 3 this is #GP
forbidden:
    hlt                                   ; not reached
.p2align 12
user_end:
