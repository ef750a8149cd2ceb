; summary: stolen time: how long this vCPU was ready to run and did not, told by KVM through shared memory
; proves:  STEAL_TIME
; needs:   irqchip
; machine: irqchip=split cpus=2 start=all timeout=30
; param:   msr = 0x4b564d03   MSR_KVM_STEAL_TIME, the feature's MSR
; param:   hog = 1            0: no other process competes for the CPU
; param:   wanted = 8000000   nanoseconds that must be stolen
; param:   turns = 200        give up after so many turns
; param:   turn = 100000000   TSC ticks that a turn lasts at most: it ends when this vCPU has lost its CPU
; param:   watch = 16         losses under the eyes of vCPU 1, after which it need not have seen `preempted` set
; param:   sampled = 0x10     the byte of the area that vCPU 1 looks at: `preempted`
; param:   halt = 30000000    timer ticks (nanoseconds) to sleep in HLT
; param:   halts = 6          a vCPU may awake late, and that is stolen: sleep again, twice as long, at most so often
; result:  seen            u64   EAX of CPUID 0x40000001: bit 5 is STEAL_TIME
; result:  first_steal     u64   nanoseconds stolen when the guest looked for the first time
; result:  stolen          u64   nanoseconds stolen since, while the guest was busy
; result:  turns           u64   in so many turns
; result:  own_reads       u64   how often this vCPU read its own `preempted`
; result:  own_preempted   u64   what it read, all readings ORed: 0, for it is running
; result:  samples         u64   how often vCPU 1 looked at vCPU 0's `preempted`
; result:  watched         u64   losses of the CPU inside the guest during which vCPU 1 looked
; result:  preempted       u64   and in how many of those it found `preempted` set
; result:  halt_ticks      u64   TSC ticks in HLT
; result:  halt_stolen     u64   nanoseconds stolen meanwhile: little, for a halted vCPU is not ready to run
; result:  off_moved       u64   how far `version` went after the feature was switched off: 0
;
; The guest writes the address of a kvm_steal_time (64 bytes, 64-byte aligned) with bit 0 set to the MSR. From then on KVM
; brings the structure up to date whenever it is about to run this vCPU: it adds the time that the vCPU's host thread
; waited for a CPU. `version` is odd while KVM writes, and 2 higher for each update. `preempted` is for *other* vCPUs: KVM
; sets bit 0 when it takes the CPU away from a vCPU that could have gone on, and clears the byte before it runs again.
;
; The host makes another process compete for the CPU of both vCPUs, and compares each OUT with the scheduler's figures.
; A turn ends when `version` moves though the guest was not left by an OUT: vCPU 0 has lost the one CPU, and has it again.
; If vCPU 1 has looked meanwhile, it has seen what KVM wrote at the loss.

%include "results.inc"
%include "apic.inc"
%include "entry.inc"

AREA    = DATA_BASE                       ; the kvm_steal_time of vCPU 0
PHASE   = DATA_BASE + 0x1000              ; u8: 0 wait, 1 sample, 2 done
SAMPLES = DATA_BASE + 0x1040              ; u64
SET     = DATA_BASE + 0x1048              ; u64: samples in which the bit was set
WOKEN   = DATA_BASE + 0x1050              ; u8: the timer interrupt came
ENOUGH  = DATA_BASE + 0x1058              ; u8, written by the host: the other process has had the CPU, and vCPU 1 has seen
                                          ; `preempted` set where KVM says that it reported a loss
TIMER_VECTOR = 0x40

READY   = 0                               ; OUT of these: for the host
COMPARE = 1                               ; the area is up to date: look at it
OFF     = 2                               ; nothing to see

start:
    test  edi, edi
    jnz   sampler
    mov   eax, KVM_CPUID_FEATURES
    cpuid
    RESULT seen
    X2APIC_ENABLE
    mov   edi, TIMER_VECTOR
    lea   rsi, [rip + timer]
    call  set_gate

    mov   edi, AREA
    xor   eax, eax
    mov   ecx, STEAL_TIME_SIZE / 8
    rep stosq
    mov   eax, AREA + KVM_MSR_ENABLED
    call  write_feature_msr
    mov   al, READY                       ; leave the guest once: at the latest when it is entered again,
    out   DELAY_PORT, al                  ; the area is filled
    mov   al, COMPARE
    out   DELAY_PORT, al
    call  read_steal
    RESULT first_steal
    mov   r8, rax                         ; stolen before we began to count
    mov   r12, PARAM_wanted
    add   r12, rax                        ; our aim
    xor   ebp, ebp                        ; turns
    xor   r15d, r15d                      ; what we saw in our own `preempted`
    xor   ebx, ebx                        ; and how often we looked
    xor   r13d, r13d                      ; losses that vCPU 1 watched
    xor   esi, esi                        ; and in which it saw `preempted` set
    cmp   dword ptr [AREA + STEAL_TIME_version], 0
    je    robbed                          ; nobody writes there: nothing can be seen
    mov   byte ptr [PHASE], 1
    sti                                   ; busy as a program is, which an interrupt may stop; none is on its way

