; summary: SYSCALL from ring 3 and SYSRET back: where it goes, what it keeps, which flags it clears
; proves:  syscall, syscall_by_set_msrs
; machine: timeout=30
; user:    user_begin user_end
; param:   by_host = 0     1: the host has set STAR, LSTAR and FMASK by KVM_SET_MSRS, and the guest does not
; result:  star      u64   as RDMSR reads them before the first SYSCALL
; result:  lstar     u64
; result:  fmask     u64
; result:  entry_cs  u64   CS in the handler: the kernel's, 0x08
; result:  entry_flags u64 RFLAGS there: without what FMASK clears (IF and DF)
; result:  rcx       u64   the address after SYSCALL
; result:  r11       u64   RFLAGS of ring 3, with IF and DF
; result:  fault_rip u64   0, or where the CPU faulted: at LSTAR, still in ring 3
; result:  fault_error u64 the error code of that
; result:  fault_cs  u64   and its CS
; result:  back_cs   u64   CS after SYSRET: 0x23, ring 3
; result:  back_flags u64  RFLAGS after SYSRET: those of R11
; result:  calls     u64   how many times the handler ran: 2
;
; SYSCALL takes CS and SS from STAR, RIP from LSTAR, saves RIP in RCX and RFLAGS in R11, and clears what FMASK names.
; It leaves RSP alone. A host that emulates ring 0 may leave the CPU in ring 3: then it faults at LSTAR, whose page is
; the kernel's, and the page-fault handler writes down what it found and goes on in the handler's place.

%include "results.inc"
%include "ring3.inc"

STACK = DATA_BASE + 0x8000                ; the kernel's stack for system calls
CALLS = DATA_BASE
MASK  = X86_EFLAGS_IF | X86_EFLAGS_DF

start:
    mov   edi, PF_VECTOR
    lea   rsi, [rip + page_fault]
    call  set_gate
    xor   eax, eax
    RESULT fault_rip
    RESULT fault_error
    RESULT fault_cs
.if !PARAM_by_host
    mov   ecx, MSR_STAR
    mov   rdx, STAR_VALUE
    shr   rdx, 32
    xor   eax, eax
    wrmsr
    mov   ecx, MSR_LSTAR
    lea   rax, [rip + system_call]
    mov   rdx, rax
    shr   rdx, 32
    wrmsr
    mov   ecx, MSR_SYSCALL_MASK
    mov   eax, MASK
    xor   edx, edx
    wrmsr
.endif
    mov   ecx, MSR_STAR
    call  read_msr
    RESULT star
    mov   ecx, MSR_LSTAR
    call  read_msr
    RESULT lstar
    mov   ecx, MSR_SYSCALL_MASK
    call  read_msr
    RESULT fmask
    ENTER_RING3 program, X86_EFLAGS_FIXED | MASK

read_msr:
    rdmsr
    shl   rdx, 32
    or    rax, rdx
    ret

; ---- ring 0: EAX = what ring 3 asks for

system_call:
    mov   r9, rsp                         ; the user's stack
    mov   rsp, STACK
    pushfq
    pop   r8
    mov   r10, cs
by_fault:
    inc   qword ptr [CALLS]
    cmp   eax, 1
    je    first
    mov   rax, rdi
    RESULT back_cs
    mov   rax, rsi
    RESULT back_flags
    mov   rax, qword ptr [CALLS]
    RESULT calls
    PASS
first:
    mov   rax, r10
    RESULT entry_cs
    mov   rax, r8
    RESULT entry_flags
    mov   rax, rcx
    RESULT rcx
    mov   rax, r11
    RESULT r11
    mov   rsp, r9
    sysretq

page_fault:                               ; error code, RIP, CS, RFLAGS, RSP, SS
    mov   r9, qword ptr [rsp + 0x20]
    mov   r8, qword ptr [rsp + 0x18]      ; RFLAGS and CS as SYSCALL left them
    mov   r10, qword ptr [rsp + 0x10]
    mov   r12, rax
    mov   rax, qword ptr [rsp + 8]
    lea   rdx, [rip + system_call]
    cmp   rax, rdx
    jne   stranger
    RESULT fault_rip
    mov   rax, qword ptr [rsp]
    RESULT fault_error
    mov   rax, r10
    RESULT fault_cs
    mov   rax, r12
    mov   rsp, STACK
    jmp   by_fault
stranger:
    FAIL

%include "idt.inc"

; ---- ring 3

.p2align 12
user_begin:
program:
    mov   eax, 1
    syscall
back:
    mov   ecx, cs
    mov   edi, ecx
    pushfq
    pop   rsi
    mov   eax, 2
    syscall
.p2align 12
user_end:
