; summary: NMIs, by KVM_NMI and by message: interrupts disabled do not matter, an NMI's own handler does
; proves:  nmi
; needs:   KVM_CAP_USER_NMI
; machine: irqchip=split timeout=30
; result:  inside    u64   NMIs taken inside the first one's handler, where a second was sent: 0
; result:  after     u64   NMIs after its IRET, interrupts disabled all the time: 2, the second had to wait
; result:  message   u64   after one more, sent as an MSI with delivery mode NMI: 3
;
; OUT to DELAY_PORT asks the host half to send one; the handler asks once too, and until its IRET none may come.

%include "results.inc"
%include "apic.inc"
%include "vectors.inc"

.macro ASK what
    mov   al, \what
    out   DELAY_PORT, al
    LET_IN
.endm

INSIDE = DATA_BASE + 0x1000               ; u64: NMIs that came while the first one's handler ran

start:
    X2APIC_ENABLE
    TAKE  NMI_VECTOR
    cli
    ASK   1
    mov   rax, qword ptr [INSIDE]
    RESULT inside
    STORE NMI_VECTOR, after
    ASK   3
    STORE NMI_VECTOR, message
    PASS

count_NMI_VECTOR:
    push  rax
    push  rcx
    inc   qword ptr [COUNTS + NMI_VECTOR * 8]
    cmp   qword ptr [COUNTS + NMI_VECTOR * 8], 1
    jne   done
    ASK   2                               ; from inside
    mov   rax, qword ptr [COUNTS + NMI_VECTOR * 8]
    dec   rax
    mov   qword ptr [INSIDE], rax
done:
    pop   rcx
    pop   rax
    iretq

%include "idt.inc"
