; summary: a nested guest meets a page that the host has yet to fetch: its hypervisor is told, by a #PF exit
; proves:  ASYNC_PF_VMEXIT
; machine: irqchip=split timeout=10
; param:   msr = 0x4b564d02    the MSR that switches it on, MSR_KVM_ASYNC_PF_EN
; param:   control = 15        its flags: 1 on, 2 in ring 0 too, 4 as #PF exit, 8 readiness by interrupt
; param:   vector = 0xf3       the interrupt that tells of a page that is ready
; param:   page = 0x40000000   the page that the host holds back: a guest-physical address
; param:   window = 0          1: the VMM asks for the interrupt window while L2 runs
; result:  hypervisor u64   1: by SVM, 2: by VMX
; result:  broadcast  u32   the first token after switching on: 0xffffffff, "wake every waiter"
; result:  exit       u64   why L2 was left at its load: exit code of SVM, exit reason of VMX
; result:  event      u64   VMX: interruption information, which has the vector
; result:  error      u64   its error code: exit_info_1 of SVM; 0
; result:  token      u64   exit_info_2 of SVM, exit qualification of VMX: its token, (number << 12) | vCPU id
; result:  rip        u64   where L2 stood: at the load
; result:  flags      u64   what KVM left in the shared page: 1, page not present
; result:  early      u64   page-ready interrupts before the host was told, and so before it fetched anything: 0
; result:  ready      u64   token of the page-ready interrupt
; result:  readies    u64   how many of them there were: 1
; result:  last       u64   why L2 was left at last: HLT
; result:  loaded     u64   what its load has read in the end
; result:  others     u64   exits for interrupts, which L1 takes, in all this time
;
; KVM runs this payload, L1; it is the hypervisor of a guest of its own, L2. When a page of L2 is away on the host, a #PF
; inside L2 would be no use: L2 never asked for it, and its CR2 is no address. So L1 says by bit 2 that it wants to know,
; and KVM leaves L2 with a #PF exit, whether or not L1 asks for those of L2's own, with a token in place of the address:
;
;   L2     loads from the page ...                                             ... loads again, and gets the bytes
;   L1                     #PF exit, token     tells the host     interrupt, same token     resumes L2
;   host                                                 fetches the page
;
; Without bit 2, or without bit 1 for a guest in ring 0, the vCPU waits in the load, and L1 never hears of it.
;
; Some kernels queue the exit and do not look at what is queued before they enter L2 again, so that it is lost. With
; `window` they do: while a VMM without a PIC in KVM asks for the interrupt window (request_interrupt_window), KVM looks at
; each entry, provided that LINT0 takes interrupts from a PIC. L2 has its interrupts off then: an open window is an exit
; too, and would come before L2's first instruction each time.

%include "results.inc"
%include "apic.inc"
%include "entry.inc"
%include "vmcs.inc"

SHARED   = DATA_BASE                      ; kvm_vcpu_pv_apf_data
READIES  = DATA_BASE + 0x1000             ; u64 each: page-ready interrupts,
READY    = READIES + 8                    ; token of the last of them,
OTHERS   = READIES + 16                   ; exits for interrupts

BY_SVM = 1
BY_VMX = 2
PAGE_IS_MISSING = 1                       ; what the host is told by DELAY_PORT,
ASK_FOR_WINDOW  = 2
L2_PAGE  = 0x1ff000                       ; the page's address in L2

