; summary: VMX: a hypervisor in the guest runs a guest of its own, is left nine times, and VMX refuses what it must
; proves:  nested_vmx, nested_vmx_state
; needs:   vmx
; machine: irqchip=split timeout=10
; result:  not_enabled  u64   the exception of VMXON while CR4.VMXE is clear: 6, #UD
; result:  not_locked   u64   that of VMXON before MSR_IA32_FEAT_CTL allows it: 13, #GP
; result:  on           u64   VMXON when all is as it must be: 0, no error
; result:  on_again     u64   VM-instruction error of a second VMXON; without a current VMCS there is no place for it: -1
; result:  no_vmcs      u64   that of VMLAUNCH without a current VMCS: -1
; result:  own_region   u64   that of VMPTRLD of the VMXON region: 10
; result:  no_field     u64   that of VMREAD of a field that does not exist: 12
; result:  not_launched u64   that of VMRESUME before VMLAUNCH: 5
; result:  bad_control  u64   that of VMLAUNCH with controls that the processor does not allow: 7
; result:  bad_host     u64   that with no task register for the host: 8
; result:  bad_guest    u64   exit reason of VMLAUNCH with flags of the guest that cannot be: 33, and bit 31
; result:  exits        u64   how often L2 was left in the right order: 9
; result:  launch_again u64   VM-instruction error of VMLAUNCH of a VMCS that was launched: 4
;
; KVM runs this payload, L1; it is a hypervisor itself, and its guest is L2. The processor knows one level only: each
; VMX instruction here is left to KVM, which runs L2 in our place, and each exit of L2 is KVM's to begin with, which
; hands it to us if our VMCS asks for it. Here is that we get all of what we ask, as the manual says, and nothing else.
;
; LOG: for each exit reason, qualification, interruption information, its error code, RIP, instruction length, RAX and
; RBX of L2.

%include "results.inc"
%include "apic.inc"
%include "entry.inc"
%include "vmcs.inc"

LOG      = DATA_BASE
LOG_ROW  = 64
VECTOR   = 0x41                           ; of the interrupt that is pending when L2 first runs
NO_FIELD = 0x1ffe                         ; an encoding with the highest index: no field of 16 bits comes near it

.macro LESSON_CALL
    vmcall
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

; Run L2, note where it was left; it must be for `reason`. Then SKIP_* lets it go on behind the instruction.
.macro STEP reason
    call  vmx_run
    call  note
    cmp   rax, \reason
    jne   finish
    inc   ebp
.endm

.macro SKIP_INSTRUCTION
    VMCS_GET VM_EXIT_INSTRUCTION_LEN
    mov   rcx, rax
    SKIP_BYTES rcx
.endm
.macro SKIP_BYTES length
    VMCS_GET GUEST_RIP
    add   rax, \length
    VMCS_SET GUEST_RIP, rax
.endm

; Enter L2 with a field changed for once: it must not come to run. RAX as vmx_run's, with its flags.
.macro ENTER_WITH field, value
    VMCS_GET \field
    mov   r15, rax
    VMCS_SET \field, \value
    call  vmx_run
    pushfq
    mov   r13, rax
    VMCS_SET \field, r15
    mov   rax, r13
    popfq
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

    ; Before VMX is on.
    TRY   disabled
    vmxon qword ptr [rip + vmx_on_region]
disabled:
    TRIED not_enabled
    mov   rax, cr4
    or    eax, X86_CR4_VMXE
    mov   cr4, rax
    TRY   unlocked
    vmxon qword ptr [rip + vmx_on_region]
