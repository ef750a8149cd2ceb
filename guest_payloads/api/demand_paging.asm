; summary: memory whose pages the VMM supplies when the guest first touches them
; proves:  userfaultfd
; machine: timeout=30
; user:    user_begin user_end
; param:   base = 0x40000000      a slot of 16 pages that userfaultfd holds back
; result:  fifth    u64   read from page 5: what the host has for it
; result:  second   u64   from page 2
; result:  again    u64   from page 5, which is there now
; result:  written  u64   from page 9 after a write to it: 0x9999
; result:  beside   u64   from page 9, what the host supplied beside it
; result:  zero     u64   from page 11, for which the host has nothing: zeros
;
; A page of a memslot need not be there when the guest touches it: KVM asks the host's memory management, and that asks
; the VMM, if the slot's memory is registered with a userfaultfd. Until the page comes, the vCPU waits. This is how a
; guest runs on while its memory still comes over a network, or out of a snapshot.

%include "results.inc"
%include "ring3.inc"

.macro READ name, page
    mov   rax, qword ptr [rbx + \page * 0x1000]
    RESULT \name
.endm

start:
    START_RING3 program

.p2align 12
user_begin:
program:
    mov   ebx, PARAM_base
    READ  fifth, 5
    READ  second, 2
    READ  again, 5
    mov   rax, 0x9999
    mov   qword ptr [rbx + 0x9000], rax
    READ  written, 9
    mov   rax, qword ptr [rbx + 0x9008]
    RESULT beside
    READ  zero, 11
    USER_PASS
.p2align 12
user_end:

%include "kernel.inc"
%include "idt.inc"
