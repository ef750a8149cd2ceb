; summary: the paravirtual MMU of the first kernels is gone: bit 2 is not offered, and its hypercall is unknown
; proves:  MMU_OP
; param:   number = 2   KVM_HC_MMU_OP; another one shows the proof fail
; result:  features  u32  EAX of CPUID leaf 0x40000001: bit 2 is clear
; result:  poll      i64  RAX of KVM_HC_VAPIC_POLL_IRQ: 0, so calls arrive
; result:  result    i64  RAX of KVM_HC_MMU_OP: -1000, no such hypercall
; result:  kind      u8   how calls went: 0 VMCALL, 1 VMMCALL, 2 handed over to pyvmm
;
; Before CPUs had nested page tables, a guest could hand KVM its page-table changes in batches. What is left is a
; reserved bit and number. A refusal means something only beside a call that is not refused: hence the first one.

%include "results.inc"

start:
    mov   eax, KVM_CPUID_FEATURES
    cpuid
    mov   eax, eax                        ; clears the upper half
    RESULT features
    call  hypercall_init
    mov   eax, KVM_HC_VAPIC_POLL_IRQ
    call  hypercall
    RESULT poll
    mov   eax, PARAM_number
    mov   ebx, DATA_BASE                  ; where the operations would be
    xor   ecx, ecx
    xor   edx, edx
    xor   esi, esi
    call  hypercall
    RESULT result
    movzx eax, byte ptr [rip + hypercall_kind]
    RESULT kind
    PASS

%include "idt.inc"
%include "hypercall.inc"