unlocked:
    TRIED not_locked
    call  vmx_on
    RESULT on
    vmxon qword ptr [rip + vmx_on_region]
    call  vmx_error
    RESULT on_again
    vmlaunch
    call  vmx_error
    RESULT no_vmcs

    ; What VMX instructions refuse of a current VMCS.
    lea   rsi, [rip + l2_begin]
    call  vmx_init
    vmptrld qword ptr [rip + vmx_on_region]
    call  vmx_error
    RESULT own_region
    mov   edx, NO_FIELD
    vmread rax, rdx
    call  vmx_error
    RESULT no_field
    vmresume
    call  vmx_error
    RESULT not_launched
    ENTER_WITH VM_EXIT_CONTROLS, 0        ; some are always one
    call  vmx_error
    RESULT bad_control
    ENTER_WITH HOST_TR_SELECTOR, 0
    call  vmx_error
    RESULT bad_host
    ENTER_WITH GUEST_RFLAGS, 0            ; bit 1 is always one
    RESULT bad_guest

    ; L2 runs.
    mov   eax, L2_TRAPPED_PORT
    bts   dword ptr [VMX_IO_BITMAP], eax  ; a bit a port
    mov   eax, L2_TRAPPED_MSR
    bts   dword ptr [VMX_MSR_BITMAP], eax ; a bit an MSR; those of RDMSR come first
    VMCS_SET EXCEPTION_BITMAP, 1 << UD_VECTOR | 1 << PF_VECTOR
    xor   ebp, ebp                        ; exits so far
    mov   r12d, LOG
    X2APIC_SEND 0, VECTOR                 ; to ourselves; interrupts are off, and in L2 they are on
    STEP  EXIT_REASON_EXTERNAL_INTERRUPT
    sti                                   ; now we take it
    nop
    cli
    STEP  EXIT_REASON_CPUID
    SKIP_INSTRUCTION
    mov   qword ptr [L2_RBX], L2_ANSWER
    STEP  EXIT_REASON_VMCALL
    SKIP_INSTRUCTION
    STEP  EXIT_REASON_IO_INSTRUCTION
    SKIP_INSTRUCTION
    STEP  EXIT_REASON_MSR_READ
    SKIP_INSTRUCTION
    mov   eax, L2_READ_LOW
    mov   qword ptr [L2_RAX], rax
    mov   qword ptr [L2_RDX], L2_READ_HIGH
    STEP  EXIT_REASON_EXCEPTION_NMI
    SKIP_BYTES 2                          ; UD2: no exit for a fault of hardware tells a length (27.2.5)
    STEP  EXIT_REASON_EXCEPTION_NMI
    mov   dword ptr [PAGE_OF_L2], L2_CONTENT
    mov   edi, L2_PAGE
    mov   esi, PAGE_OF_L2
    call  l2_map
    STEP  EXIT_REASON_HLT
    SKIP_INSTRUCTION
    STEP  EXIT_REASON_VMCALL

    mov   byte ptr [rip + vmx_launched], 0             ; have vmx_run say VMLAUNCH, where VMRESUME is due
    call  vmx_run
    call  vmx_error
    RESULT launch_again
finish:
    mov   eax, ebp
    RESULT exits
    vmxoff
    PASS

.macro NOTE field, place
    VMCS_GET \field
    mov   qword ptr [r12 + \place], rax
.endm

note:                                     ; RAX stays
    mov   r13, rax
    mov   qword ptr [r12], rax
    NOTE  EXIT_QUALIFICATION, 8
    NOTE  VM_EXIT_INTR_INFO, 16
    NOTE  VM_EXIT_INTR_ERROR_CODE, 24
    NOTE  GUEST_RIP, 32
    NOTE  VM_EXIT_INSTRUCTION_LEN, 40
    mov   rax, qword ptr [L2_RAX]
    mov   qword ptr [r12 + 48], rax
    mov   rax, qword ptr [L2_RBX]
    mov   qword ptr [r12 + 56], rax
    add   r12d, LOG_ROW
    mov   rax, r13
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

PAGE_OF_L2 = L2_MEMORY + 0x10000

%include "idt.inc"
%include "l2.inc"
%include "vmx.inc"
%include "l2_lesson.inc"
