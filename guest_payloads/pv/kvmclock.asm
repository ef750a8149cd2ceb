; summary: the paravirtual clock: wall clock, system time on two vCPUs, and what the host does to it seen by the guest
; proves:  CLOCKSOURCE2, CLOCKSOURCE
; machine: cpus=2 start=all timeout=30
; param:   wall_msr   = 0x4b564d00   MSR_KVM_WALL_CLOCK_NEW; 0x11 is the old MSR_KVM_WALL_CLOCK
; param:   system_msr = 0x4b564d01   MSR_KVM_SYSTEM_TIME_NEW; 0x12 is the old MSR_KVM_SYSTEM_TIME
; param:   spoil      = 0            added to both, to see the proof fail
; param:   samples    = 200          readings on vCPU 0 alone
; param:   switches   = 40           changes from one vCPU to the other that end the readings on both
; result:  features        u32  EAX of CPUID leaf 0x40000001
; result:  wall_version    u32  version of the wall clock after the first WRMSR: even, not 0
; result:  wall_version_2  u32  after the second: 2 more
; result:  cross_samples   u64  readings on both vCPUs, each compared with the latest of either
; result:  cross_switches  u64  how often the readings went from one vCPU to the other
; result:  cross_backward  u64  how many were earlier than one taken before: 0 with a stable clock
; result:  cross_worst     u64  the largest of these steps back, in nanoseconds
; result:  first_ns        u64  first reading on vCPU 0 alone
; result:  backward        u64  readings earlier than the one before
; result:  worst           u64  the largest of these steps back, in nanoseconds
; result:  last_ns         u64  last reading
; result:  last_tsc        u64  the TSC it is of
; result:  version         u32  version of the clock's page, before the host sets the clock
; result:  set_ns          u64  first reading after the host has set it (KVM_SET_CLOCK)
; result:  set_version     u32  version of the page then
; result:  flags           u8   flags of the page: bit 0 stable, bit 1 the guest was stopped
; result:  flags_stopped   u8   after the host said so (KVM_KVMCLOCK_CTRL): bit 1 is set
; result:  flags_kept      u8   after KVM has rewritten the page: it still is
; result:  flags_cleared   u8   after the guest cleared it and KVM rewrote the page again: it stays clear
;
; Two structures. The wall clock is written once, at the WRMSR that names its address: the time of day at which system
; time was 0. System time has a page for each vCPU, which KVM keeps up to date at the vCPU's entries. At each STEP the
; guest leaves to the host half, which reads the host's clocks or changes the guest's: kvmclock.py.

%include "results.inc"

WALL = DATA_BASE                          ; pvclock_wall_clock
PAGES = DATA_BASE + 0x1000                ; pvclock_vcpu_time_info, 0x1000 for each vCPU
COPY = DATA_BASE + 0x40                   ; the page of vCPU 0 as it was at the last reading
ARRIVED = DATA_BASE + 0x4000              ; shared between the vCPUs, a cache line each
LATEST = DATA_BASE + 0x4040               ; the latest reading of either
READER = DATA_BASE + 0x4080               ; who took the last one
SWITCHES = DATA_BASE + 0x40c0
SAMPLES = DATA_BASE + 0x4100
BACKWARD = DATA_BASE + 0x4140
WORST = DATA_BASE + 0x4180
PATIENCE = 20000000                       ; nanoseconds after which FEW switches are enough
FEW = 3                                   ; there and back, whoever reads first

.macro STEP number
    mov   al, \number
    out   DELAY_PORT, al
.endm

start:                                    ; EDI = index of this vCPU
    mov   r15d, edi
    test  edi, edi
    jnz   system_time
    mov   eax, KVM_CPUID_FEATURES
    cpuid
    mov   eax, eax                        ; clears the upper half
    RESULT features

; -- the wall clock
    STEP  1
    mov   ecx, PARAM_wall_msr + PARAM_spoil
    mov   eax, WALL
    xor   edx, edx
    wrmsr
    STEP  2
    mov   eax, dword ptr [WALL + WALL_CLOCK_version]
    RESULT wall_version
    mov   ecx, PARAM_wall_msr + PARAM_spoil
    mov   eax, WALL
    xor   edx, edx
    wrmsr
    STEP  0
    mov   eax, dword ptr [WALL + WALL_CLOCK_version]
    RESULT wall_version_2

