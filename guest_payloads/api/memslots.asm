; summary: memory in several slots: holes, read-only memory, two views of one page, and changes while the guest runs
; proves:  memslots, readonly_slots, aliased_slots, moved_slots
; needs:   KVM_CAP_READONLY_MEM
; machine: timeout=30
; user:    user_begin user_end
; param:   base = 0x40000000      where the slots begin; each has a place of 64 KiB
; result:  hole      u64   read where no slot is: the device's 0x5a5a5a5a
; result:  first     u64   read from the first slot: what the host put there
; result:  across    u64   read across the edge of two slots that lie side by side
; result:  rom       u64   read from the read-only slot: what the host put there
; result:  rom_after u64   the same after a write to it: unchanged
; result:  alias     u64   read at one address what was written at the other: 0x1111
; result:  alias_back u64  and the other way round: 0x2222
; result:  moved_new u64   read at the new place of a slot that was moved: its contents
; result:  moved_old u64   and at its old place: the device's 0x5a5a5a5a
; result:  shrunk_in u64   read from what is left of a slot that was made smaller: its contents
; result:  shrunk_out u64  and from the part that is gone: the device's 0x5a5a5a5a
; result:  grown     u64   the same when it has its size again: its contents
; result:  deleted   u64   read where a slot was that is deleted: the device's 0x5a5a5a5a
; result:  turns     u64   reads of a slot while the host changed it
;
; A memslot is a stretch of guest-physical memory with host memory behind it. What no slot holds is a hole: an access
; there leaves the guest as MMIO. Slots can be changed while vCPUs run. The guest asks for a change by the delay port
; and reads on until the host, in a thread of its own, has made it and says so in a word of plain memory. It does so in
; ring 3, where the CPU itself uses KVM's mappings on every host: one that outlived its slot would be seen.

%include "results.inc"
%include "ring3.inc"

MAILBOX = USER_BASE                       ; u64: the last change that the host has made
PLACE   = 0x10000
SLOT    = PARAM_base                      ; two pages
BESIDE  = PARAM_base + 0x2000             ; one page, another slot
ROM     = PARAM_base + PLACE
ONE     = PARAM_base + 2 * PLACE          ; one page at two addresses
OTHER   = PARAM_base + 3 * PLACE
MOVED   = PARAM_base + 4 * PLACE          ; where the host moves SLOT to
HOLE    = PARAM_base + 6 * PLACE

.macro READ name, address
    mov   eax, \address
    mov   rax, qword ptr [rax]
    RESULT \name
.endm

; Ask for change `number`, and read at `address` until it is made.
.macro CHANGE number, address
    mov   ebx, \address
    mov   ecx, \number
    call  change
.endm

start:
    START_RING3 program

.p2align 12
user_begin:
program:
    xor   r15d, r15d                      ; reads during changes
    READ  hole, HOLE
    READ  first, SLOT
    READ  across, BESIDE - 4

    READ  rom, ROM
    mov   ebx, ROM
    mov   rax, 0x7777
    mov   qword ptr [rbx], rax            ; comes to the VMM as MMIO
    READ  rom_after, ROM

    mov   ebx, ONE
    mov   rax, 0x1111
    mov   qword ptr [rbx], rax
    READ  alias, OTHER
    mov   ebx, OTHER
    mov   rax, 0x2222
    mov   qword ptr [rbx], rax
    READ  alias_back, ONE

    CHANGE 1, SLOT                        ; move
    READ  moved_new, MOVED
    READ  moved_old, SLOT
    CHANGE 2, MOVED                       ; half the size
    READ  shrunk_in, MOVED
    READ  shrunk_out, MOVED + 0x1000
    CHANGE 3, MOVED                       ; the whole again
    READ  grown, MOVED + 0x1000
    CHANGE 4, MOVED                       ; delete
    READ  deleted, MOVED
    mov   rax, r15
    RESULT turns
    USER_PASS

change:
    mov   eax, ecx
    KERNEL_OUT DELAY_PORT
again:
    mov   rax, qword ptr [rbx]            ; the slot that is being changed
    inc   r15
    pause
    cmp   qword ptr [MAILBOX], rcx
    jne   again
    ret
.p2align 12
user_end:

%include "kernel.inc"
%include "idt.inc"
