; summary: the hypercall interface itself: one that does nothing, numbers that mean nothing, calls from ring 3
; proves:  KVM_HC_VAPIC_POLL_IRQ, unknown hypercall, hypercall from ring 3
; user:    user_begin user_end
; ports:   0x80
; param:   nr = 1    KVM_HC_VAPIC_POLL_IRQ
; result:  poll      i64   RAX of the call that does nothing: 0
; result:  changed   u64   whether RBX, RCX, RDX or RSI changed: 0
; result:  unknown   u64   how many numbers without a meaning were tried
; result:  refused   u64   how many of them gave -KVM_ENOSYS: all
; result:  kind      u64   how hypercalls went in ring 0: 0 VMCALL, 1 VMMCALL, 2 handed over to pyvmm
; result:  vmcall_fault  u64   ring 3: the exception that VMCALL raised, 0 if none
; result:  vmcall        i64   RAX after it: KVM's answer, or pyvmm's where it raised one; -1
; result:  vmmcall_fault u64   the same of VMMCALL
; result:  vmmcall       i64
;
; RAX = number, RBX, RCX, RDX, RSI = arguments; the answer comes in RAX and nothing else changes. The privilege level
; is looked at first: from ring 3 every call gives -KVM_EPERM. There both instructions are tried as they are; one that
; raises an exception is handed over to pyvmm, with the CS that the exception saved.
;
; OUT of a number to port 0x80 marks a place: the host half notes how many hypercalls KVM has counted by then. Ring 3
; does none, for whether it may is the TSS's to say, and not every host reads that as a CPU does: its HLTs mark its
; places, each a #GP on any host, and ring 0 does the OUT.

%include "results.inc"
%include "ring3.inc"

ANSWERS = DATA_BASE                       ; i64 per unknown number, for the host half
FAULTS  = DATA_BASE + 0x100               ; u64 for VMCALL, u64 for VMMCALL
HLT_OPCODE = 0xf4
USER_ANSWERS = USER_BASE                  ; i64 for VMCALL, i64 for VMMCALL, written in ring 3

.macro MARK number
    mov   al, \number
    out   DELAY_PORT, al
.endm

start:
    call  hypercall_init
    mov   eax, PARAM_nr                   ; the first call also finds out which instruction to use
    call  hypercall
    MARK  1
    mov   eax, PARAM_nr
    mov   rbx, 0x1111
    mov   rcx, 0x2222
    mov   rdx, 0x3333
    mov   rsi, 0x4444
    call  hypercall
    RESULT poll
    MARK  2
    sub   rbx, 0x1111
    sub   rcx, 0x2222
    sub   rdx, 0x3333
    sub   rsi, 0x4444
    or    rbx, rcx
    or    rbx, rdx
    or    rbx, rsi
    xor   eax, eax
    test  rbx, rbx
    setnz al
    RESULT changed

    xor   r12d, r12d
    xor   r13d, r13d
unknown_next:
    lea   rax, [rip + unknown_numbers]
    mov   rax, qword ptr [rax + r12 * 8]
    call  hypercall
    mov   qword ptr [r12 * 8 + ANSWERS], rax
    cmp   rax, -KVM_ENOSYS
    jne   unknown_counted
    inc   r13d
unknown_counted:
    inc   r12d
    cmp   r12d, UNKNOWN_COUNT
    jb    unknown_next
    MARK  3
    mov   eax, r12d
    RESULT unknown
    mov   eax, r13d
    RESULT refused
    movzx eax, byte ptr [rip + hypercall_kind]
    RESULT kind

    mov   edi, UD_VECTOR                  ; ---- ring 3
    lea   rsi, [rip + user_undefined]
    call  set_gate
    mov   edi, GP_VECTOR
    lea   rsi, [rip + user_protection]
    call  set_gate
    mov   r11d, 5                         ; the next place
    MARK  4
    ENTER_RING3 user_begin

; An exception of ring 3. Its program uses RAX and nothing else, so R8 to R11 are free.
user_protection:
    mov   r8, qword ptr [rsp + 8]         ; where it happened; the error code lies before it
    cmp   byte ptr [r8], HLT_OPCODE
    je    user_place
    mov   r10d, GP_VECTOR
    cmp   word ptr [r8], 0x10f
    jne   user_other
    add   rsp, 8
    jmp   user_hand_over
user_other:                               ; not ours: what the default gate would have said
    push  GP_VECTOR
    out   FAULT_PORT, al
    hlt
user_place:
    mov   eax, r11d
    out   DELAY_PORT, al
    inc   r11d
    lea   r9, [rip + user_leave]
    cmp   r8, r9
    je    finish
    add   rsp, 8
    inc   qword ptr [rsp]                 ; step over the HLT
    iretq
user_undefined:
    mov   r8, qword ptr [rsp]
    cmp   word ptr [r8], 0x10f
    jne   hypercall_undefined             ; not ours either
    mov   r10d, UD_VECTOR
user_hand_over:                           ; the instruction at R8: 0f 01 c1 or 0f 01 d9
    xor   r9d, r9d
    cmp   byte ptr [r8 + 2], 0xc1
    setne r9b
    mov   qword ptr [r9 * 8 + FAULTS], r10
    out   HYPERCALL_PORT, al              ; RIP, CS, ... lie at RSP: pyvmm sees ring 3 in CS
    add   qword ptr [rsp], 3
    iretq

finish:
    mov   rax, qword ptr [FAULTS]
    RESULT vmcall_fault
    mov   rax, qword ptr [FAULTS + 8]
    RESULT vmmcall_fault
    mov   rax, qword ptr [USER_ANSWERS]
    RESULT vmcall
    mov   rax, qword ptr [USER_ANSWERS + 8]
    RESULT vmmcall
    PASS

.p2align 3
unknown_numbers:                          ; 3 and 4 are powerpc's, 6 to 8 mips's; RAX counts with all 64 bits
    .quad 0, 3, 4, 6, 7, 8, 13, 99, 0x100000001, -1
UNKNOWN_COUNT = (unknown_end - unknown_numbers) / 8
unknown_end:

%include "idt.inc"
%include "hypercall.inc"

; ---- the program in ring 3

.p2align 12
user_begin:
    mov   eax, PARAM_nr
    vmcall
    mov   qword ptr [USER_ANSWERS], rax
    hlt                                   ; privileged: a #GP, and place 5
    mov   eax, PARAM_nr
    vmmcall
    mov   qword ptr [USER_ANSWERS + 8], rax
user_leave:
    hlt                                   ; place 6, from where there is no way back
.p2align 12
user_end:
