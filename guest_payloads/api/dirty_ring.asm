; summary: the pages that a guest has written, in a ring that stops the guest when it is full
; proves:  dirty_ring
; needs:   KVM_CAP_DIRTY_LOG_RING_ACQ_REL
; machine: timeout=30
; user:    user_begin user_end
; param:   base  = 0x40000000     a slot that keeps a log
; param:   pages = 1024           pages that are written, twice over: more than a ring holds
;
; A log is a bitmap of the whole slot; a ring has one entry for each page that was written, so collecting costs what the
; guest does and not what it has. A vCPU whose ring is nearly full leaves the guest with KVM_EXIT_DIRTY_RING_FULL, and
; comes back with it until the VMM has taken the entries out and had KVM protect those pages again.

%include "results.inc"
%include "ring3.inc"

start:
    START_RING3 program

.p2align 12
user_begin:
program:
    mov   al, 1
    call  write_all
    mov   al, 2
    call  write_all                       ; protected again: all of them come once more
    USER_PASS

write_all:
    mov   ebx, PARAM_base
    mov   ecx, PARAM_pages
next:
    mov   qword ptr [rbx], rcx
    add   rbx, 0x1000
    dec   ecx
    jnz   next
    KERNEL_OUT DELAY_PORT                 ; the host half takes the rest
    ret
.p2align 12
user_end:

%include "kernel.inc"
%include "idt.inc"
