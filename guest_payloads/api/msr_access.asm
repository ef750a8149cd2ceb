; summary: MSRs that KVM serves, refuses, filters, or hands over to the VMM
; proves:  msrs_partial, msr_filter, msr_exits
; needs:   KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_X86_MSR_FILTER
; machine: timeout=30
; param:   unknown = 0x12345678   an MSR that nobody has
; result:  star         u64   RDMSR of MSR_STAR
; result:  star_gp      u64   1: it took #GP instead
; result:  lstar        u64   RDMSR of MSR_LSTAR
; result:  lstar_gp     u64
; result:  unknown      u64   RDMSR of the unknown one
; result:  unknown_gp   u64
; result:  unknown_write_gp u64   WRMSR of it
; result:  invalid_gp   u64   WRMSR of EFER with a reserved bit
;
; The same accesses in four machines of the host half: plain, with one MSR denied, with all but one denied, and with
; everything that KVM would refuse handed over to pyvmm.

%include "results.inc"

WRITTEN  = 0x5a5a
RESERVED = 1 << 9                         ; of EFER

.macro TRY instruction, name, gp          ; RESULT of what RDMSR gives, and of whether it faults
    xor   eax, eax
    xor   edx, edx
    TRY_AS_IS \instruction, \gp
    shl   rdx, 32
    or    rax, rdx
    RESULT \name
.endm

.macro TRY_AS_IS instruction, gp
    xor   r13d, r13d                      ; the #GP handler sets it
    \instruction
    mov   r12, rax
    mov   rax, r13
    RESULT \gp
    mov   rax, r12
.endm

start:
    mov   edi, GP_VECTOR
    lea   rsi, [rip + general_protection]
    call  set_gate
    mov   ecx, MSR_STAR
    TRY   rdmsr, star, star_gp
    mov   ecx, MSR_LSTAR
    TRY   rdmsr, lstar, lstar_gp
    mov   ecx, PARAM_unknown
    TRY   rdmsr, unknown, unknown_gp
    mov   eax, WRITTEN
    xor   edx, edx
    TRY_AS_IS wrmsr, unknown_write_gp
    mov   ecx, MSR_EFER
    rdmsr
    or    eax, RESERVED
    TRY_AS_IS wrmsr, invalid_gp
    PASS

general_protection:
    add   rsp, 8                          ; the error code
    add   qword ptr [rsp], 2              ; RDMSR and WRMSR have two bytes
    inc   r13d
    iretq

%include "idt.inc"
