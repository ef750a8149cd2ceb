; summary: a hypercall that nobody answers, and MSRs by filter and unknown, as KVM hands them to the VMM
; needs:   KVM_CAP_EXIT_HYPERCALL, KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_X86_MSR_FILTER
; result:  answer    i64   RAX of KVM_HC_MAP_GPA_RANGE: -KVM_ENOSYS, by pyvmm
; result:  filtered  u64   what RDMSR of MSR_KVM_WALL_CLOCK_NEW gave
; result:  faults    u64   #GPs of the MSR that nobody knows
;
; Recorded by record.py, which claims the wall clock's MSR and the port.

%include "results.inc"

UNKNOWN_MSR = 0xdead
NOBODYS_PORT = 0x500

start:
    mov   edi, GP_VECTOR
    lea   rsi, [rip + refused]
    call  set_gate
    xor   r12d, r12d
    mov   eax, KVM_HC_MAP_GPA_RANGE
    mov   ebx, 0x180000
    mov   ecx, 4
    mov   edx, 0x10
    vmcall                                ; KVM rewrites it where the CPU has VMMCALL
    RESULT answer
    mov   ecx, MSR_KVM_WALL_CLOCK_NEW
    rdmsr
    shl   rdx, 32
    or    rax, rdx
    RESULT filtered
    mov   ecx, UNKNOWN_MSR
    lea   r14, [rip + after_read]
    rdmsr
after_read:
    xor   eax, eax
    xor   edx, edx
    lea   r14, [rip + after_write]
    wrmsr
after_write:
    mov   dx, NOBODYS_PORT
    mov   eax, 1
    out   dx, eax
    mov   rax, r12
    RESULT faults
    PASS

refused:                                  ; go on where R14 says
    add   rsp, 8
    inc   r12
    mov   qword ptr [rsp], r14
    iretq

%include "idt.inc"
