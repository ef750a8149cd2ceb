; summary: no interrupt controller in the kernel: KVM_INTERRUPT, the interrupt window, HLT exits
; proves:  irqchip_none
; machine: irqchip=none timeout=30
; result:  closed    u64   interrupts 0x51 and 0x52 while interrupts were disabled: 0
; result:  first     u64   of 0x51 after STI: 1
; result:  second    u64   of 0x52, which had to wait for the first one's handler: 1
; result:  open      u64   of 0x53, raised while interrupts were enabled: 1
; result:  woken     u64   of 0x54, raised when the guest had halted: 1
; result:  nmi       u64   NMIs (KVM_NMI) while interrupts were disabled: 1
;
; The VMM is the interrupt controller here. OUT to DELAY_PORT asks it to raise vectors; each handler tells it its
; vector, so that it sees the order. No handler ends its interrupt: there is nothing to end it at.

%include "results.inc"
%include "vectors.inc"

ASKED = DELAY_PORT
TAKEN = DELAY_PORT + 1
PATIENCE = 20000                          ; turns of a loop until the interrupts are given up

.macro ASK what
    mov   al, \what
    out   ASKED, al
    LET_IN
.endm

start:
    TAKE  NMI_VECTOR
    TAKE  0x51
    TAKE  0x52
    TAKE  0x53
    TAKE  0x54

    cli
    ASK   1                               ; 0x51 and 0x52
    mov   rax, qword ptr [COUNTS + 0x51 * 8]
    add   rax, qword ptr [COUNTS + 0x52 * 8]
    RESULT closed
    sti                                   ; the window opens after the next instruction, and KVM exits by itself:
    mov   ecx, PATIENCE                   ; there is nothing in this loop that would
spin:
    pause
    cmp   qword ptr [COUNTS + 0x52 * 8], 1
    jae   taken
    dec   ecx
    jnz   spin
taken:
    STORE 0x51, first
    STORE 0x52, second

    ASK   2                               ; 0x53: nothing to wait for
    STORE 0x53, open

    hlt                                   ; the host half finds the guest halted, and raises 0x54
    LET_IN
    STORE 0x54, woken

    cli
    ASK   3                               ; an NMI asks nobody
    STORE NMI_VECTOR, nmi
    PASS

    COUNT_EVENT NMI_VECTOR
    COUNT_ONLY 0x51, TAKEN
    COUNT_ONLY 0x52, TAKEN
    COUNT_ONLY 0x53, TAKEN
    COUNT_ONLY 0x54, TAKEN

%include "idt.inc"
