; summary: KVM's clock and the guest's TSC, set by the host and by the guest: what arrives
; proves:  kvm_clock, tsc_offset, tsc_adjust, tsc_writes, tsc_khz
; machine: timeout=30
; param:   jump = 0x100000000000   by how much the TSC is moved, each time
; result:  adjust_before u64  TSC_ADJUST at first
; result:  adjust_after  u64  and after the guest has added the jump
; result:  gp            u64  #GPs taken: 0
; result:  done          u64  1
;
; At each OUT RBX holds the TSC, read just before it. What happens between two of them is in the host half's list; two
; of the steps are the guest's own.

%include "results.inc"

CLOCK = DATA_BASE + 0x1000                ; the page of kvmclock, which the host reads
FAULTS = DATA_BASE

.macro STAGE number
    rdtsc
    shl   rdx, 32
    or    rax, rdx
    mov   rbx, rax
    mov   eax, \number
    out   DELAY_PORT, al
.endm

start:
    mov   edi, GP_VECTOR
    lea   rsi, [rip + general_protection]
    call  set_gate
    mov   ecx, MSR_KVM_SYSTEM_TIME_NEW
    mov   eax, CLOCK + 1
    xor   edx, edx
    wrmsr
    STAGE 1                               ; the host sets the clock
    STAGE 2                               ; and looks at the guest's page
    STAGE 3                               ; the host moves the TSC offset
    STAGE 4

    mov   ecx, MSR_IA32_TSC_ADJUST
    call  read
    RESULT adjust_before
    mov   rdx, PARAM_jump
    add   rax, rdx
    mov   rdx, rax
    shr   rdx, 32
    wrmsr                                 ; the guest moves it itself
    STAGE 5
    mov   ecx, MSR_IA32_TSC_ADJUST
    call  read
    RESULT adjust_after

    mov   rax, rbx                        ; another way: the TSC as an MSR
    mov   rdx, PARAM_jump
    add   rax, rdx
    mov   rdx, rax
    shr   rdx, 32
    mov   ecx, MSR_IA32_TSC
    wrmsr
    STAGE 6                               ; the host does the same by KVM_SET_MSRS
    STAGE 7

    STAGE 8                               ; the host has set half the frequency, or not; it waits at 8 and at 9
    STAGE 9
    STAGE 10
    mov   rax, qword ptr [FAULTS]
    RESULT gp
    mov   eax, 1
    RESULT done
    PASS

read:
    xor   eax, eax
    xor   edx, edx
    rdmsr
    shl   rdx, 32
    or    rax, rdx
    ret

general_protection:
    add   rsp, 8
    add   qword ptr [rsp], 2              ; RDMSR and WRMSR have two bytes
    inc   qword ptr [FAULTS]
    iretq

%include "idt.inc"
