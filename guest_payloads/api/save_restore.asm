; summary: a vCPU saved and restored in mid-flight, from machine to machine, and the guest does not notice
; proves:  save_restore
; machine: irqchip=split timeout=30
; param:   steps = 45      OUTs at which the host may move the guest
; result:  digest  u64   of all that was computed: registers, memory, XMM, flags, the stack
; result:  ticks   u64   self-IPIs taken: one for each step
; result:  dr0     u64   what was put into DR0 at the start
; result:  lstar   u64   and into MSR_LSTAR
; result:  lvt     u64   and into the LAPIC's LVT of LINT0
; result:  xmm     u64   and into XMM7
; result:  fs      u64   and into the base of FS

%include "results.inc"
%include "apic.inc"
%include "entry.inc"

TICKS  = DATA_BASE
TABLE  = DATA_BASE + 0x1000
SCREEN = DATA_BASE + 0x100
VECTOR = 0x40

start:
    mov   edi, VECTOR
    lea   rsi, [rip + tick]
    call  set_gate
    X2APIC_ENABLE
    ; a little of everything that a vCPU has
    mov   eax, 0x12345678
    mov   dr0, rax
    mov   ecx, MSR_LSTAR
    mov   eax, 0x89abcdef
    mov   edx, 0x1234
    wrmsr
    mov   ecx, MSR_FS_BASE
    mov   eax, DATA_BASE
    xor   edx, edx
    wrmsr
    mov   ecx, X2APIC_LVT0
    mov   eax, APIC_LVT_MASKED | 0x77
    wrmsr
    mov   ebx, SCREEN
    mov   rax, 0xfeedface12345678
    mov   qword ptr [rbx], rax
    movdqu xmm7, xmmword ptr [rbx]
    sti

    mov   r12d, PARAM_steps
    mov   rax, 0x9e3779b97f4a7c15
    mov   r8, 0x1234567
step:
    ; registers and memory
    mov   ecx, 16
mix:
    imul  rax, rax, 0x19660d
    add   rax, r8
    rol   rax, 7
    mov   rdx, rax
    and   edx, 0xff8
    xor   rax, qword ptr [rdx + TABLE]
    mov   qword ptr [rdx + TABLE], rax
    dec   ecx
    jnz   mix
    ; an interrupt that is taken at once, or right after the move
    mov   r14, rax
    cli
    X2APIC_SEND 0, VECTOR | APIC_DEST_SELF | APIC_INT_ASSERT
    mov   rax, r14
    push  rax
    stc
    out   DELAY_PORT, al                  ; here the host may take all of it away, with the interrupt still to come
    adc   qword ptr [rsp], 0              ; the carry flag has been moved too
    pop   rax
    mov   r13, qword ptr fs:[0]           ; TICKS
    sti
    nop
wait:                                     ; for the interrupt of this step
    cmp   r13, qword ptr fs:[0]
    je    wait
    dec   r12d
    jnz   step

    RESULT digest
    mov   rax, qword ptr [TICKS]
    RESULT ticks
    mov   rax, dr0
    RESULT dr0
    mov   ecx, MSR_LSTAR
    call  read
    RESULT lstar
    mov   ecx, X2APIC_LVT0
    call  read
    RESULT lvt
    movdqu xmmword ptr [rbx], xmm7
    mov   rax, qword ptr [rbx]
    RESULT xmm
    mov   ecx, MSR_FS_BASE
    call  read
    RESULT fs
    PASS

read:
    rdmsr
    shl   rdx, 32
    or    rax, rdx
    ret

tick:
    TAKEN_ONCE
    inc   qword ptr [TICKS]
    push  rax
    push  rcx
    push  rdx
    X2APIC_END
    pop   rdx
    pop   rcx
    pop   rax
    iretq

%include "idt.inc"
