; summary: the two hints in CPUID, and what the delay costs that one of them makes unnecessary
; proves:  NOP_IO_DELAY, HINTS_REALTIME
; param:   rounds = 8    how often both loops are timed; the least counts
; param:   turns  = 16   turns of each loop
; result:  features   u32  EAX of CPUID leaf 0x40000001: bit 1 says that no delay is needed
; result:  hints      u32  EDX of it: bit 0 says that vCPUs are never preempted for long
; result:  loop       u64  TSC ticks of the loop that only counts
; result:  delay      u64  TSC ticks of the loop that also writes to port 0x80
;
; Drivers of old hardware gave it time between two accesses by an OUT to port 0x80, which nobody listens to and which
; took a microsecond on the ISA bus. In a guest the OUT leaves to the VMM and costs far more, for nothing: therefore
; KVM_FEATURE_NOP_IO_DELAY. Hints ask nothing of KVM, so there is no effect to see but the cost.

%include "results.inc"

; RAX = TSC; changes RDX.
.macro READ_TSC
    lfence
    rdtsc
    lfence
    shl   rdx, 32
    or    rax, rdx
.endm

start:
    mov   eax, KVM_CPUID_FEATURES
    cpuid
    mov   eax, eax                        ; clears the upper half
    RESULT features
    mov   eax, edx
    RESULT hints

    mov   r12, -1                         ; the least ticks so far, of the loop that counts
    mov   r13, -1                         ; and of the one with the OUT
    mov   ebp, PARAM_rounds
round:
    READ_TSC
    mov   rbx, rax
    mov   ecx, PARAM_turns
count:
    dec   ecx
    jnz   count
    READ_TSC
    sub   rax, rbx
    cmp   rax, r12
    cmovb r12, rax

    READ_TSC
    mov   rbx, rax
    mov   ecx, PARAM_turns
delay:
    out   DELAY_PORT, al
    dec   ecx
    jnz   delay
    READ_TSC
    sub   rax, rbx
    cmp   rax, r13
    cmovb r13, rax
    dec   ebp
    jnz   round
    mov   rax, r12
    RESULT loop
    mov   rax, r13
    RESULT delay
    PASS