TIMER_VECTOR = 0x30                       ; of a lower priority than a page-ready interrupt
WHILE    = 100000000                      ; nanoseconds of the LAPIC timer (KVM's APIC bus runs at 1 GHz)
LONG     = 400000000

.macro WRITE_MSR msr, value               ; changes RAX, RCX, RDX
    mov   ecx, \msr
    mov   eax, \value
    xor   edx, edx
    wrmsr
.endm

.macro HANDLE vector, label
    mov   edi, \vector
    lea   rsi, [rip + \label]
    call  set_gate
.endm

start:
    HANDLE PARAM_vector, page_ready
    HANDLE TIMER_VECTOR, timer
    X2APIC_ENABLE
    WRITE_MSR X2APIC_TDCR, APIC_TDR_DIV_1
    WRITE_MSR X2APIC_LVTT, TIMER_VECTOR

    ; L2: a page of code, at the address that it has here, and the page that is missing.
    call  l2_tables
    lea   rsi, [rip + l2_begin]
    mov   edi, esi
    call  l2_map
    mov   edi, L2_PAGE
    mov   esi, PARAM_page
    call  l2_map
    mov   eax, 0x80000001
    cpuid
    bt    ecx, 2                          ; SVM
    jc    by_svm
    mov   eax, 1
    cpuid
    bt    ecx, 5                          ; VMX
    jc    by_vmx
    SKIP                                  ; no guest in the guest here

by_svm:
    lea   rsi, [rip + l2_begin]
    call  svm_init
    mov   byte ptr [rip + hypervisor], BY_SVM
    jmp   switch_on
by_vmx:
    call  vmx_on
    lea   rsi, [rip + l2_begin]
    call  vmx_init
    mov   byte ptr [rip + hypervisor], BY_VMX

switch_on:
    movzx eax, byte ptr [rip + hypervisor]
    RESULT hypervisor
    WRITE_MSR MSR_KVM_ASYNC_PF_INT, PARAM_vector
    mov   dword ptr [SHARED], 0           ; touched: an asynchronous fault on this very page would be no use
    WRITE_MSR PARAM_msr, SHARED + PARAM_control
    mov   esi, WHILE
    call  wait_ready                      ; KVM begins with a token for everybody, and waits until it is consumed
    mov   rax, qword ptr [READY]
    RESULT broadcast
    call  consume
    mov   qword ptr [READY], 0            ; from now on they are L2's page's
    mov   qword ptr [READIES], 0

.if PARAM_window
    call  l2_interrupts_off
    WRITE_MSR X2APIC_LVT0, APIC_DM_EXTINT
    mov   al, ASK_FOR_WINDOW
    out   DELAY_PORT, al
.endif
    call  l2_run                          ; to the load, and if nobody tells us, on to its end
    RESULT exit
    call  describe_exit
    mov   eax, dword ptr [SHARED + APF_flags]
    RESULT flags
    mov   dword ptr [SHARED + APF_flags], 0
    mov   rax, qword ptr [READIES]
    RESULT early
    cmp   dword ptr [R_flags + RESULTS_BASE], KVM_PV_REASON_PAGE_NOT_PRESENT
    jne   not_told

    mov   al, PAGE_IS_MISSING
    out   DELAY_PORT, al                  ; the host fetches the page now
    mov   esi, LONG
    call  wait_ready
    mov   rax, qword ptr [READY]
    RESULT ready
    call  consume
    call  l2_run                          ; L2's RIP was not moved: it loads again
    jmp   ended
not_told:
    xor   eax, eax
    RESULT ready
    mov   rax, qword ptr [RESULTS_BASE + R_exit]
ended:
    RESULT last
    mov   rax, qword ptr [L2_RBX]
    RESULT loaded
    mov   rax, qword ptr [READIES]
    RESULT readies
    mov   rax, qword ptr [OTHERS]
    RESULT others
    PASS

; What the last exit says, in the words of SVM or VMX.
describe_exit:
    cmp   byte ptr [rip + hypervisor], BY_SVM
    jne   describe_vmx_exit
    mov   eax, dword ptr [SVM_VMCB + VMCB_exit_int_info]
    RESULT event                          ; no event was cut off
    mov   rax, qword ptr [SVM_VMCB + VMCB_exit_info_1]
    RESULT error
    mov   rax, qword ptr [SVM_VMCB + VMCB_exit_info_2]
    RESULT token
    mov   rax, qword ptr [SVM_VMCB + VMCB_rip]
    RESULT rip
    ret
describe_vmx_exit:
    VMCS_GET VM_EXIT_INTR_INFO
    RESULT event
    VMCS_GET VM_EXIT_INTR_ERROR_CODE
    RESULT error
    VMCS_GET EXIT_QUALIFICATION
    RESULT token
    VMCS_GET GUEST_RIP
    RESULT rip
    ret

l2_interrupts_off:
    cmp   byte ptr [rip + hypervisor], BY_SVM
    jne   vmx_interrupts_off
    mov   qword ptr [SVM_VMCB + VMCB_rflags], X86_EFLAGS_FIXED
    ret
vmx_interrupts_off:
    VMCS_SET GUEST_RFLAGS, X86_EFLAGS_FIXED
    ret

; L2 runs until it is left for anything but an interrupt of L1's; RAX = exit code or reason.
l2_run:
    cmp   byte ptr [rip + hypervisor], BY_SVM
    jne   l2_run_vmx
    call  svm_run
    cmp   rax, SVM_EXIT_INTR
    je    l2_interrupted
    ret
l2_run_vmx:
    call  vmx_run
    cmp   rax, EXIT_REASON_EXTERNAL_INTERRUPT
    je    l2_interrupted
    ret
l2_interrupted:
    inc   qword ptr [OTHERS]
    sti                                   ; we take it
    nop
    cli
    jmp   l2_run

; ---- interrupts

page_ready:                               ; the token is noted and left where it is: `consume` frees the field
    TAKEN_ONCE
    LEAVE_HLT
    push  rax
    push  rcx
    push  rdx
    mov   eax, dword ptr [SHARED + APF_token]
    mov   qword ptr [READY], rax
    inc   qword ptr [READIES]
    jmp   end_interrupt
timer:
    TAKEN_ONCE
    LEAVE_HLT
    push  rax
    push  rcx
    push  rdx
end_interrupt:
    X2APIC_END
    pop   rdx
    pop   rcx
    pop   rax
    iretq

; Sleep until there was a page-ready interrupt, or ESI nanoseconds have passed.
wait_ready:
    WRITE_MSR X2APIC_TMICT, esi
wait_more:
    cmp   qword ptr [READIES], 0
    jne   waited
    sti                                   ; takes effect after the HLT: nothing can come between the two
    hlt
    cli
    cmp   qword ptr [READIES], 0
    jne   waited
    mov   ecx, X2APIC_TMCCT
    rdmsr
    test  eax, eax
    jnz   wait_more
waited:
    WRITE_MSR X2APIC_TMICT, 0             ; no timer need disturb L2
    ret

; Free the field for the next token, and say so.
consume:
    mov   dword ptr [SHARED + APF_token], 0
    WRITE_MSR MSR_KVM_ASYNC_PF_ACK, 1
    ret

hypervisor:
    .byte 0

%include "idt.inc"
%include "l2.inc"
%include "svm.inc"
%include "vmx.inc"

; ---- L2, in ring 0 with interrupts on: while they are off, KVM would not try

.p2align 12
l2_begin:
l2_load:
    mov   rbx, qword ptr [L2_PAGE]
    hlt                                   ; an exit on SVM and on VMX alike
.p2align 12
l2_end:
