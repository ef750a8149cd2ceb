; summary: events that the host puts into a vCPU: exceptions with all that belongs to them, an interrupt, an NMI
; proves:  inject_exception, inject_exception_payload, inject_interrupt, inject_nmi, triple_fault_event
; needs:   KVM_CAP_VCPU_EVENTS
; machine: irqchip=none timeout=30
; param:   payload = 1      0 leaves out exceptions with a payload
; param:   triple = 0       1 ends the run by a triple fault
; result:  ud          u64  #UD taken: 1
; result:  ud_rip      u64  its RIP, less that of the instruction after the OUT: 0
; result:  gp          u64  #GP taken: 1
; result:  gp_code     u64  its error code: 0x1238
; result:  pf          u64  #PF taken, one without a payload and one with: 2 (1)
; result:  pf_code     u64  the last one's error code: 6, a write from ring 3
; result:  cr2_before  u64  CR2 in the handler without a payload: what it was, 0
; result:  cr2         u64  CR2 in the handler with the address as payload
; result:  db          u64  #DB taken: 1
; result:  dr6         u64  bits 14 (BS) and 0 of DR6 there, by payload: 0x4000
; result:  interrupt   u64  of 0x71, which no controller has sent: 1
; result:  nmi         u64  NMIs: 1
;
; OUT to DELAY_PORT asks the host half for the next event. It comes after the OUT, as if that had caused it.

%include "results.inc"
%include "vectors.inc"

SEEN_CODE = DATA_BASE + 0x1000            ; u64: the last error code
SEEN_RIP  = DATA_BASE + 0x1008            ; u64: where the last exception came
SEEN_CR2  = DATA_BASE + 0x1010            ; u64: CR2 in the last #PF
SEEN_DR6  = DATA_BASE + 0x1018            ; u64: DR6 in the last #DB

.macro ASK what
    mov   al, \what
    out   DELAY_PORT, al
.endm

start:
    TAKE  UD_VECTOR
    TAKE  GP_VECTOR
    TAKE  PF_VECTOR
    TAKE  DB_VECTOR
    TAKE  NMI_VECTOR
    TAKE  0x71
    cli

    ASK   1                               ; #UD
after_ud:
    STORE UD_VECTOR, ud
    lea   rcx, [rip + after_ud]
    mov   rax, qword ptr [SEEN_RIP]
    sub   rax, rcx
    RESULT ud_rip

    ASK   2                               ; #GP with error code
    STORE GP_VECTOR, gp
    mov   rax, qword ptr [SEEN_CODE]
    RESULT gp_code

    ASK   3                               ; #PF, CR2 left alone
    mov   rax, qword ptr [SEEN_CR2]
    RESULT cr2_before
.if PARAM_payload
    ASK   4                               ; #PF with its address
.endif
    STORE PF_VECTOR, pf
    mov   rax, qword ptr [SEEN_CODE]
    RESULT pf_code
    mov   rax, qword ptr [SEEN_CR2]
    RESULT cr2
.if PARAM_payload
    ASK   5                               ; #DB with the reason
.endif
    STORE DB_VECTOR, db
    mov   rax, qword ptr [SEEN_DR6]
    and   eax, 0x4001
    RESULT dr6

    sti                                   ; VMX refuses to inject an interrupt where the guest could take none
    ASK   6                               ; an interrupt
    cli
    STORE 0x71, interrupt
    ASK   7                               ; an NMI
    STORE NMI_VECTOR, nmi
.if PARAM_triple
    ASK   8                               ; a triple fault
.endif
    PASS

count_GP_VECTOR:
    pop   qword ptr [SEEN_CODE]
    inc   qword ptr [COUNTS + GP_VECTOR * 8]
    iretq
count_PF_VECTOR:
    pop   qword ptr [SEEN_CODE]
    push  rax
    mov   rax, cr2
    mov   qword ptr [SEEN_CR2], rax
    pop   rax
    inc   qword ptr [COUNTS + PF_VECTOR * 8]
    iretq
count_DB_VECTOR:
    push  rax
    mov   rax, dr6
    mov   qword ptr [SEEN_DR6], rax
    xor   eax, eax
    mov   dr6, rax                        ; the CPU never clears it
    pop   rax
    inc   qword ptr [COUNTS + DB_VECTOR * 8]
    iretq
count_UD_VECTOR:
    push  rax
    mov   rax, qword ptr [rsp + 8]
    mov   qword ptr [SEEN_RIP], rax
    pop   rax
    inc   qword ptr [COUNTS + UD_VECTOR * 8]
    iretq
    COUNT_EVENT NMI_VECTOR
    COUNT_EVENT 0x71

%include "idt.inc"
