; summary: the pages that a guest has written, by the dirty log: protected again by KVM, and by hand
; proves:  dirty_log, dirty_log_manual
; machine: timeout=30
; user:    user_begin user_end
; param:   base = 0x40000000      a slot of 96 pages that keeps a log
;
; While a VMM copies a guest's memory to another host, the guest goes on writing. The dirty log tells which pages have to
; be copied once more: KVM takes the right to write from every page, notes the page at the first write, and gives the
; right back. What is only read must not be noted. All this is done in ring 3, where no host needs to emulate.

%include "results.inc"
%include "ring3.inc"

.macro WRITE page
    mov   qword ptr [rbx + \page * 0x1000], rbx
.endm

.macro TELL number                        ; the host half looks at the log now
    mov   al, \number
    KERNEL_OUT DELAY_PORT
.endm

start:
    START_RING3 program

.p2align 12
user_begin:
program:
    mov   ebx, PARAM_base
    WRITE 0
    WRITE 3
    mov   rax, qword ptr [rbx + 0x7000]   ; a read
    WRITE 64                              ; the bitmap's second word
    WRITE 95                              ; the last page
    TELL  1
    WRITE 3                               ; once more
    WRITE 5
    TELL  2
    mov   rax, qword ptr [rbx + 0x3000]
    TELL  3
    USER_PASS
.p2align 12
user_end:

%include "kernel.inc"
%include "idt.inc"
