; summary: the other vendor's hypercall instruction: rewritten by KVM, or an undefined opcode
; proves:  FIX_HYPERCALL_INSN
; param:   nr = 1    KVM_HC_VAPIC_POLL_IRQ, which every KVM answers with 0
; result:  vector   u64   the exception that the instruction raised; 255 if none
; result:  error    u64   the error code of a page fault
; result:  address  u64   CR2 of a page fault
; result:  rax      i64   RAX afterwards: 0 where KVM answered
; result:  bytes    u64   the three bytes of the instruction afterwards
; result:  writable u64   whether the page tables let ring 0 write there
;
; Intel has VMCALL (0f 01 c1), AMD has VMMCALL (0f 01 d9), and each raises #UD for the other. By an old habit, the quirk
; KVM_X86_QUIRK_FIX_HYPERCALL_INSN, KVM then writes the right one over the wrong one and executes it again. It writes
; with the guest's own rights: text that is mapped read-only ends in a page fault. On a host where neither instruction
; reaches KVM it would rewrite and repeat for ever, and the run's time limit is what ends it.
;
; The host half says at CHOICE which instruction (u64: 0 VMCALL, 1 VMMCALL) and whether to write-protect it first (u64).

%include "results.inc"

CHOICE = DATA_BASE
NONE   = 255

start:
    mov   edi, UD_VECTOR
    lea   rsi, [rip + undefined]
    call  set_gate
    mov   edi, PF_VECTOR
    lea   rsi, [rip + page_fault]
    call  set_gate
    mov   r12d, NONE                      ; vector
    xor   r13d, r13d                      ; error code
    xor   r14d, r14d                      ; CR2
    lea   rbp, [rip + vmcall_page]
    cmp   qword ptr [CHOICE], 0
    je    chosen
    lea   rbp, [rip + vmmcall_page]
chosen:

    ; the page-table entry of the text at RBP: four levels, nine bits of the address each, entries of eight bytes
    mov   rax, cr3
    mov   ecx, 39
walk:
    and   rax, -4096
    btr   rax, 63                         ; NX is no part of an address
    mov   rdx, rbp
    shr   rdx, cl
    and   edx, 0x1ff
    lea   rbx, [rax + rdx * 8]
    mov   rax, qword ptr [rbx]
    sub   ecx, 9
    cmp   ecx, 12
    jae   walk
    cmp   qword ptr [CHOICE + 8], 0
    je    unprotected
    and   qword ptr [rbx], ~2             ; not writable
    invlpg [rbp]
unprotected:
    mov   rax, qword ptr [rbx]
    shr   eax, 1
    and   eax, 1
    RESULT writable

    mov   eax, PARAM_nr
    call  rbp
    RESULT rax
    jmp   finish

; the handlers do not return: what they would return to may be half an instruction
undefined:
    mov   r12d, UD_VECTOR
    RESULT rax
    jmp   finish
page_fault:
    RESULT rax
    mov   r12d, PF_VECTOR
    mov   r13, qword ptr [rsp]
    mov   r14, cr2
finish:
    mov   eax, r12d
    RESULT vector
    mov   rax, r13
    RESULT error
    mov   rax, r14
    RESULT address
    mov   eax, dword ptr [rbp]
    and   eax, 0xffffff
    RESULT bytes
    PASS

%include "idt.inc"

.p2align 12                               ; pages of their own, so that only they are protected
vmcall_page:
    vmcall
    ret
.p2align 12
vmmcall_page:
    vmmcall
    ret
.p2align 12
