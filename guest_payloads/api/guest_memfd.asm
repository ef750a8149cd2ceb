; summary: guest memory out of a guest_memfd, which the VMM shares with its guest
; proves:  guest_memfd, guest_memfd_private
; needs:   KVM_CAP_GUEST_MEMFD, KVM_CAP_USER_MEMORY2
; machine: timeout=30
; user:    user_begin user_end
; param:   base = 0x40000000      a slot with a guest_memfd of 4 pages
;
; A guest_memfd is memory that belongs to a VM, as a file: KVM takes pages from there and not by an address of the VMM,
; so they need not be mapped by anybody. The slot has an address of the VMM too, with other contents: which of the two
; the guest finds shows where its pages come from. It reads from page 1 and writes to page 2, in ring 3, and leaves
; what it read at the start of region `user`.

%include "results.inc"
%include "ring3.inc"

start:
    START_RING3 program

.p2align 12
user_begin:
program:
    mov   ebx, PARAM_base
    mov   rax, qword ptr [rbx + 0x1000]
    mov   qword ptr [USER_BASE], rax
    mov   rax, 0x2222
    mov   qword ptr [rbx + 0x2000], rax
    USER_PASS
.p2align 12
user_end:

%include "kernel.inc"
%include "idt.inc"
