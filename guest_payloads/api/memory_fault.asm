; summary: a page that KVM cannot get: the exit that says which, and the guest that goes on when it is there
; proves:  memory_fault, memory_fault_memfd
; needs:   KVM_CAP_MEMORY_FAULT_INFO
; machine: timeout=30
; user:    user_begin user_end
; param:   base = 0x40000000      a slot over a file that has become too short
; param:   page = 3               the page that the guest touches
;
; Behind a memslot lies memory of the VMM, and that can be missing: a file that was cut, a guest_memfd closed. KVM_RUN then
; fails with EFAULT, and since Linux 6.8 it says more: KVM_EXIT_MEMORY_FAULT with the guest-physical address. The
; instruction has not happened; once the VMM has repaired its memory, KVM_RUN executes it again.
; What the guest reads it leaves at the start of region `user`.

%include "results.inc"
%include "ring3.inc"

start:
    START_RING3 program

.p2align 12
user_begin:
program:
    mov   ebx, PARAM_base
    mov   rax, qword ptr [rbx + PARAM_page * 0x1000]
    mov   qword ptr [USER_BASE], rax
    USER_PASS
.p2align 12
user_end:

%include "kernel.inc"
%include "idt.inc"
