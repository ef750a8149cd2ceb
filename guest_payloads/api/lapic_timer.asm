; summary: the local APIC's timer in its three modes: once, periodic, at a value of the TSC
; proves:  lapic_timer_oneshot, lapic_timer_periodic, lapic_timer_deadline
; needs:   KVM_CAP_IRQCHIP
; machine: irqchip=split timeout=30
; param:   ticks = 200000    initial count, in 1 ns units of KVM's APIC bus at divider 1
; param:   deadline = 500000 TSC ticks until the deadline
; param:   masked = 0        1 leaves the timer's entry masked
; result:  counting      u64   the current count after a start with LONG: not 0, not above it
; result:  once          u64   one-shot interrupts after waiting for one, and for as long again: 1
; result:  once_ticks    u64   TSC ticks from the start to its handler
; result:  once_left     u64   the current count after it: 0
; result:  periodic      u64   periodic interrupts until it was stopped: 5
; result:  period_ticks  u64   TSC ticks from the start to the fifth
; result:  stopped       u64   interrupts that came after it was stopped: 0
; result:  has_deadline  u64   CPUID.01H:ECX bit 24: the timer has TSC-deadline mode
; result:  armed         i64   the deadline MSR after it was set to a time that is FAR off, minus that time: 0
; result:  deadline      u64   TSC-deadline interrupts: 1
; result:  late          i64   TSC ticks from the deadline to the handler: not negative
; result:  disarmed      u64   the deadline MSR after it fired: 0
; result:  past          u64   interrupts by a deadline that is past already: 1
;
; The guest halts until an interrupt comes, so the run ends by the time limit if one is missing, and nothing depends on
; how long anything takes. HANDLED has the TSC at which the last handler began.

%include "results.inc"
%include "apic.inc"
%include "vectors.inc"

ONCE = 0x41
PERIODIC = 0x42
DEADLINE = 0x43
LONG = 0xffffffff                         ; ns: some 4 s, so that no host is too slow to find it counting
FAR = 0x10000000000                       ; TSC ticks: minutes, likewise
HANDLED = DATA_BASE + 0x1000              ; u64: TSC in the last handler

; RAX = the TSC. Changes RDX.
.macro READ_TSC
    rdtsc
    shl   rdx, 32
    or    rax, rdx
.endm

.macro X2APIC_WRITE msr, value
    mov   ecx, \msr
    mov   eax, \value
    xor   edx, edx
    wrmsr
.endm

; The timer's handlers note when they began.
.macro TIMER_HANDLER vector
count_\vector:
    TAKEN_ONCE
    LEAVE_HLT
    push  rax
    push  rcx
    push  rdx
    READ_TSC
    mov   qword ptr [HANDLED], rax
    inc   qword ptr [COUNTS + \vector * 8]
    X2APIC_END
    pop   rdx
    pop   rcx
    pop   rax
    iretq
.endm

start:
    X2APIC_ENABLE
    TAKE  ONCE
    TAKE  PERIODIC
    TAKE  DEADLINE
    sti
    X2APIC_WRITE X2APIC_TDCR, APIC_TDR_DIV_1

    ; ---- once: writing the initial count starts it, and it stops at 0
    X2APIC_WRITE X2APIC_LVTT, ONCE | PARAM_masked * APIC_LVT_MASKED
    X2APIC_WRITE X2APIC_TMICT, LONG
    mov   ecx, X2APIC_TMCCT
    rdmsr
    mov   eax, eax
    RESULT counting
    READ_TSC
    mov   r12, rax
    X2APIC_WRITE X2APIC_TMICT, PARAM_ticks ; starts anew
    AWAIT_COUNT ONCE, 1
    mov   r13, qword ptr [HANDLED]
    sub   r13, r12                        ; ticks that it took
    mov   rax, r13
    RESULT once_ticks
    mov   ecx, X2APIC_TMCCT
    rdmsr
    mov   eax, eax
    RESULT once_left
again:                                    ; for as long again, to see that no second one comes
    pause
    READ_TSC
    sub   rax, qword ptr [HANDLED]
    cmp   rax, r13
    jb    again
    LET_IN
    STORE ONCE, once

    ; ---- periodic: it starts anew by itself, until the initial count is 0
    X2APIC_WRITE X2APIC_LVTT, PERIODIC | APIC_LVT_TIMER_PERIODIC | PARAM_masked * APIC_LVT_MASKED
    READ_TSC
    mov   r12, rax
    X2APIC_WRITE X2APIC_TMICT, PARAM_ticks
    AWAIT_COUNT PERIODIC, 5
    mov   r14, qword ptr [HANDLED]
    X2APIC_WRITE X2APIC_TMICT, 0
    LET_IN
    sub   r14, r12
    mov   rax, r14
    RESULT period_ticks
    STORE PERIODIC, periodic
    mov   r12, rax
    READ_TSC
    mov   rbp, rax
wait:                                     ; for one period more
    pause
    READ_TSC
    sub   rax, rbp
    cmp   rax, r13
    jb    wait
    LET_IN
    mov   rax, qword ptr [COUNTS + PERIODIC * 8]
    sub   rax, r12
    RESULT stopped

    ; ---- TSC-deadline: an absolute time, written to an MSR
    mov   eax, 1
    xor   ecx, ecx
    cpuid
    mov   eax, ecx
    shr   eax, 24
    and   eax, 1
    RESULT has_deadline
    jz    no_deadline
    X2APIC_WRITE X2APIC_LVTT, DEADLINE | APIC_LVT_TIMER_TSCDEADLINE | PARAM_masked * APIC_LVT_MASKED
    READ_TSC
    mov   rdx, FAR
    add   rax, rdx
    mov   r12, rax
    mov   rdx, rax
    shr   rdx, 32
    mov   ecx, MSR_IA32_TSC_DEADLINE
    wrmsr
    rdmsr
    shl   rdx, 32
    or    rax, rdx
    sub   rax, r12
    RESULT armed
    READ_TSC
    add   rax, PARAM_deadline
    mov   r12, rax
    mov   rdx, rax
    shr   rdx, 32
    mov   ecx, MSR_IA32_TSC_DEADLINE
    wrmsr                                 ; the earlier time in place of the other
    AWAIT_COUNT DEADLINE, 1
    mov   rax, qword ptr [HANDLED]
    sub   rax, r12
    RESULT late
    mov   ecx, MSR_IA32_TSC_DEADLINE
    rdmsr
    shl   rdx, 32
    or    rax, rdx
    RESULT disarmed
    STORE DEADLINE, deadline
    mov   ecx, MSR_IA32_TSC_DEADLINE
    mov   eax, 1                          ; long past: it fires at once
    xor   edx, edx
    wrmsr
    AWAIT_COUNT DEADLINE, 2
    mov   rax, qword ptr [COUNTS + DEADLINE * 8]
    dec   rax
    RESULT past
    PASS
no_deadline:
    xor   eax, eax
    RESULT armed
    RESULT deadline
    RESULT late
    RESULT disarmed
    RESULT past
    PASS

    TIMER_HANDLER ONCE
    TIMER_HANDLER PERIODIC
    TIMER_HANDLER DEADLINE

%include "idt.inc"
