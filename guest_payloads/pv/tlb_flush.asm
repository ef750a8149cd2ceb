; summary: a TLB flush asked for through shared memory, done by KVM when it next enters this vCPU
; proves:  PV_TLB_FLUSH
; needs:   KVM_CAP_BINARY_STATS_FD
; machine: timeout=30
; param:   msr = 0x4b564d03   MSR_KVM_STEAL_TIME, whose area carries the request
; param:   rounds = 8         how often each value of the `preempted` byte is tried
; result:  seen       u64   EAX of CPUID 0x40000001: bit 5 is STEAL_TIME, bit 9 PV_TLB_FLUSH
; result:  requests   u64   flush requests that were made
; result:  left       u64   the `preempted` byte after each entry, all ORed: 0, KVM has consumed it
; result:  stale      u64   how often the old page was still read before a request; any number may be
; result:  fresh      u64   how often the new page was read after it: every time
;
; Changing a page-table entry does not change what the CPU has cached of it in its TLB: other vCPUs must flush theirs. Bare
; metal sends them an interrupt. Here a vCPU that is not running need not be woken: its kvm_steal_time (see steal_time.asm)
; says in `preempted`, bit 0, that it has lost its CPU, and the sender sets bit 1, KVM_VCPU_FLUSH_TLB, beside it with a
; CMPXCHG. KVM looks when it enters that vCPU again: it makes the byte zero, and flushes if bit 1 was set.
;
; This guest is the vCPU that is not running: it leaves by an OUT whose value the host writes into its `preempted`. A
; second OUT ends the measured entry. The value 1 (preempted, no request) and 0, 3 beside it are the controls.

%include "results.inc"

AREA  = DATA_BASE                         ; kvm_steal_time
PAGE  = DATA_BASE + 0x4000                ; the page that is mapped anew each time
OTHER = DATA_BASE + 0x6000
MEASURED = 0x10                           ; OUT of n: the host writes n into `preempted`; of n + this: that was n

start:
    mov   eax, KVM_CPUID_FEATURES
    cpuid
    RESULT seen
    xor   r8d, r8d                        ; left
    xor   r9d, r9d                        ; stale
    xor   r10d, r10d                      ; fresh
    xor   r11d, r11d                      ; requests

    mov   edi, AREA
    xor   eax, eax
    mov   ecx, STEAL_TIME_SIZE / 8
    rep stosq
    mov   ecx, PARAM_msr
    mov   eax, AREA + KVM_MSR_ENABLED
    xor   edx, edx
    wrmsr
    xor   eax, eax                        ; two entries, so that the area is in use
    out   DELAY_PORT, al
    out   DELAY_PORT, al

    mov   rax, PAGE
    mov   qword ptr [PAGE], rax           ; each page holds its own address
    mov   rax, OTHER
    mov   qword ptr [OTHER], rax
    mov   edx, PAGE
    call  find_entry                      ; RBX = address of the entry that maps PAGE
    mov   r13, qword ptr [rbx]
    and   r13, 0xfff                      ; its flags
    mov   r14d, PAGE                      ; what is mapped there now

    mov   ebp, PARAM_rounds
round:
    xor   r12d, r12d                      ; the value to try: 0, 1, 2, 3
next_value:
    mov   rax, qword ptr [PAGE]           ; now the TLB knows the page that is mapped
    xor   r14d, PAGE ^ OTHER              ; from one page to the other, in turn
    mov   rax, r13
    or    rax, r14
    mov   qword ptr [rbx], rax            ; mapped anew, and no INVLPG
    test  r12d, KVM_VCPU_FLUSH_TLB
    jz    leave                           ; no request: nothing may be said of what is read
    inc   r11d
    cmp   r14, qword ptr [PAGE]
    je    leave
    inc   r9d                             ; stale
leave:
    mov   eax, r12d
    out   DELAY_PORT, al                  ; out, the host writes the byte, and in again
    movzx ecx, byte ptr [AREA + STEAL_TIME_preempted]
    or    r8d, ecx
    test  r12d, KVM_VCPU_FLUSH_TLB
    jz    measure
    cmp   r14, qword ptr [PAGE]
    jne   measure
    inc   r10d                            ; fresh
measure:
    lea   eax, [r12d + MEASURED]
    out   DELAY_PORT, al
    invlpg [PAGE]                         ; the next value begins with a clean slate
    inc   r12d
    cmp   r12d, 4
    jb    next_value
    dec   ebp
    jnz   round

    mov   eax, r11d
    RESULT requests
    mov   eax, r8d
    RESULT left
    mov   eax, r9d
    RESULT stale
    mov   eax, r10d
    RESULT fresh
    PASS

%include "walk.inc"
