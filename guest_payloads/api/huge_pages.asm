; summary: host memory in pages of 2 MiB, which KVM maps as such
; proves:  huge_pages
; machine: timeout=30
; user:    user_begin user_end
; param:   large = 0x40000000     a slot over huge pages: 4 of them
; param:   small = 0x50000000     as many bytes in pages of 4 KiB
;
; The CPU walks two sets of page tables, the guest's and KVM's. Where the guest-physical page, the host's page and the
; slot are all aligned to 2 MiB, KVM needs one entry for 512 pages: fewer faults, fewer misses of the TLB. The guest
; touches one byte in each 2 MiB, in ring 3; how KVM mapped it, only the host can see.

%include "results.inc"
%include "ring3.inc"

start:
    START_RING3 program

.p2align 12
user_begin:
program:
    mov   ebx, PARAM_large
    mov   al, 1
    call  touch
    mov   ebx, PARAM_small
    mov   al, 2
    call  touch
    USER_PASS

touch:
    mov   ecx, 4
next:
    mov   qword ptr [rbx + 0x123000], rbx
    add   rbx, 0x200000
    dec   ecx
    jnz   next
    KERNEL_OUT DELAY_PORT
    ret
.p2align 12
user_end:

%include "kernel.inc"
%include "idt.inc"
