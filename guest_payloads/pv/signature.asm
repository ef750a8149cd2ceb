; summary: how a guest finds KVM: the signature, the feature leaf behind it, the hypervisor bit
; proves:  KVM_CPUID_SIGNATURE
; param:   first = 0x40000000   where the search begins
; result:  hypervisor u64   CPUID.1:ECX bit 31: there is a hypervisor
; result:  base       u64   the leaf that holds KVM's signature, 0 if there is none
; result:  last       u64   EAX there: the last of KVM's leaves (0 from very old hosts means base + 1)
; result:  signature  u64   EBX | ECX << 32 there: "KVMKVMKV"
; result:  rest       u64   EDX there: "M" and three zero bytes
; result:  features   u64   EAX of leaf base + 1: the feature bits
; result:  hints      u64   EDX of leaf base + 1
; result:  others     u64   EBX | ECX << 32 of leaf base + 1: nothing uses them
; result:  leaves     u64   how many leaves were looked at
;
; A hypervisor's leaves begin at 0x40000000, or at a multiple of 0x100 above it where another interface (Hyper-V's,
; for Windows guests) comes first. So a guest looks for the twelve letters, and takes nothing for granted.

%include "results.inc"

start:
    mov   eax, 1
    xor   ecx, ecx
    cpuid
    shr   ecx, 31
    mov   eax, ecx
    RESULT hypervisor

    mov   ebp, PARAM_first
    xor   r12d, r12d                      ; leaves looked at
look:
    inc   r12d
    mov   eax, ebp
    xor   ecx, ecx
    cpuid
    cmp   ebx, KVM_SIGNATURE_EBX          ; "KVMK"
    jne   further
    cmp   ecx, KVM_SIGNATURE_ECX          ; "VMKV"
    jne   further
    cmp   edx, KVM_SIGNATURE_EDX          ; "M\0\0\0"
    je    found
further:
    add   ebp, 0x100
    cmp   ebp, 0x40010000
    jb    look
    xor   ebp, ebp                        ; no KVM
    xor   eax, eax
    xor   ebx, ebx
    xor   ecx, ecx
    xor   edx, edx
found:
    mov   edi, eax
    mov   esi, edx
    shl   rcx, 32
    mov   eax, ebx                        ; clears the upper half of RAX
    or    rax, rcx
    RESULT signature
    mov   eax, edi
    RESULT last
    mov   eax, esi
    RESULT rest
    mov   eax, ebp
    RESULT base
    mov   eax, r12d
    RESULT leaves
    xor   eax, eax
    xor   ebx, ebx
    xor   ecx, ecx
    xor   edx, edx
    test  ebp, ebp
    jz    store
    lea   eax, [rbp + 1]
    cpuid
store:
    mov   eax, eax
    RESULT features
    mov   eax, edx
    RESULT hints
    shl   rcx, 32
    mov   eax, ebx
    or    rax, rcx
    RESULT others
    PASS
