; summary: the state behind the registers: XSAVE area, XCR0, debug registers, events, LAPIC, run state, from both sides
; proves:  xsave, xcrs, debugregs, vcpu_events, lapic_state, mp_state
; needs:   KVM_CAP_XSAVE, KVM_CAP_XCRS, KVM_CAP_DEBUGREGS, KVM_CAP_VCPU_EVENTS, KVM_CAP_MP_STATE
; machine: irqchip=split timeout=30
; result:  xmm       u64  low half of XMM1, which the host has set through KVM_SET_XSAVE
; result:  size_x87  u64  CPUID 0xd EBX, bytes of the XSAVE area for XCR0, with what the host set there: x87 alone
; result:  size_all  u64  and everything that is offered
; result:  dr2       u64  DR2 as the host has set it
; result:  nmis      u64  NMIs taken: 1, the one that the host made pending
; result:  tpr       u64  the LAPIC's TPR as the host has set it
; result:  awake     u64  1: went on after HLT's state was taken from it
;
; At each OUT the host half looks at what the guest has done, and does something that the guest then looks at.

%include "results.inc"
%include "apic.inc"

NMIS   = DATA_BASE
SCREEN = DATA_BASE + 0x100                ; 16 bytes for MOVDQU

.macro STAGE number
    mov   eax, \number
    out   DELAY_PORT, al
.endm

start:
    mov   edi, NMI_VECTOR
    lea   rsi, [rip + nmi]
    call  set_gate
    X2APIC_ENABLE

    mov   ebx, SCREEN
    mov   rax, 0x1111222233334444
    mov   qword ptr [rbx], rax
    movdqu xmm0, xmmword ptr [rbx]
    STAGE 1                               ; the host finds XMM0, and sets XMM1
    movdqu xmmword ptr [rbx], xmm1
    mov   rax, qword ptr [rbx]
    RESULT xmm

    STAGE 2                               ; XCR0: x87 alone
    call  xsave_size
    RESULT size_x87
    STAGE 3                               ; XCR0: everything
    call  xsave_size
    RESULT size_all

    mov   rax, 0x1234560
    mov   dr1, rax
    STAGE 4                               ; the host finds DR1, and sets DR2
    mov   rax, dr2
    RESULT dr2

    STAGE 5                               ; the host makes an NMI pending
    STAGE 0
    mov   rax, qword ptr [NMIS]
    RESULT nmis

    mov   ecx, X2APIC_TASKPRI
    mov   eax, 0x20
    xor   edx, edx
    wrmsr
    STAGE 6                               ; the host finds TPR in the LAPIC's page, and changes it there
    mov   ecx, X2APIC_TASKPRI
    rdmsr
    RESULT tpr

    STAGE 7                               ; the host halts this vCPU, sees that it waits, and makes it runnable again
    mov   eax, 1
    RESULT awake
    PASS

xsave_size:
    mov   eax, 0xd
    xor   ecx, ecx
    cpuid
    mov   eax, ebx
    ret

nmi:
    inc   qword ptr [NMIS]
    iretq

%include "idt.inc"
