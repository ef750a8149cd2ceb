; summary: the guest tells the host whether it may poll before it lets a halted vCPU sleep
; needs:   irqchip, KVM_CAP_HALT_POLL, KVM_CAP_BINARY_STATS_FD
; machine: irqchip=split timeout=5
; param:   msr = 0x4b564d05   MSR_KVM_POLL_CONTROL, the feature's MSR
; param:   halts = 20         HLTs of each phase
; param:   ticks = 100000     timer ticks (nanoseconds) of a HLT
; result:  seen       u64   EAX of CPUID 0x40000001: bit 12 is POLL_CONTROL
; result:  reset      u64   the MSR as it is at reset: 1, the host may poll
; result:  off        u64   and read back after 0 was written
; result:  on         u64   and after 1
; result:  woken      u64   timer interrupts that ended a HLT: three phases of `halts`
;
; A HLT leaves the guest, and its host thread goes to sleep until an interrupt comes. Waking a thread takes time, so KVM
; first spins for a while: halt polling. A guest that polls by itself before it halts (Linux's haltpoll driver) says so by
; clearing bit 0 of the MSR, and then KVM does not spin for it.
;
; The guest halts for short times in three phases: as it was at reset, with 0 written, with 1 again. At the beginning and
; end of each it does an OUT, and the host notes the statistics halt_exits and halt_attempted_poll.

%include "results.inc"
%include "apic.inc"

TIMER_VECTOR = 0x40

start:
    mov   eax, KVM_CPUID_FEATURES
    cpuid
    RESULT seen
    X2APIC_ENABLE
    mov   edi, TIMER_VECTOR
    lea   rsi, [rip + timer]
    call  set_gate
    xor   edx, edx
    mov   ecx, X2APIC_TDCR
    mov   eax, APIC_TDR_DIV_1
    wrmsr
    mov   ecx, X2APIC_LVTT
    mov   eax, TIMER_VECTOR               ; one-shot, not masked
    wrmsr
    xor   r8d, r8d                        ; interrupts taken

    call  read_feature_msr
    RESULT reset
    call  phase
    xor   eax, eax
    call  write_feature_msr
    call  read_feature_msr
    RESULT off
    call  phase
    mov   eax, 1
    call  write_feature_msr
    call  read_feature_msr
    RESULT on
    call  phase
    mov   rax, r8
    RESULT woken
    PASS

phase:
    out   DELAY_PORT, al
    mov   ebp, PARAM_halts
next_halt:
    mov   r9, r8
    xor   edx, edx
    mov   ecx, X2APIC_TMICT               ; starts the timer
    mov   eax, PARAM_ticks
    wrmsr
asleep:
    sti                                   ; takes effect after HLT has begun: the interrupt cannot come between
    hlt
    cli
    cmp   r9, r8
    je    asleep                          ; it was something else that ended it
    dec   ebp
    jnz   next_halt
    out   DELAY_PORT, al
    ret

; EAX = value; the upper half is zero
write_feature_msr:
    mov   ecx, PARAM_msr
    xor   edx, edx
    wrmsr
    ret

; RAX = value
read_feature_msr:
    mov   ecx, PARAM_msr
    rdmsr
    shl   rdx, 32
    or    rax, rdx
    ret

timer:
    push  rax
    push  rcx
    push  rdx
    inc   r8
    X2APIC_END
    pop   rdx
    pop   rcx
    pop   rax
    iretq

%include "idt.inc"