; -- system time: every vCPU has a page of its own
system_time:
    mov   ebx, r15d
    shl   ebx, 12
    add   ebx, PAGES
    mov   ecx, PARAM_system_msr + PARAM_spoil
    lea   eax, [rbx + KVM_MSR_ENABLED]    ; bit 0 enables, the rest is the address
    xor   edx, edx
    wrmsr
    STEP  0                               ; KVM writes the page on the way back in

; -- both vCPUs read, and neither may see less than the other has seen before
    lock  inc qword ptr [ARRIVED]
wait_for_both:
    pause
    cmp   qword ptr [ARRIVED], 2
    jb    wait_for_both
    mov   edi, ebx
    call  pvclock_read
    mov   r14, rax                        ; when this vCPU began
cross:
    mov   r12, qword ptr [LATEST]
    mov   edi, ebx
    call  pvclock_read
    mov   r13, rax
    sub   r12, r13
    jbe   cross_forward                   ; LATEST is not above
    lock  inc qword ptr [BACKWARD]
    cmp   r12, qword ptr [WORST]
    jbe   cross_forward
    mov   qword ptr [WORST], r12
cross_forward:                            ; LATEST = max(LATEST, R13), whatever the other vCPU does meanwhile
    mov   rax, qword ptr [LATEST]
    cmp   rax, r13
    jae   cross_count
    lock  cmpxchg qword ptr [LATEST], r13
    jne   cross_forward
cross_count:
    lock  inc qword ptr [SAMPLES]
    mov   eax, r15d
    xchg  byte ptr [READER], al
    cmp   al, r15b
    je    cross_same
    lock  inc qword ptr [SWITCHES]
cross_same:
    mov   rcx, qword ptr [SWITCHES]
    cmp   rcx, PARAM_switches
    jae   cross_done
    cmp   rcx, FEW
    jb    cross
    sub   r13, r14
    cmp   r13, PATIENCE                   ; a busy host seldom runs both at once
    jb    cross
cross_done:
    test  r15d, r15d
    jz    alone
    hlt                                   ; vCPU 1 is done

; -- vCPU 0 alone, between two readings of the host
alone:
    mov   rax, qword ptr [SAMPLES]
    RESULT cross_samples
    mov   rax, qword ptr [SWITCHES]
    RESULT cross_switches
    mov   rax, qword ptr [BACKWARD]
    RESULT cross_backward
    mov   rax, qword ptr [WORST]
    RESULT cross_worst
    STEP  3
    mov   edi, ebx
    call  pvclock_read
    RESULT first_ns
    mov   r12, rax                        ; the reading before
    xor   r13d, r13d                      ; steps back
    xor   r14d, r14d                      ; the largest
    mov   ebp, PARAM_samples
sample:
    mov   edi, ebx
    call  pvclock_read
    sub   r12, rax
    jbe   sample_forward
    inc   r13d
    cmp   r12, r14
    jbe   sample_forward
    mov   r14, r12
sample_forward:
    mov   r12, rax
    dec   ebp
    jnz   sample
    mov   rax, r13
    RESULT backward
    mov   rax, r14
    RESULT worst
last:                                     ; one more, with a copy of the page that it is of
    mov   edi, ebx
    call  pvclock_read
    mov   esi, ebx
    mov   edi, COPY
    mov   ecx, PVCLOCK_SIZE
    rep   movsb
    cmp   r9d, dword ptr [rbx + PVCLOCK_version]
    jne   last
    RESULT last_ns
    mov   rax, r8
    RESULT last_tsc
    mov   eax, r9d
    RESULT version
    STEP  4

; -- the host sets the clock
    STEP  5
    mov   edi, ebx
    call  pvclock_read
    RESULT set_ns
    mov   eax, r9d
    RESULT set_version
    movzx eax, byte ptr [rbx + PVCLOCK_flags]
    RESULT flags

; -- the host says that the guest was stopped, so that no watchdog of the guest barks at the lost time
    STEP  6
    movzx eax, byte ptr [rbx + PVCLOCK_flags]
    RESULT flags_stopped
    STEP  7
    movzx eax, byte ptr [rbx + PVCLOCK_flags]
    RESULT flags_kept
    and   byte ptr [rbx + PVCLOCK_flags], ~PVCLOCK_GUEST_STOPPED
    STEP  8
    movzx eax, byte ptr [rbx + PVCLOCK_flags]
    RESULT flags_cleared
    PASS

%include "pvclock.inc"
