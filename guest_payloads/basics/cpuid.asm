; summary: read every CPUID leaf that the VMM set, and let the host compare
; result:  leaves  u64   how many leaves were read
; machine: memory=4M
;
; CPUID leaves the guest on every host and KVM answers it from the table of KVM_SET_CPUID2. The host half writes a
; list of (leaf, index) pairs to `queries`; the guest executes CPUID for each and stores EAX, EBX, ECX, EDX.

%include "results.inc"

QUERIES = DATA_BASE                       ; u32 leaf, u32 index, ...; ends with leaf 0xffffffff
ANSWERS = DATA_BASE + 0x8000              ; u32 EAX, EBX, ECX, EDX for each query

start:
    mov   esi, QUERIES
    mov   edi, ANSWERS
    xor   ebp, ebp                        ; CPUID changes EAX, EBX, ECX and EDX, but not these
next:
    mov   eax, dword ptr [rsi]
    cmp   eax, 0xffffffff
    je    done
    mov   ecx, dword ptr [rsi + 4]
    cpuid
    mov   dword ptr [rdi], eax
    mov   dword ptr [rdi + 4], ebx
    mov   dword ptr [rdi + 8], ecx
    mov   dword ptr [rdi + 12], edx
    add   rsi, 8
    add   rdi, 16
    inc   ebp
    jmp   next
done:
    mov   eax, ebp
    RESULT leaves
    PASS
