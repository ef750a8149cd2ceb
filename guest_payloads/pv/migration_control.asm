; summary: the MSR by which a guest says whether it may be migrated, served by the VMM
; proves:  MIGRATION_CONTROL
; needs:   KVM_CAP_X86_USER_SPACE_MSR, KVM_CAP_X86_MSR_FILTER
; param:   msr = 0x4b564d08   the feature's MSR
; result:  features u64   EAX of KVM's feature leaf, as this guest sees it: bit 17 announces the MSR
; result:  initial  u64   RDMSR before any WRMSR: 1, a plain guest may be migrated
; result:  denied   u64   RDMSR after WRMSR 0
; result:  allowed  u64   RDMSR after WRMSR 1
; result:  bad_faults u64   #GP for WRMSR with a reserved bit, low and high: 2
; result:  kept     u64   RDMSR afterwards: a refused write changes nothing
; result:  faults   u64   #GP in all
;
; KVM itself has no such MSR: each access leaves the guest and pyvmm answers it. A guest whose memory is encrypted
; starts with 0 here, until it has told its hypervisor which pages may be read (hypercall MAP_GPA_RANGE).

%include "results.inc"

; RDMSR into RAX; all ones if it raises #GP
.macro READ
    mov   ecx, PARAM_msr
    lea   r14, [rip + read_failed\@]      ; where the #GP handler goes on
    rdmsr
    shl   rdx, 32
    or    rax, rdx
    jmp   read_done\@
read_failed\@:
    mov   rax, -1
read_done\@:
.endm

; WRMSR of high:low; nothing happens if it raises #GP, but it is counted
.macro WRITE high, low
    mov   ecx, PARAM_msr
    mov   edx, \high
    mov   eax, \low
    lea   r14, [rip + written\@]
    wrmsr
written\@:
.endm

start:
    mov   edi, GP_VECTOR
    lea   rsi, [rip + general_protection]
    call  set_gate
    xor   r12d, r12d                      ; count of #GP

    mov   eax, KVM_CPUID_FEATURES
    xor   ecx, ecx
    cpuid
    mov   eax, eax
    RESULT features

    READ
    RESULT initial
    WRITE 0, 0
    READ
    RESULT denied
    WRITE 0, 1
    READ
    RESULT allowed
    mov   r13, r12
    WRITE 0, 2                            ; bits 63:1 are reserved
    WRITE 0x80000000, 0
    mov   rax, r12
    sub   rax, r13
    RESULT bad_faults
    READ
    RESULT kept
    mov   rax, r12
    RESULT faults
    PASS

; #GP pushes an error code; below it lie RIP, CS, RFLAGS, RSP, SS.
general_protection:
    add   rsp, 8
    inc   r12
    mov   qword ptr [rsp], r14
    iretq

%include "idt.inc"
