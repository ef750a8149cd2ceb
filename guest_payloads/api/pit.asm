; summary: the 8254 timer that KVM keeps, through the PIC: a rate and a single shot
; proves:  pit
; needs:   KVM_CAP_IRQCHIP, KVM_CAP_PIT2
; machine: irqchip=kernel timeout=30
; param:   count = 1193      ticks of 1193182 Hz in a period: 1 ms
; param:   masked = 0        1 leaves IRQ 0 masked at the PIC
; result:  reading   u64   the counter, latched while it runs: not 0, not above the count
; result:  rate      u64   interrupts of the rate generator until it was stopped: at least 4
; result:  rate_ticks u64  TSC ticks from the start to the fourth
; result:  single    u64   interrupts on terminal count: 1
; result:  single_ticks u64 TSC ticks from the start to it
;
; The PIT's channel 0 is IRQ 0 of the PIC. It is programmed by a control word and a count in two bytes.

%include "results.inc"
%include "apic.inc"
%include "vectors.inc"

IRQ0 = 0x20
HANDLED = DATA_BASE + 0x1000              ; u64: TSC in the last handler

; RAX = the TSC. Changes RDX.
.macro READ_TSC
    rdtsc
    shl   rdx, 32
    or    rax, rdx
.endm

.macro PROGRAM control, count
    mov   al, \control
    out   PIT_MODE, al
    mov   ax, \count
    out   PIT_CH0, al
    mov   al, ah
    out   PIT_CH0, al
.endm

start:
    X2APIC_ENABLE
    TAKE  IRQ0
    mov   ecx, X2APIC_LVT0
    mov   eax, APIC_DM_EXTINT
    xor   edx, edx
    wrmsr
    mov   al, PIC_ICW1                    ; the master PIC alone: IRQ 0 is vector 0x20
    out   PIC_MASTER_CMD, al
    mov   al, IRQ0
    out   PIC_MASTER_IMR, al
    mov   al, 1 << PIC_CASCADE_IR
    out   PIC_MASTER_IMR, al
    mov   al, PIC_ICW4
    out   PIC_MASTER_IMR, al
    mov   al, 0xfe | PARAM_masked
    out   PIC_MASTER_IMR, al
    sti

    READ_TSC
    mov   r12, rax
    PROGRAM PIT_CH0_RATE, PARAM_count     ; ---- mode 2: an interrupt each time the counter comes to 1
    xor   eax, eax
    out   PIT_MODE, al                    ; latch channel 0, and read it in two bytes
    in    al, PIT_CH0
    mov   bl, al
    in    al, PIT_CH0
    mov   bh, al
    movzx eax, bx
    RESULT reading
    AWAIT_COUNT IRQ0, 4
    mov   rax, qword ptr [HANDLED]
    sub   rax, r12
    RESULT rate_ticks

    cli
    PROGRAM PIT_CH0_ONCE, 0xffff          ; the rate ends, and what of it KVM would have made up for
    PROGRAM PIT_CH0_STROBE, 0xffff        ; and this shot ends: mode 5 waits for a gate that nobody drives
    sti
    LET_IN                                ; what was pending, however long that takes
    cli
    STORE IRQ0, rate
    mov   r13, rax
    inc   r13
    READ_TSC                              ; ---- mode 0: once, when the counter comes to 0
    mov   r12, rax
    PROGRAM PIT_CH0_ONCE, PARAM_count
await:
    cli
    cmp   qword ptr [COUNTS + IRQ0 * 8], r13
    jae   came
    sti
    hlt
    jmp   await
came:
    sti
    mov   rax, qword ptr [HANDLED]
    sub   rax, r12
    RESULT single_ticks
    mov   r14, rax
more:                                     ; for as long again, to see that no second one comes
    pause
    READ_TSC
    sub   rax, qword ptr [HANDLED]
    cmp   rax, r14
    jb    more
    LET_IN
    mov   rax, qword ptr [COUNTS + IRQ0 * 8]
    sub   rax, r13
    inc   rax
    RESULT single
    PASS

count_IRQ0:
    TAKEN_ONCE
    LEAVE_HLT
    push  rax
    push  rdx
    READ_TSC
    mov   qword ptr [HANDLED], rax
    inc   qword ptr [COUNTS + IRQ0 * 8]
    mov   al, PIC_EOI
    out   PIC_MASTER_CMD, al
    pop   rdx
    pop   rax
    iretq

%include "idt.inc"
