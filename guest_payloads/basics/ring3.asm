; summary: to ring 3 by IRETQ and back by SYSCALL; what ring 3 may not do; the I/O bitmap
; user:    user_begin user_end
; ports:   0x80 0x81
; result:  cpl        u64   the privilege level that ring 3 read from CS: 3
; result:  argument   u64   what ring 3 passed in RDI with its first system call
; result:  return_rip u64   RCX at the system call: where SYSRET goes back to
; result:  by_fault   u64   0: SYSCALL came in ring 0; 1: this host left the CPU in ring 3, and the fault at LSTAR helped
; result:  gp_count   u64   how often ring 3 took #GP: for CLI, for RDMSR, for OUT to a port that the bitmap denies
; result:  pf_error   u64   the error code of its read of a supervisor page: user, read, present
; result:  pf_address u64   and CR2
; result:  finished   u64   the last system call: everything in ring 3 was executed
;
; SYSCALL takes CS and SS from STAR, RIP from LSTAR, and leaves RSP alone: the kernel loads its own stack. Ring 3 may
; use the ports whose bit in the TSS's I/O bitmap is clear (the header's `ports` line), and no others.
;
; A host that emulates ring 0 may get SYSCALL wrong: RIP, RCX and R11 are as they should be, but the CPU stays in
; ring 3 and faults at LSTAR, whose page is the kernel's. The page-fault handler sees that and takes over from there.

%include "results.inc"
%include "ring3.inc"

STACK = DATA_BASE + 0x8000                ; the kernel's stack for system calls
FAULTS = DATA_BASE                        ; u64: count of #GP
BY_FAULT = DATA_BASE + 0x8                ; u64

start:
    mov   edi, GP_VECTOR
    lea   rsi, [rip + general_protection]
    call  set_gate
    mov   edi, PF_VECTOR
    lea   rsi, [rip + page_fault]
    call  set_gate

    mov   ecx, MSR_STAR
    mov   rdx, STAR_VALUE                 ; the selectors of SYSCALL and SYSRET, in bits 63:32
    shr   rdx, 32
    xor   eax, eax
    wrmsr
    mov   ecx, MSR_LSTAR
    lea   rax, [rip + system_call]
    mov   rdx, rax
    shr   rdx, 32
    wrmsr
    mov   ecx, MSR_SYSCALL_MASK
    mov   eax, X86_EFLAGS_IF              ; interrupts off while the kernel has no stack
    xor   edx, edx
    wrmsr
    ENTER_RING3 program

; ---- the kernel's system calls: RAX = number, RDI = argument; RCX = user RIP, R11 = user RFLAGS

system_call:
    mov   r10, rsp
    mov   rsp, STACK
    push  r10
    cmp   eax, 1
    je    report_privilege
    cmp   eax, 2
    je    finish
    FAIL

report_privilege:
    mov   rax, rdi
    RESULT cpl
    mov   rax, rsi
    RESULT argument
    mov   rax, rcx
    RESULT return_rip
    pop   rsp
    sysretq

finish:
    mov   rax, qword ptr [FAULTS]
    RESULT gp_count
    mov   rax, qword ptr [BY_FAULT]
    RESULT by_fault
    mov   rax, rdi
    RESULT finished
    PASS

; ---- faults of ring 3; the interrupted RIP lies above the error code

general_protection:
    inc   qword ptr [FAULTS]
    add   qword ptr [rsp + 8], 2          ; every faulting instruction below has two bytes
    add   rsp, 8
    iretq

page_fault:
    push  rax
    lea   rax, [rip + system_call]
    cmp   rax, qword ptr [rsp + 0x10]     ; did it come at LSTAR?
    je    stuck_in_ring3
    mov   rax, qword ptr [rsp + 8]
    RESULT pf_error
    mov   rax, cr2
    RESULT pf_address
    pop   rax
    add   qword ptr [rsp + 8], 2          ; mov al, [rbx]
    add   rsp, 8
    iretq

stuck_in_ring3:
    mov   eax, 1
    mov   qword ptr [BY_FAULT], rax
    pop   rax
    mov   rsp, qword ptr [rsp + 0x20]     ; the user's stack, as SYSCALL leaves it; we are in ring 0 now
    jmp   system_call

%include "idt.inc"

; ---- ring 3

.p2align 12
user_begin:
program:
    mov   ecx, cs
    and   ecx, 3
    mov   edi, ecx
    mov   esi, 0x1234
    mov   eax, 1
    syscall
back:
    mov   al, 0x33
    out   0x80, al                        ; allowed by the I/O bitmap
    out   0x81, al
    out   0x82, al                        ; denied: #GP
    .byte 0x66, 0xfa                      ; CLI with a prefix, two bytes: #GP
    mov   ecx, MSR_EFER
    rdmsr                                 ; #GP
    mov   ebx, DATA_BASE
    mov   al, byte ptr [rbx]              ; a supervisor page: #PF
    mov   edi, 0x600d
    mov   eax, 2
    syscall
.p2align 12
user_end:
