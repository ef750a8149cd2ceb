; summary: SVM: a hypervisor in the guest runs a guest of its own, is left nine times, and VMRUN refuses what it must
; proves:  nested_svm, nested_svm_state
; needs:   svm
; machine: irqchip=split timeout=10
; result:  unready    u64   the exception of VMRUN while EFER.SVME is clear: 6, #UD
; result:  misplaced  u64   that of WRMSR of an odd MSR_VM_HSAVE_PA: 13, #GP
; result:  exits      u64   how often L2 was left in the right order: 9
; result:  no_asid    u64   exit code of VMRUN with ASID 0: SVM_EXIT_ERR
; result:  no_vmrun   u64   that with the intercept of VMRUN clear: SVM_EXIT_ERR
; result:  again      u64   that with both put right: SVM_EXIT_HLT, where L2 stands
;
; KVM runs this payload, L1; it is a hypervisor itself, and its guest is L2. The processor knows one level only: each
; VMRUN here is left to KVM, which runs L2 in our place, and each exit of L2 is KVM's to begin with, which hands it to
; us if our VMCB asks for it. Here is that we get all of what we ask, as the architecture says, and nothing else.
;
; LOG: for each exit exit_code, exit_info_1, exit_info_2, RIP, RAX, RBX of L2.

%include "results.inc"
%include "apic.inc"
%include "entry.inc"

LOG      = DATA_BASE
LOG_ROW  = 48
VECTOR   = 0x41                           ; of the interrupt that is pending when L2 first runs

.macro LESSON_CALL
    vmmcall
.endm

.macro TRY label                          ; what follows may fault: R13 = 0, or the vector, and go on at `label`
    xor   r13d, r13d
    lea   r14, [rip + \label]
.endm

.macro TRIED name                         ; at that label: store the vector, and let nothing fault any more
    xor   r14d, r14d
    mov   eax, r13d
    RESULT \name
.endm

; Run L2, note where it was left; it must be for `exit`. Then let it go on `length` bytes further.
.macro STEP exit, length
    call  svm_run
    call  note
    cmp   rax, \exit
    jne   finish
    add   qword ptr [SVM_VMCB + VMCB_rip], \length
    inc   ebp
.endm

start:
    xor   r14d, r14d
    mov   edi, UD_VECTOR
    lea   rsi, [rip + undefined]
    call  set_gate
    mov   edi, GP_VECTOR
    lea   rsi, [rip + general_protection]
    call  set_gate
    mov   edi, VECTOR
    lea   rsi, [rip + interrupt]
    call  set_gate
    X2APIC_ENABLE
    call  l2_tables
    lea   rsi, [rip + l2_begin]
    mov   edi, esi
    call  l2_map                          ; one page of code, at the address that it has here

    TRY   not_ready
    mov   eax, SVM_VMCB
    vmrun                                 ; SVM is off
not_ready:
    TRIED unready
    TRY   not_there
    mov   ecx, MSR_VM_HSAVE_PA
    mov   eax, SVM_HSAVE + 1              ; no page begins there
    xor   edx, edx
    wrmsr
not_there:
    TRIED misplaced

    call  svm_init
    mov   eax, L2_TRAPPED_PORT
    bts   dword ptr [SVM_IOPM], eax       ; a bit a port
    mov   eax, L2_TRAPPED_MSR * 2
    bts   dword ptr [SVM_MSRPM], eax      ; two bits an MSR: this is the one of RDMSR
    mov   dword ptr [SVM_VMCB + VMCB_intercept_exceptions], 1 << UD_VECTOR | 1 << PF_VECTOR
    xor   ebp, ebp                        ; exits so far
    mov   r12d, LOG

    X2APIC_SEND 0, VECTOR                 ; to ourselves; interrupts are off, and in L2 they are on
    STEP  SVM_EXIT_INTR, 0
    sti                                   ; now we take it
    nop
    cli
    STEP  SVM_EXIT_CPUID, 2
    mov   qword ptr [L2_RBX], L2_ANSWER
    STEP  SVM_EXIT_VMMCALL, 3
    STEP  SVM_EXIT_IOIO, 2
    STEP  SVM_EXIT_MSR, 2
    mov   eax, L2_READ_LOW
    mov   qword ptr [L2_RAX], rax
    mov   qword ptr [L2_RDX], L2_READ_HIGH
    STEP  SVM_EXIT_EXCP_BASE + UD_VECTOR, 2
    STEP  SVM_EXIT_EXCP_BASE + PF_VECTOR, 0
    mov   dword ptr [PAGE_OF_L2], L2_CONTENT
    mov   edi, L2_PAGE
    mov   esi, PAGE_OF_L2
    call  l2_map
    STEP  SVM_EXIT_HLT, 1
    STEP  SVM_EXIT_VMMCALL, 3

    ; VMRUN refuses a VMCB that it may not run: L2 does not begin, and the exit says so.
    mov   dword ptr [SVM_VMCB + VMCB_asid], 0
    call  svm_run
    RESULT no_asid
    mov   dword ptr [SVM_VMCB + VMCB_asid], 1
    and   dword ptr [SVM_VMCB + VMCB_intercept_word4], ~SVM_INTERCEPT_VMRUN
    call  svm_run
    RESULT no_vmrun
    or    dword ptr [SVM_VMCB + VMCB_intercept_word4], SVM_INTERCEPT_VMRUN
    call  svm_run
    RESULT again
finish:
    mov   eax, ebp
    RESULT exits
    PASS

note:
    mov   qword ptr [r12], rax
    mov   rdx, qword ptr [SVM_VMCB + VMCB_exit_info_1]
    mov   qword ptr [r12 + 8], rdx
    mov   rdx, qword ptr [SVM_VMCB + VMCB_exit_info_2]
    mov   qword ptr [r12 + 16], rdx
    mov   rdx, qword ptr [SVM_VMCB + VMCB_rip]
    mov   qword ptr [r12 + 24], rdx
    mov   rdx, qword ptr [L2_RAX]
    mov   qword ptr [r12 + 32], rdx
    mov   rdx, qword ptr [L2_RBX]
    mov   qword ptr [r12 + 40], rdx
    add   r12d, LOG_ROW
    ret

general_protection:
    mov   r13d, GP_VECTOR
    test  r14, r14
    jz    unexpected
    add   rsp, 8                          ; the error code
    jmp   go_on
undefined:
    mov   r13d, UD_VECTOR
    test  r14, r14
    jnz   go_on
    push  0
unexpected:                               ; nobody tried anything: what the default gate would have said
    push  r13
    out   FAULT_PORT, al
    hlt
go_on:
    mov   qword ptr [rsp], r14
    iretq

interrupt:
    TAKEN_ONCE
    push  rax
    push  rcx
    push  rdx
    X2APIC_END
    pop   rdx
    pop   rcx
    pop   rax
    iretq

.p2align 3
vmcb:                                     ; for the host half
    .quad SVM_VMCB

PAGE_OF_L2 = L2_MEMORY + 0x10000

%include "idt.inc"
%include "l2.inc"
%include "svm.inc"
%include "l2_lesson.inc"