; Be busy until enough has been stolen, by the process that was meant to and not only by whatever else runs here, and
; until vCPU 1 has seen us off the CPU. No PAUSE: on some hosts it is an exit, and after one of those KVM says nothing.
busy:
    rdtsc
    shl   rdx, 32
    or    rax, rdx
    mov   r9, rax
    add   r9, PARAM_turn
    mov   r10d, dword ptr [AREA + STEAL_TIME_version]
spin:
    mov   r14, qword ptr [SET]            ; in this order: a loss in between is then not counted, rather than wrong
    mov   r11, qword ptr [SAMPLES]
    movzx eax, byte ptr [AREA + STEAL_TIME_preempted]
    or    r15d, eax
    inc   rbx
    rdtsc
    shl   rdx, 32
    or    rax, rdx
    cmp   rax, r9
    ja    turned                          ; nobody wants the CPU
    cmp   dword ptr [AREA + STEAL_TIME_version], r10d
    je    spin
    cmp   qword ptr [SAMPLES], r11
    je    turned                          ; vCPU 1 had no turn
    inc   r13
    cmp   qword ptr [SET], r14
    je    turned
    inc   rsi
turned:
    mov   al, COMPARE
    out   DELAY_PORT, al
    inc   ebp
    call  read_steal
    cmp   ebp, PARAM_turns
    jae   robbed                          ; too long; the host will see how little it was
    cmp   rax, r12
    jb    busy
    cmp   byte ptr [ENOUGH], 0
    je    busy
    test  rsi, rsi
    jnz   robbed
    cmp   r13, PARAM_watch
    jb    busy
robbed:
    cli
    mov   byte ptr [PHASE], 2
    call  read_steal
    sub   rax, r8
    RESULT stolen
    mov   eax, ebp
    RESULT turns
    mov   rax, rbx
    RESULT own_reads
    mov   eax, r15d
    RESULT own_preempted
    mov   rax, qword ptr [SAMPLES]
    RESULT samples
    mov   rax, r13
    RESULT watched
    mov   rax, rsi
    RESULT preempted

; Sleep. The other process has the CPU meanwhile, and that is no theft; only a late awakening is.
    mov   ebp, PARAM_halts
    mov   r12d, PARAM_halt
sleep:
    mov   byte ptr [WOKEN], 0
    call  read_steal
    mov   r8, rax
    rdtsc
    shl   rdx, 32
    or    rax, rdx
    mov   r9, rax
    call  start_timer
asleep:
    sti
    hlt
    cli
    cmp   byte ptr [WOKEN], 0
    je    asleep
    rdtsc
    shl   rdx, 32
    or    rax, rdx
    sub   rax, r9
    RESULT halt_ticks
    call  read_steal
    sub   rax, r8
    RESULT halt_stolen
    mov   r10, rax
    mov   al, COMPARE
    out   DELAY_PORT, al
    lea   r11d, [r10 * 2]
    cmp   r11d, r12d
    jb    slept
    add   r12d, r12d
    dec   ebp
    jnz   sleep
slept:

; Switch it off: the area stands still, however often the guest is left and entered.
    mov   eax, AREA                       ; bit 0 clear
    call  write_feature_msr
    mov   al, OFF
    out   DELAY_PORT, al
    mov   r13d, dword ptr [AREA + STEAL_TIME_version]
    mov   ebp, 4
left_alone:
    mov   al, OFF
    out   DELAY_PORT, al
    dec   ebp
    jnz   left_alone
    mov   eax, dword ptr [AREA + STEAL_TIME_version]
    sub   eax, r13d
    RESULT off_moved
    PASS

; ---- vCPU 1 looks at the `preempted` of vCPU 0

sampler:
    sti
    pause
sampling:
    cmp   byte ptr [PHASE], 1
    jb    sampler
    ja    finished
    test  byte ptr [AREA + PARAM_sampled], KVM_VCPU_PREEMPTED
    jz    looked
    inc   qword ptr [SET]
looked:
    inc   qword ptr [SAMPLES]
    jmp   sampling
finished:
    cli
    hlt
    jmp   finished

; ---- EAX = value; the upper half is zero
write_feature_msr:
    mov   ecx, PARAM_msr
    xor   edx, edx
    wrmsr
    ret

; ---- RAX = stolen nanoseconds, read between two equal and even versions. Changes RCX.
read_steal:
    mov   ecx, dword ptr [AREA + STEAL_TIME_version]
    test  ecx, 1
    jnz   read_steal                      ; KVM is writing
    mov   rax, qword ptr [AREA + STEAL_TIME_steal]
    cmp   ecx, dword ptr [AREA + STEAL_TIME_version]
    jne   read_steal                      ; KVM has written meanwhile
    ret

; ---- one interrupt after R12 ticks of the APIC's bus, which has 1 GHz under KVM
start_timer:
    xor   edx, edx
    mov   ecx, X2APIC_TDCR
    mov   eax, APIC_TDR_DIV_1
    wrmsr
    mov   ecx, X2APIC_LVTT
    mov   eax, TIMER_VECTOR               ; one-shot, not masked
    wrmsr
    mov   ecx, X2APIC_TMICT
    mov   eax, r12d
    wrmsr
    ret

timer:
    TAKEN_ONCE
    LEAVE_HLT
    push  rax
    push  rcx
    push  rdx
    mov   byte ptr [WOKEN], 1
    X2APIC_END
    pop   rdx
    pop   rcx
    pop   rax
    iretq

%include "idt.inc"
