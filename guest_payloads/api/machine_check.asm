; summary: machine checks from the host: a corrected error to be found by polling, an uncorrected one with its #MC
; proves:  mce_corrected, mce_uncorrected
; needs:   KVM_CAP_MCE
; machine: irqchip=none timeout=30
; param:   mce = 1        0 leaves CR4.MCE clear: then an uncorrected error is a triple fault
; result:  banks      u64  MCG_CAP bits 7:0: as the host half set them up, 5
; result:  ctl_p      u64  MCG_CAP bit 8: there is an MCG_CTL, as set up
; result:  quiet      u64  #MC after a corrected error: 0
; result:  status     u64  bank 1's status then
; result:  addr       u64  its address
; result:  misc       u64  its further information
; result:  over       u64  its status after a second one, which came before the first was cleared: OVER is set
; result:  cleared    u64  its status after the guest wrote 0
; result:  disabled   u64  #MC after an uncorrected error in bank 2, whose control register is 0: 0
; result:  mc         u64  #MC after an uncorrected error in bank 1: 1
; result:  mc_status  u64  bank 1's status in that handler
; result:  mcg_status u64  MCG_STATUS there: a check is in progress, and the interrupted program can go on
;
; OUT to DELAY_PORT asks the host half to report an error (KVM_X86_SET_MCE).

%include "results.inc"
%include "vectors.inc"

SEEN_STATUS  = DATA_BASE + 0x1000         ; u64: bank 1's status in the handler
SEEN_MCG     = DATA_BASE + 0x1008         ; u64: MCG_STATUS in the handler

.macro ASK what
    mov   al, \what
    out   DELAY_PORT, al
    LET_IN
.endm

; RAX = an MSR. Changes RCX and RDX.
.macro READ_MSR msr
    mov   ecx, \msr
    rdmsr
    shl   rdx, 32
    or    rax, rdx
.endm

.macro WRITE_MSR msr, low, high
    mov   ecx, \msr
    mov   eax, \low
    mov   edx, \high
    wrmsr
.endm

start:
    TAKE  MC_VECTOR
.if PARAM_mce
    mov   rax, cr4
    or    eax, X86_CR4_MCE
    mov   cr4, rax
.endif
    READ_MSR MSR_IA32_MCG_CAP
    mov   rbx, rax
    movzx eax, bl
    RESULT banks
    mov   eax, ebx
    shr   eax, 8
    and   eax, 1
    RESULT ctl_p
    WRITE_MSR MSR_IA32_MCG_CTL, 0xffffffff, 0xffffffff          ; report everything,
    WRITE_MSR MSR_IA32_MC1_CTL, 0xffffffff, 0xffffffff          ; bank 1 too
    WRITE_MSR MSR_IA32_MC2_CTL, 0, 0                            ; but not bank 2

    ASK   1                               ; corrected
    STORE MC_VECTOR, quiet
    READ_MSR MSR_IA32_MC1_STATUS
    RESULT status
    READ_MSR MSR_IA32_MC1_ADDR
    RESULT addr
    READ_MSR MSR_IA32_MC1_MISC
    RESULT misc
    ASK   1                               ; and once more
    READ_MSR MSR_IA32_MC1_STATUS
    RESULT over
    WRITE_MSR MSR_IA32_MC1_STATUS, 0, 0
    READ_MSR MSR_IA32_MC1_STATUS
    RESULT cleared

    ASK   2                               ; uncorrected, in bank 2
    STORE MC_VECTOR, disabled
    ASK   3                               ; uncorrected, in bank 1
    STORE MC_VECTOR, mc
    mov   rax, qword ptr [SEEN_STATUS]
    RESULT mc_status
    mov   rax, qword ptr [SEEN_MCG]
    RESULT mcg_status
    PASS

count_MC_VECTOR:
    push  rax
    push  rcx
    push  rdx
    inc   qword ptr [COUNTS + MC_VECTOR * 8]
    READ_MSR MSR_IA32_MC1_STATUS
    mov   qword ptr [SEEN_STATUS], rax
    READ_MSR MSR_IA32_MCG_STATUS
    mov   qword ptr [SEEN_MCG], rax
    WRITE_MSR MSR_IA32_MC1_STATUS, 0, 0
    WRITE_MSR MSR_IA32_MCG_STATUS, 0, 0   ; no longer in progress: the next one would be a triple fault else
    pop   rdx
    pop   rcx
    pop   rax
    iretq

%include "idt.inc"
