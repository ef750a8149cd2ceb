; lesson: cpuid
; says: Leaf 0x40000000 says 'KVMKVMKVX\x00\x00\x00': not all three registers are KVM's there
; summary: find the CPUID leaves of KVM, wherever the VMM has put them
; result:  base      u32   the leaf that has the signature
; result:  features  u32   EAX of the leaf after it: the feature bits

%include "results.inc"

start:
    mov   esi, 0x40000000                 ; the first leaf that a hypervisor may use
try:
    mov   eax, esi
    cpuid                                 ; changes EAX, EBX, ECX and EDX
    cmp   ebx, KVM_SIGNATURE_EBX
    je    found
    add   esi, 0x100                      ; they lie 0x100 apart
    cmp   esi, 0x40010000
    jb    try
    FAIL                                  ; no leaf had it

found:
    mov   eax, esi
    RESULT base
    inc   eax
    cpuid
    RESULT features
    PASS
