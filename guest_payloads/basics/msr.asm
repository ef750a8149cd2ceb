; summary: model-specific registers: write, read back, and the fault for one that does not exist
; result:  lstar      u64   LSTAR reads back what was written
; result:  gs_base    u64   GS_BASE likewise
; result:  through_gs u64   and it is really the base of GS
; result:  efer       u64   EFER as the VMM set it: long mode active, syscall and NX on
; result:  tsc_moves  u64   the time-stamp counter grew between two reads
; result:  gp_taken   u64   1: RDMSR of an MSR that no CPU has is #GP
; result:  gp_error   u64   with error code 0
;
; RDMSR and WRMSR take the number in ECX and the 64-bit value in EDX:EAX.

%include "results.inc"

LSTAR_VALUE = 0x123456789a0               ; canonical: bits 63 to 47 equal
NO_SUCH_MSR = 0xdead

start:
    mov   edi, 13                         ; #GP
    lea   rsi, [rip + general_protection]
    call  set_gate

    mov   ecx, MSR_LSTAR
    mov   rax, LSTAR_VALUE
    call  write_msr
    call  read_msr
    RESULT lstar

    mov   rax, 0x5a5aa5a5
    mov   qword ptr [DATA_BASE + 0x40], rax
    mov   ecx, MSR_GS_BASE
    mov   eax, DATA_BASE
    call  write_msr
    call  read_msr
    RESULT gs_base
    mov   ebx, 0x40
    mov   rax, qword ptr gs:[rbx]
    RESULT through_gs

    mov   ecx, MSR_EFER
    call  read_msr
    RESULT efer

    mov   ecx, MSR_IA32_TSC
    call  read_msr
    mov   rbx, rax
    call  read_msr
    sub   rax, rbx
    RESULT tsc_moves

    xor   ebp, ebp
    mov   ecx, NO_SUCH_MSR
bad:
    rdmsr                                 ; two bytes: the handler steps over them
    mov   eax, ebp
    RESULT gp_taken
    PASS

general_protection:
    pop   rax                             ; the error code
    RESULT gp_error
    inc   ebp
    add   qword ptr [rsp], 2
    iretq

read_msr:                                 ; ECX -> RAX; changes RDX
    rdmsr
    shl   rdx, 32
    or    rax, rdx
    ret

write_msr:                                ; ECX, RAX; changes RDX
    mov   rdx, rax
    shr   rdx, 32
    wrmsr
    ret

%include "idt.inc"
