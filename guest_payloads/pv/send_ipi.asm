; summary: one hypercall sends an interrupt to a set of vCPUs, and to no other
; proves:  PV_SEND_IPI
; machine: irqchip=split start=all timeout=30
; param:   nr = 10        KVM_HC_SEND_IPI
; result:  features u64   EAX of KVM's feature leaf, as this guest sees it: bit 11 announces the hypercall
; result:  calls    u64   how many calls of the table were done
; result:  kind     u64   how hypercalls went: 0 VMCALL, 1 VMMCALL, 2 handed over to pyvmm
;
; RBX and RCX hold a bitmap of APIC ids, bit 0 standing for the id in RDX; RSI is the ICR's low word: vector and
; delivery mode. RAX comes back as the number of vCPUs that took it. Hardware needs one ICR write, and one exit, for
; each of them.
;
; The host half writes a table of calls to TABLE, and reads back what came of each. A row has 32 u64: nr of the call (0
; ends the table), a0, a1, a2, a3, RAX, then from 8 on the interrupts and from 20 on the NMIs that each vCPU had
; counted by then.

%include "results.inc"
%include "apic.inc"
%include "entry.inc"

TABLE = DATA_BASE + 0x2000

start:
    mov   r15, rdi
    mov   rbp, rsi                        ; number of vCPUs
    test  edi, edi
    jnz   other

    call  hypercall_init
    call  counters_init
    call  counters_join
wait:
    pause
    cmp   qword ptr [JOINED], rbp
    jb    wait
    mov   eax, KVM_CPUID_FEATURES
    xor   ecx, ecx
    cpuid
    mov   eax, eax
    RESULT features

    mov   r14d, TABLE
    xor   r13d, r13d
next:
    cmp   qword ptr [r14], 0
    je    finished
    mov   eax, PARAM_nr
    mov   rbx, qword ptr [r14 + 8]
    mov   rcx, qword ptr [r14 + 16]
    mov   rdx, qword ptr [r14 + 24]
    mov   rsi, qword ptr [r14 + 32]
    call  hypercall
    mov   qword ptr [r14 + 40], rax
    mov   rsi, rbp
    call  counters_fence
    xor   edi, edi
copy:
    mov   rax, qword ptr [rdi * 8 + COUNTED]
    mov   qword ptr [r14 + rdi * 8 + 64], rax
    mov   rax, qword ptr [rdi * 8 + NMIS]
    mov   qword ptr [r14 + rdi * 8 + 160], rax
    inc   edi
    cmp   edi, ebp
    jb    copy
    inc   r13d
    add   r14, 256
    jmp   next

finished:
    mov   eax, r13d
    RESULT calls
    movzx eax, byte ptr [rip + hypercall_kind]
    RESULT kind
    PASS

other:                                    ; vCPU 0 writes the gates before anybody is sent anything
    call  counters_join
    jmp   counters_serve

%include "counters.inc"
%include "idt.inc"
%include "hypercall.inc"
