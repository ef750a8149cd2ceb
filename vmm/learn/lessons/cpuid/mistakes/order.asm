; lesson: cpuid
; says: your guest said itself that it failed, by 0x1 to port 0xf4, at line 
; says: Leaf 0x40000000 has EBX 0x4b4d564b, ECX 0x564b4d56, EDX 0x4d
; summary: find the CPUID leaves of KVM, wherever the VMM has put them
; result:  base      u32   the leaf that has the signature
; result:  features  u32   EAX of the leaf after it: the feature bits
;
; The text of this lesson: pyvmm learn show 9

%include "results.inc"

start:
    mov   esi, 0x40000000                 ; the first leaf that a hypervisor may use
try:
    mov   eax, esi
    cpuid                                 ; changes EAX, EBX, ECX and EDX
    cmp   ebx, KVM_SIGNATURE_EDX
    jne   other
    cmp   ecx, KVM_SIGNATURE_ECX
    jne   other
    cmp   edx, KVM_SIGNATURE_EBX
    jne   other
    jmp   found
other:
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
