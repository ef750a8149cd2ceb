; summary: one hypercall pairs the host's time of day with this guest's TSC
; proves:  KVM_HC_CLOCK_PAIRING
; param:   number = 9   KVM_HC_CLOCK_PAIRING; another one shows the proof fail
; result:  result  i64  RAX of the call: 0, or a negated error number
; result:  before  u64  TSC before the call
; result:  after   u64  TSC after it: the pair's lies between
; result:  kind    u8   how calls went: 0 VMCALL, 1 VMMCALL, 2 handed over to pyvmm
;
; A clock that follows the host's (chrony with ptp_kvm) needs to know what time it was at which TSC. Reading one after
; the other would put an interrupt between them; KVM reads both at once and writes the pair, 64 bytes, to the address
; that it is given. The bytes are 0xff before, so that every byte that the host half sees as zero was written.

%include "results.inc"

PAIR = DATA_BASE                          ; kvm_clock_pairing

start:
    call  hypercall_init
    mov   edi, PAIR
    mov   ecx, CLOCK_PAIRING_SIZE
    mov   al, 0xff
    rep   stosb
    mov   eax, KVM_HC_VAPIC_POLL_IRQ      ; does nothing: finds out which instruction this host takes
    call  hypercall

    call  read_tsc
    RESULT before
    mov   eax, PARAM_number
    mov   ebx, PAIR                       ; a0: where to
    mov   ecx, KVM_CLOCK_PAIRING_WALLCLOCK ; a1: which clock; there is one
    xor   edx, edx
    xor   esi, esi
    call  hypercall
    RESULT result
    call  read_tsc
    RESULT after
    movzx eax, byte ptr [rip + hypercall_kind]
    RESULT kind
    PASS

read_tsc:                                 ; RAX = TSC, RDX changes; nothing crosses it
    lfence
    rdtsc
    lfence
    shl   rdx, 32
    or    rax, rdx
    ret

%include "idt.inc"
%include "hypercall.inc"
