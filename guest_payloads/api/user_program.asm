; summary: a kernel and a user program: open, read, write, lseek, close and exit, served by the host on one folder
; proves:  user_program
; machine: timeout=30
; user:    user_begin user_end
; param:   connected = 1   0: the kernel does not hand the calls over
; result:  opened    i64   the text file: 3, the first descriptor
; result:  got       i64   bytes read of it: 13
; result:  position  i64   lseek to byte 7: 7
; result:  rest      i64   bytes read from there: 6
; result:  ended     i64   bytes read at the end: 0
; result:  closed    i64   0
; result:  stale     i64   a read of the closed file: -9, EBADF
; result:  created   i64   a new file, to be written: 3 again
; result:  wrote     i64   bytes written into it: 13, what was read
; result:  said      i64   bytes written to standard output: 13
; result:  inner     i64   a file in a folder of the folder: 4
; result:  missing   i64   a file that is not there: -2, ENOENT
; result:  upward    i64   "../secret": -13, EACCES
; result:  roundabout i64  "sub/../../secret": -13
; result:  absolute  i64   "/etc/passwd": -13
; result:  linked    i64   a symlink that leads out: -40, ELOOP
; result:  linked_folder i64 a path through a symlink to a folder outside: -20, ENOTDIR, or -40
; result:  pipe      i64   what is no regular file: -13
; result:  folder    i64   a folder: -21, EISDIR
; result:  huge      i64   a read of 4 GiB: -22, EINVAL
; result:  into_kernel i64 a read into the kernel's page: -14, EFAULT
; result:  from_kernel i64 a write out of the kernel's page: -14
; result:  into_text i64   a name at the null page: -14
; result:  unknown   i64   system call 999: -38, ENOSYS
;
; The program uses SYSCALL as on Linux: number in RAX, arguments in RDI, RSI, RDX, answer in RAX; RCX and R11 are lost.
; The kernel below is all that a kernel needs for that: it hands the registers to the host by one OUT and goes back.
; Where SYSCALL leaves the CPU in ring 3 (`pyvmm run syscall` measures it), the fault at LSTAR does the same.

%include "results.inc"
%include "ring3.inc"

STACK   = DATA_BASE + 0x8000
ANSWERS = USER_BASE                       ; an i64 for each result, which the program writes
BUFFER  = USER_BASE + 0x1000
SIZE    = 13                              ; of hello.txt
SYS_read = 0
SYS_write = 1
SYS_open = 2
SYS_close = 3
SYS_lseek = 8
SYS_exit = 60
O_RDONLY = 0
O_WRONLY = 1
O_CREAT = 0x40
SEEK_SET = 0
STDOUT = 1

start:
    mov   edi, PF_VECTOR
    lea   rsi, [rip + page_fault]
    call  set_gate
    mov   ecx, MSR_STAR
    mov   rdx, STAR_VALUE
    shr   rdx, 32
    xor   eax, eax
    wrmsr
    mov   ecx, MSR_LSTAR
    lea   rax, [rip + system_call]
    mov   rdx, rax
    shr   rdx, 32
    wrmsr
    mov   ecx, MSR_SYSCALL_MASK
    mov   eax, X86_EFLAGS_IF
    xor   edx, edx
    wrmsr
    ENTER_RING3 program

; ---- the kernel

system_call:
    cmp   eax, SYS_exit
    je    exit
.if PARAM_connected
    out   SYSCALL_PORT, al                ; the host looks at the registers, and sets RAX
.endif
    sysretq                               ; RSP was never changed: no interrupt can come here

exit:                                     ; keep what the program found, where the host half looks for results
    mov   rsp, STACK
    mov   esi, ANSWERS
    mov   ebx, RESULTS_BASE
    mov   ecx, R_unknown / 16 + 1
keep:
    mov   rax, qword ptr [rsi]
    mov   qword ptr [rbx], rax
    mov   byte ptr [rbx + 8], 1
    add   rsi, 8
    add   rbx, 16
    dec   ecx
    jnz   keep
    mov   eax, SYS_exit
    out   SYSCALL_PORT, al                ; ends the run with the program's status
    hlt

page_fault:
    push  rax
    lea   rax, [rip + system_call]
    cmp   rax, qword ptr [rsp + 0x10]
    jne   stranger
    pop   rax
    mov   rsp, qword ptr [rsp + 0x20]     ; as SYSCALL leaves it
    jmp   system_call
stranger:
    FAIL

%include "idt.inc"

; ---- the program, in ring 3

.macro CALL number, first, second, third, name
    mov   eax, \number
    mov   rdi, \first
    mov   rsi, \second
    mov   rdx, \third
    syscall
    mov   qword ptr [ANSWERS + R_\name / 2], rax
.endm

.macro OPEN file, flags, name
    lea   rdi, [rip + \file]
    mov   eax, SYS_open
    mov   esi, \flags
    syscall
    mov   qword ptr [ANSWERS + R_\name / 2], rax
.endm

.p2align 12
user_begin:
program:
    OPEN  hello, O_RDONLY, opened
    mov   rbx, rax                        ; the descriptor
    CALL  SYS_read, rbx, BUFFER, 100, got
    CALL  SYS_lseek, rbx, 7, SEEK_SET, position
    CALL  SYS_read, rbx, BUFFER + 0x100, 100, rest
    CALL  SYS_read, rbx, BUFFER + 0x200, 100, ended
    CALL  SYS_close, rbx, 0, 0, closed
    CALL  SYS_read, rbx, BUFFER, 100, stale
    OPEN  copy, O_WRONLY | O_CREAT, created
    mov   rbx, rax
    CALL  SYS_write, rbx, BUFFER, SIZE, wrote
    CALL  SYS_write, STDOUT, BUFFER, SIZE, said
    OPEN  inner, O_RDONLY, inner
    mov   rbx, rax

    ; what must be refused
    OPEN  missing, O_RDONLY, missing
    OPEN  upward, O_RDONLY, upward
    OPEN  roundabout, O_RDONLY, roundabout
    OPEN  absolute, O_RDONLY, absolute
    OPEN  linked, O_RDONLY, linked
    OPEN  linked_folder, O_RDONLY, linked_folder
    OPEN  pipe, O_RDONLY, pipe
    OPEN  folder, O_RDONLY, folder
    CALL  SYS_read, rbx, BUFFER, 1 << 32, huge
    CALL  SYS_read, rbx, DATA_BASE, 100, into_kernel
    CALL  SYS_write, STDOUT, DATA_BASE, 100, from_kernel
    CALL  SYS_open, 0x10, O_RDONLY, 0, into_text
    CALL  999, 0, 0, 0, unknown
    mov   edi, 0                          ; its status
    mov   eax, SYS_exit
    syscall

hello:         .asciz "hello.txt"
copy:          .asciz "copy.txt"
inner:         .asciz "./sub//inner.txt"
missing:       .asciz "nothing.txt"
upward:        .asciz "../secret"
roundabout:    .asciz "sub/../../secret"
absolute:      .asciz "/etc/passwd"
linked:        .asciz "link"
linked_folder: .asciz "out/secret"
pipe:          .asciz "pipe"
folder:        .asciz "sub"
.p2align 12
user_end:
