; lesson: timer
; says: your guest 
; says: ran on past its last line, line 
; summary: three interrupts of the local APIC's timer
; machine: irqchip=split
; result:  ticks     u64   interrupts that were counted: 3 or more
; result:  stack     u64   by how much RSP is lower at the end
; result:  kept_rax  u64   RAX, RCX and RDX after the interrupts: 0x1111, 0x2222, 0x3333
; result:  kept_rcx  u64
; result:  kept_rdx  u64

%include "results.inc"
%include "apic.inc"

TIMER  = 0x40                             ; the vector of the timer's interrupt
TICKS  = DATA_BASE
PERIOD = 1000000                          ; nanoseconds: KVM's APIC timer counts at 1 GHz

.macro WRITE_MSR msr, value               ; changes RAX, RCX, RDX
    mov   ecx, \msr
    mov   eax, \value
    xor   edx, edx
    wrmsr
.endm

start:
    mov   edi, TIMER
    lea   rsi, [rip + tick]
    call  set_gate
    X2APIC_ENABLE
    WRITE_MSR X2APIC_TDCR, APIC_TDR_DIV_1
    WRITE_MSR X2APIC_LVTT, TIMER | APIC_LVT_TIMER_PERIODIC
    WRITE_MSR X2APIC_TMICT, PERIOD
    mov   r12, rsp
    mov   eax, 0x1111                     ; a program that is interrupted must not notice
    mov   ecx, 0x2222
    mov   edx, 0x3333
wait:
    sti                                   ; interrupts on, after the next instruction
    hlt
    cli
    cmp   qword ptr [TICKS], 3
    jb    wait
    RESULT kept_rax
    mov   rax, rcx
    RESULT kept_rcx
    mov   rax, rdx
    RESULT kept_rdx
    sub   r12, rsp
    mov   rax, r12
    RESULT stack
    mov   rax, qword ptr [TICKS]
    RESULT ticks
    PASS

%include "idt.inc"

tick:                                     ; the handler; no error code
    inc   qword ptr [TICKS]
    push  rax
    push  rcx
    push  rdx
    WRITE_MSR X2APIC_EOI, 0
    pop   rdx
    pop   rcx
    pop   rax
