; summary: NAME takes interrupts in a handler of its own, and counts them
; needs:   irqchip
; machine: irqchip=split
; result:  taken u64   how often the handler ran: 3
; param:   want = 3    how many interrupts to wait for
;
; pyvmm run NAME.asm
; pyvmm run NAME.asm --param want=10 --trace

%include "results.inc"
%include "apic.inc"

VECTOR = 0x41                       ; 0 to 31 are the CPU's own exceptions; from 32 on they are yours

start:
    mov   edi, VECTOR               ; which code runs for which vector: the IDT says it
    lea   rsi, [rip + on_interrupt]
    call  set_gate
    X2APIC_ENABLE                   ; each vCPU's own interrupt controller, by MSRs

next:
    ; Ask the local APIC's timer for one interrupt. (Its "initial count" starts it.)
    mov   ecx, X2APIC_LVTT          ; one shot, our vector
    mov   eax, VECTOR
    xor   edx, edx
    wrmsr
    mov   ecx, X2APIC_TMICT
    mov   eax, 100000
    wrmsr

    sti                             ; let interrupts in ...
wait:
    pause
    mov   rax, [rip + taken]        ; ... until the handler has counted one more
    cmp   rax, [rip + waited_for]
    jb    wait
    cli
    inc   qword ptr [rip + waited_for]
    cmp   rax, PARAM_want
    jb    next

    RESULT taken                    ; stores RAX
    PASS                            ; the run ends here

; The CPU has put RIP, CS, RFLAGS, RSP and SS on the stack; IRETQ takes them back. What else the handler changes it
; must restore: the code that it interrupts knows nothing of it.
on_interrupt:
    push  rax
    push  rcx
    push  rdx
    inc   qword ptr [rip + taken]
    X2APIC_END                      ; done: the next one may come
    pop   rdx
    pop   rcx
    pop   rax
    iretq

    .balign 8
taken:
    .quad 0
waited_for:
    .quad 1

%include "idt.inc"
