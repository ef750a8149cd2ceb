; summary: a vCPU that halted with interrupts off is woken by a kick; a kick that comes first is kept
; proves:  PV_UNHALT
; needs:   KVM_CAP_BINARY_STATS_FD
; machine: irqchip=split cpus=2 start=all timeout=90
; param:   nr = 5         KVM_HC_KICK_CPU
; param:   target = 1     the APIC id that is kicked
; param:   patience = 30000000000   TSC cycles until vCPU 0 gives up: ten seconds or so
; result:  features u64   EAX of KVM's feature leaf, as this guest sees it: bit 7 announces the hypercall
; result:  nobody   i64   RAX of a kick for an APIC id that does not exist: 0
; result:  kick     i64   RAX of the kick: 0
; result:  woken    u64   how often the sleeper had woken a little later: 1
; result:  cycles   u64   TSC cycles from the kick until the sleeper was seen awake
; result:  early    i64   RAX of a kick while the sleeper is busy: 0
; result:  kept     u64   wakings after its next HLT: 2, the HLT fell through
; result:  icr      u64   wakings after an IPI of delivery mode 3 while it slept again: 3
; result:  msi      u64   wakings after an MSI of delivery mode 3 from the VMM: 4
; result:  flags    u64   RFLAGS.IF as the sleeper found it each time, ORed: 0, no interrupt could have woken it
; result:  kind     u64   how hypercalls went: 0 VMCALL, 1 VMMCALL, 2 handed over to pyvmm
;
; This is how a paravirtual spinlock sleeps: the waiter does CLI and HLT, and who releases the lock kicks it. Vcpu 1
; sleeps, vCPU 0 kicks. OUT to port 0x80 with a number n waits, in the host half, until vCPU 1 is in its n-th HLT, and
; notes whether it stays there; OUT to port 0x81 sends the MSI.

%include "results.inc"
%include "apic.inc"

PERMIT = DATA_BASE                        ; u64: how many HLTs vCPU 1 may begin; the host half reads this page
BEGUN  = DATA_BASE + 0x40                 ; u64: how many it began
WOKEN  = DATA_BASE + 0x80                 ; u64: how many it came out of
FLAGS  = DATA_BASE + 0xc0                 ; u64: RFLAGS.IF after each, ORed
NOBODY = 0x5a                             ; an APIC id without a vCPU

; wait until vCPU 1 woke `count` times, or give up; RAX = how often it did
.macro AWAIT count
    mov   r12d, \count
    call  await
.endm

.macro SETTLE number
    mov   al, \number
    out   DELAY_PORT, al
.endm

.macro KICK id
    mov   eax, PARAM_nr
    xor   ebx, ebx                        ; flags: none are defined
    mov   ecx, \id
    call  hypercall
.endm

start:
    test  edi, edi
    jnz   sleeper

    call  hypercall_init
    X2APIC_ENABLE
    mov   eax, KVM_CPUID_FEATURES
    xor   ecx, ecx
    cpuid
    mov   eax, eax
    RESULT features

    mov   qword ptr [PERMIT], 1
    SETTLE 1                              ; asleep, and it stays so
    KICK  NOBODY
    RESULT nobody
    SETTLE 1                              ; still asleep
    rdtsc
    shl   rdx, 32
    or    rax, rdx
    mov   r14, rax
    KICK  PARAM_target
    RESULT kick
    AWAIT 1
    RESULT woken
    rdtsc
    shl   rdx, 32
    or    rax, rdx
    sub   rax, r14
    RESULT cycles

    KICK  PARAM_target                    ; vCPU 1 is not halted: it waits for its permit
    RESULT early
    mov   qword ptr [PERMIT], 2
    AWAIT 2                               ; its second HLT was no sleep
    RESULT kept

    mov   qword ptr [PERMIT], 3
    SETTLE 3                              ; one kick, one HLT: the third one sleeps
    X2APIC_SEND 1, APIC_DM_REMRD
    AWAIT 3
    RESULT icr

    mov   qword ptr [PERMIT], 4
    SETTLE 4
    out   0x81, al                        ; the VMM sends the MSI
    AWAIT 4
    RESULT msi

    mov   rax, qword ptr [FLAGS]
    RESULT flags
    movzx eax, byte ptr [rip + hypercall_kind]
    RESULT kind
    PASS

; R12 = wakings to wait for; RAX = wakings seen. Changes RDX and R13.
await:
    rdtsc
    shl   rdx, 32
    or    rax, rdx
    mov   r13, PARAM_patience
    add   r13, rax
await_more:
    cmp   qword ptr [WOKEN], r12
    jae   await_end
    pause
    rdtsc
    shl   rdx, 32
    or    rax, rdx
    cmp   rax, r13
    jb    await_more
await_end:
    mov   rax, qword ptr [WOKEN]
    ret

; ---- vCPU 1

sleeper:
    xor   r12d, r12d
sleeper_next:
    pause
    cmp   qword ptr [PERMIT], r12
    jbe   sleeper_next
    inc   r12
    cli
    mov   qword ptr [BEGUN], r12
    hlt
    pushfq
    pop   rax
    and   eax, X86_EFLAGS_IF
    or    qword ptr [FLAGS], rax
    inc   qword ptr [WOKEN]
    jmp   sleeper_next

%include "idt.inc"
%include "hypercall.inc"
