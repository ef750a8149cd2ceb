; lesson: two_cpus
; says: A SIPI that came before the INIT is lost
; summary: start a second CPU
; machine: irqchip=split cpus=2
; result:  arrived  u64    CPUs that were started: 1

%include "results.inc"
%include "apic.inc"

SHARED = DATA_BASE                        ; a word that both CPUs use

start:
    lea   rsi, [rip + trampoline]         ; the code of the second CPU, to where a SIPI can send it
    mov   edi, TRAMPOLINE_BASE
    mov   ecx, trampoline_end - trampoline
    rep   movsb
    X2APIC_ENABLE
    X2APIC_SEND 1, APIC_DM_STARTUP | APIC_INT_ASSERT | (TRAMPOLINE_BASE >> 12)
    X2APIC_SEND 1, APIC_DM_INIT | APIC_INT_ASSERT

wait:                                     ; the second CPU says that it is there
    pause
    mov   rax, qword ptr [SHARED]
    test  rax, rax
    jz    wait
    RESULT arrived
    PASS

.code16
trampoline:                               ; real mode, at TRAMPOLINE_BASE
    mov   ax, SHARED >> 4
    mov   ds, ax
    lock  inc dword ptr [0]               ; LOCK: nobody else is between its read and its write
rest:
    hlt
    jmp   rest
trampoline_end:
