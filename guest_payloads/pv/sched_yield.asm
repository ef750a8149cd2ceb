; summary: a vCPU gives its CPU to another one that has lost its own: KVM_HC_SCHED_YIELD
; proves:  PV_SCHED_YIELD
; needs:   irqchip
; machine: irqchip=split cpus=2 start=all timeout=30
; param:   nr = 11            KVM_HC_SCHED_YIELD, the feature's hypercall
; param:   calls = 8          calls to vCPU 1, and as many to nobody
; param:   target = 1         the APIC id that those calls name: vCPU 1's
; param:   contend = 1        0: each vCPU may have a CPU of its own, so that nobody needs what is given
; result:  seen       u64   EAX of CPUID 0x40000001: bit 13 is PV_SCHED_YIELD
; result:  made       u64   calls that named vCPU 1 while it was busy
; result:  refused    u64   how many of those did not return 0
; result:  idle_made  u64   calls that named the caller itself, or an APIC id that nobody has
; result:  idle_refused u64 how many of those did not return 0: none, nothing is wrong with them
; result:  kind       u64   how the calls went: 0 VMCALL, 1 VMMCALL, 2 handed over to pyvmm
;
; A vCPU that waits for another (for a lock, or for the answer to an interrupt) spins in vain while that one has no CPU.
; RAX = 11, RBX = APIC id: KVM hands the rest of the caller's turn to that vCPU, if it is ready to run and does not, and
; if this CPU has more than one thread to run. It always returns 0; whether it yielded, only the host knows.
;
; KVM finds that vCPU by its APIC id, in a map that it makes anew when a guest switches an APIC on. So both do that first,
; as every operating system does: of a vCPU that has not, a map may know nothing.
;
; Both vCPUs are busy on one CPU, so that one is ready while the other runs. Before each call vCPU 0 waits until vCPU 1
; has counted on: it was in the guest just now, and has lost its CPU since, for vCPU 0 has it. Then vCPU 1 halts, and the
; other calls on: to give a turn to itself, and to nobody.

%include "results.inc"
%include "apic.inc"

ARRIVED = DATA_BASE                       ; u8: vCPU 1 is busy
LEAVE   = DATA_BASE + 0x40                ; u8: vCPU 1 may halt
COUNT   = DATA_BASE + 0x80                ; u64: vCPU 1 counts here while it is busy
NOBODY  = 0xdd                            ; an APIC id that no vCPU has

FIRST  = 1                                ; OUT of these, for the host: calls to vCPU 1 begin,
SECOND = 2                                ; calls to nobody begin,
THIRD  = 3                                ; and all have been made

start:
    test  edi, edi
    jnz   target
    X2APIC_ENABLE
    sti                                   ; busy as a program is, which an interrupt may stop; none is on its way
    call  hypercall_init
    mov   eax, KVM_CPUID_FEATURES
    cpuid
    RESULT seen
wait:
    pause
    cmp   byte ptr [ARRIVED], 0
    je    wait
    mov   eax, PARAM_nr                   ; the first call finds out which instruction there is: not counted
    xor   ebx, ebx
    call  hypercall

    mov   al, FIRST
    out   DELAY_PORT, al
    xor   r8d, r8d                        ; calls made
    xor   r9d, r9d                        ; and refused
to_target:
    mov   r11, qword ptr [COUNT]
at_work:
    pause
    cmp   qword ptr [COUNT], r11
    je    at_work
    mov   ebx, PARAM_target
    call  yield
    cmp   r8d, PARAM_calls
    jb    to_target
    mov   rax, r8
    RESULT made
    mov   rax, r9
    RESULT refused

    mov   byte ptr [LEAVE], 1
still_busy:
    pause
    cmp   byte ptr [ARRIVED], 0
    jne   still_busy
    mov   al, SECOND
    out   DELAY_PORT, al
    xor   r8d, r8d
    xor   r9d, r9d
to_nobody:
    xor   ebx, ebx                        ; the caller itself
    call  yield
    mov   ebx, NOBODY
    call  yield
    cmp   r8d, PARAM_calls
    jb    to_nobody
    mov   al, THIRD
    out   DELAY_PORT, al
    mov   rax, r8
    RESULT idle_made
    mov   rax, r9
    RESULT idle_refused
    movzx eax, byte ptr [rip + hypercall_kind]
    RESULT kind
    PASS

; RBX = APIC id. Counts in R8, and in R9 what did not return 0.
yield:
    mov   eax, PARAM_nr
    call  hypercall
    inc   r8
    test  rax, rax
    jz    yielded
    inc   r9
yielded:
    ret

; ---- vCPU 1: busy until it may halt
target:
    X2APIC_ENABLE
    sti
    mov   byte ptr [ARRIVED], 1
busy:
    inc   qword ptr [COUNT]
    cmp   byte ptr [LEAVE], 0
    je    busy
    mov   byte ptr [ARRIVED], 0
halted:
    cli
    hlt
    jmp   halted

%include "idt.inc"
%include "hypercall.inc"
