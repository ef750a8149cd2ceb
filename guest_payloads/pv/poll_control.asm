; summary: the guest tells the host whether it may poll before it lets a halted vCPU sleep
; proves:  POLL_CONTROL
; needs:   irqchip, KVM_CAP_HALT_POLL, KVM_CAP_BINARY_STATS_FD
; machine: irqchip=split timeout=60
; param:   msr = 0x4b564d05   MSR_KVM_POLL_CONTROL, the feature's MSR
; param:   halts = 20         HLTs of each phase that have to count
; param:   most  = 100        HLTs of a phase at most
; param:   ticks = 100000     timer ticks (nanoseconds) of the first HLT
; param:   longest = 25600000 and of the longest
; result:  seen       u64   EAX of CPUID 0x40000001: bit 12 is POLL_CONTROL
; result:  reset      u64   the MSR as it is at reset: 1, the host may poll
; result:  off        u64   and read back after 0 was written
; result:  on         u64   and after 1
; result:  slept      u64   HLTs of all three phases
; result:  woken      u64   timer interrupts that ended them
;
; A HLT leaves the guest, and its host thread goes to sleep until an interrupt comes. Waking a thread takes time, so KVM
; first spins for a while: halt polling. A guest that polls by itself before it halts (Linux's haltpoll driver) says so by
; clearing bit 0 of the MSR, and then KVM does not spin for it.
;
; The guest halts for short times in three phases: as it was at reset, with 0 written, with 1 again. At the beginning of
; each and after each HLT it does an OUT, and the host looks at KVM's statistics. A HLT counts by what came of it: a poll
; where polling is allowed, and where it is not, a vCPU that really waited. On a slow host the timer has often ended before
; KVM comes to halt the vCPU; so after a HLT that did not count the next lasts twice as long. Once `halts` have counted,
; the host says so, and the phase ends.

%include "results.inc"
%include "apic.inc"
%include "entry.inc"

TIMER_VECTOR = 0x40
HALTED_PORT = DELAY_PORT + 1
LONGER = DATA_BASE                        ; u8, the host's: the last HLT did not count
ENOUGH = DATA_BASE + 1                    ; u8, the host's: enough have

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
    xor   r10d, r10d                      ; HLTs
    mov   r11d, PARAM_ticks

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
    mov   rax, r10
    RESULT slept
    mov   rax, r8
    RESULT woken
    PASS

phase:
    out   DELAY_PORT, al                  ; a phase begins
    mov   ebp, PARAM_most
next_halt:
    mov   r9, r8
    xor   edx, edx
    mov   ecx, X2APIC_TMICT               ; starts the timer
    mov   eax, r11d
    wrmsr
asleep:
    sti                                   ; takes effect after HLT has begun: the interrupt cannot come between
    hlt
    cli
    cmp   r9, r8
    je    asleep                          ; it was something else that ended it
    inc   r10
    out   HALTED_PORT, al                 ; the host looks at what came of it
    cmp   byte ptr [ENOUGH], 0
    jne   phase_done
    cmp   byte ptr [LONGER], 0
    je    halt_again
    cmp   r11d, PARAM_longest
    jae   halt_again
    add   r11d, r11d
halt_again:
    dec   ebp
    jnz   next_halt
phase_done:
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
    TAKEN_ONCE
    LEAVE_HLT
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
