; summary: HLT that does not leave the guest, woken by its timer all the same
; proves:  disable_exits
; needs:   KVM_CAP_X86_DISABLE_EXITS
; machine: irqchip=kernel timeout=30
; param:   sleeps = 20      how often the guest halts
; param:   ticks  = 200000  initial count of the timer: 1 ns each
; result:  woken  u64   timer interrupts: as many as sleeps
;
; HLT means: nothing to do until an interrupt. By default it exits to KVM, which gives the CPU to somebody else. A guest
; that has a CPU of its own may keep it: with the exit disabled the CPU itself halts, and an interrupt wakes it sooner.
; The guest cannot tell the difference; KVM's count of halts can.

%include "results.inc"
%include "apic.inc"
%include "entry.inc"

TIMER = 0x40                              ; a vector

start:
    X2APIC_ENABLE
    mov   edi, TIMER
    lea   rsi, [rip + tick]
    call  set_gate
    mov   ecx, X2APIC_TDCR
    mov   eax, APIC_TDR_DIV_1
    xor   edx, edx
    wrmsr
    mov   ecx, X2APIC_LVTT
    mov   eax, TIMER                      ; one-shot
    wrmsr
    xor   ebp, ebp                        ; interrupts so far
    mov   ebx, PARAM_sleeps
sleep:
    mov   ecx, X2APIC_TMICT
    mov   eax, PARAM_ticks
    xor   edx, edx
    wrmsr
    lea   r12d, [rbp + 1]
asleep:                                   ; until its own interrupt has come: another event may end a HLT as well
    sti
    hlt                                   ; STI holds interrupts off until HLT has begun: none is missed
    cli
    cmp   ebp, r12d
    jb    asleep
    dec   ebx
    jnz   sleep
    mov   eax, ebp
    RESULT woken
    PASS

tick:
    TAKEN_ONCE
    LEAVE_HLT
    inc   ebp
    push  rax
    push  rcx
    push  rdx
    X2APIC_END
    pop   rdx
    pop   rcx
    pop   rax
    iretq

%include "idt.inc"
