; summary: bit 2 of the async page-fault MSR: a #PF exit for a nested guest in place of a #PF
; machine: irqchip=split
; param:   msr = 0x4b564d02   MSR_KVM_ASYNC_PF_EN
; result:  feature   bool  CPUID shows KVM_FEATURE_ASYNC_PF_VMEXIT
; result:  nesting   bool  CPUID shows VMX or SVM: this guest could run a guest of its own
; result:  with      bool  1: writing the MSR with bit 2 raised #GP
; result:  read_back u64   the MSR afterwards
; result:  without   bool  1: writing it without bit 2 raised #GP
;
; A hypervisor in the guest sets the bit. When a page of *its* guest is away, KVM then leaves that guest with a #PF exit
; instead of raising a #PF inside it, where nobody would know what it means. Without a guest in the guest, the MSR's
; answer is all there is to see.

%include "results.inc"

SHARED = DATA_BASE                        ; kvm_vcpu_pv_apf_data
PLAIN = KVM_ASYNC_PF_ENABLED | KVM_ASYNC_PF_DELIVERY_AS_INT

.macro TRY_WRITE value                    ; RAX = 1 if it raised #GP
    lea   r14, [rip + after\@]
    xor   r13d, r13d
    mov   ecx, PARAM_msr
    mov   eax, \value
    xor   edx, edx
    wrmsr
after\@:
    mov   eax, r13d
.endm

start:
    mov   edi, GP_VECTOR
    lea   rsi, [rip + general_protection]
    call  set_gate

    mov   eax, KVM_CPUID_FEATURES
    cpuid
    bt    eax, KVM_FEATURE_ASYNC_PF_VMEXIT
    setc  al
    movzx eax, al
    RESULT feature

    mov   eax, 1
    cpuid
    mov   edi, ecx
    shr   edi, 5                          ; bit 5: VMX
    mov   eax, 0x80000001
    cpuid
    shr   ecx, 2                          ; bit 2: SVM
    or    edi, ecx
    mov   eax, edi
    and   eax, 1
    RESULT nesting

    TRY_WRITE SHARED + PLAIN + KVM_ASYNC_PF_DELIVERY_AS_PF_VMEXIT
    RESULT with
    lea   r14, [rip + unreadable]
    mov   ecx, PARAM_msr
    rdmsr
    shl   rdx, 32
    or    rax, rdx
unreadable:                               ; after a #GP: what RAX held
    RESULT read_back
    TRY_WRITE SHARED + PLAIN
    RESULT without
    PASS

; #GP at WRMSR: note it and go on where R14 says.
general_protection:
    add   rsp, 8                          ; the error code
    mov   r13d, 1
    mov   qword ptr [rsp], r14
    iretq

%include "idt.inc"
