; summary: NAME runs a program in ring 3, which a kernel of a few lines serves
; user:    user_begin user_end
; result:  cpl   u64   the privilege level that the program read from CS: 3
; result:  calls u64   how often it called the kernel: 3
;
; pyvmm run NAME.asm
; pyvmm run NAME.asm --trace
;
; In ring 3 a program may do nothing to the machine: no port, no control register, no page of the kernel's. It asks.
; Here it asks by an instruction that does not exist (UD2): the CPU raises #UD, and its handler is the kernel. That way
; works on every host; SYSCALL, which real kernels use, does where ring 0 is not emulated (docs/hosts.md).

%include "results.inc"
%include "ring3.inc"

start:                              ; ring 0: the kernel prepares, and leaves
    mov   edi, UD_VECTOR
    lea   rsi, [rip + kernel]
    call  set_gate
    ENTER_RING3 program             ; IRETQ to it, on the stack of region `user`

; ---- the kernel: EAX says what is wanted, RDI with what

kernel:                             ; on the stack: RIP, CS, RFLAGS, RSP, SS of the program
    inc   qword ptr [rip + calls]
    cmp   eax, SAY
    je    say
    cmp   eax, TELL
    je    tell
    mov   rax, [rip + calls]        ; anything else: it is finished
    RESULT calls
    PASS
say:
    mov   rsi, rdi
    call  print
    jmp   back
tell:
    mov   rax, rdi
    RESULT cpl
back:
    add   qword ptr [rsp], 2        ; behind the UD2, which has two bytes
    iretq

calls:
    .quad 0

; ---- the program: its pages alone are open to ring 3 (`; user:` above names their labels)

    .balign 4096
user_begin:
program:
    lea   rdi, [rip + greeting]
    mov   eax, SAY
    ud2
    mov   edi, cs
    and   edi, 3                    ; the low two bits of CS are the privilege level
    mov   eax, TELL
    ud2
    mov   eax, EXIT
    ud2
greeting:
    .asciz "hello from NAME, in ring 3\n"
    .balign 4096
user_end:

SAY = 1
TELL = 2
EXIT = 3

%include "idt.inc"
%include "console.inc"
