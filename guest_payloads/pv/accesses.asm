; summary: a table of RDMSRs, WRMSRs, hypercalls and CPUIDs, done one by one; what each came to
; result:  done  u64   how many operations were done
; result:  kind  u64   how hypercalls went: 0 VMCALL, 1 VMMCALL, 2 handed over to pyvmm
; machine: irqchip=split
;
; The tool behind every refusal: the host half writes operations of 64 bytes to TABLE and reads the answers back from
; the same place. #GP is caught, and becomes outcome 1.
;   u64 what: 1 RDMSR, 2 WRMSR, 3 hypercall, 4 CPUID; 0 ends the table
;   u64 number: MSR, hypercall or CPUID leaf
;   u64 a0, a1, a2, a3: WRMSR's value is a0, CPUID's index is a0
;   u64 outcome: 0 done, 1 #GP      u64 value: RDMSR's, hypercall's RAX; CPUID stores EAX | EBX << 32 and ECX | EDX << 32
;   in a0 and a1

%include "results.inc"

TABLE = DATA_BASE

start:
    call  hypercall_init
    mov   edi, GP_VECTOR
    lea   rsi, [rip + general_protection]
    call  set_gate
    mov   ebp, TABLE
    xor   r12d, r12d
next:
    mov   r13d, 0                         ; outcome
    mov   rdi, qword ptr [rbp]
    test  edi, edi
    jz    finished
    cmp   edi, 1
    je    read_msr
    cmp   edi, 2
    je    write_msr
    cmp   edi, 3
    je    call_host

    mov   eax, dword ptr [rbp + 8]        ; CPUID
    mov   ecx, dword ptr [rbp + 16]
    cpuid
    mov   dword ptr [rbp + 16], eax
    mov   dword ptr [rbp + 20], ebx
    mov   dword ptr [rbp + 24], ecx
    mov   dword ptr [rbp + 28], edx
    jmp   store

read_msr:
    mov   ecx, dword ptr [rbp + 8]
    xor   eax, eax
    xor   edx, edx
    lea   r14, [rip + after_read]
    rdmsr
after_read:
    shl   rdx, 32
    or    rax, rdx
    mov   qword ptr [rbp + 56], rax
    jmp   store

write_msr:
    mov   ecx, dword ptr [rbp + 8]
    mov   eax, dword ptr [rbp + 16]
    mov   edx, dword ptr [rbp + 20]
    lea   r14, [rip + store]
    wrmsr
    jmp   store

call_host:
    mov   rax, qword ptr [rbp + 8]
    mov   rbx, qword ptr [rbp + 16]
    mov   rcx, qword ptr [rbp + 24]
    mov   rdx, qword ptr [rbp + 32]
    mov   rsi, qword ptr [rbp + 40]
    call  hypercall
    mov   qword ptr [rbp + 56], rax
store:
    mov   qword ptr [rbp + 48], r13
    inc   r12d
    add   rbp, 64
    jmp   next

finished:
    mov   eax, r12d
    RESULT done
    movzx eax, byte ptr [rip + hypercall_kind]
    RESULT kind
    PASS

; #GP at RDMSR or WRMSR: note it and go on where R14 says.
general_protection:
    add   rsp, 8                          ; the error code
    mov   r13d, 1
    mov   qword ptr [rsp], r14
    iretq

%include "idt.inc"
%include "hypercall.inc"
