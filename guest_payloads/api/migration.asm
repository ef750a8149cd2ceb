; summary: a guest that moves to another process while it writes: its dirty pages are followed, and it does not notice
; proves:  migration
; machine: memory=4M timeout=30
; user:    user_begin user_end
; param:   arrives = 1     0: nobody tells the guest that it has arrived
;
; The guest fills COLD_PAGES pages once and reads them from then on; HOT_PAGES pages it writes anew in every lap, and
; keeps the sum of what is in them in a register. The host half sends its memory to another process meanwhile: all of it
; first, then what was written since, and again; at last the guest stops wherever it is and goes on over there. A page
; that was written and not sent again has an old stamp there, and the sum differs.
;
; It lies in ring 3, where no host needs to emulate. What it finds is at ANSWERS, a u64 for each, for the host half.

%include "results.inc"
%include "ring3.inc"

HOT_PAGES  = 96
COLD_PAGES = 256
AFTER      = 3                            ; laps that it goes on for over there
HOT     = 0x200000                        ; above what the map has a use for
COLD    = HOT + HOT_PAGES * 0x1000
ARRIVED = USER_BASE                       ; u64: the host half there puts 1 here
ANSWERS = USER_BASE + 0x100
A_LAPS  = ANSWERS                         ; laps, over there included
A_STALE = ANSWERS + 8                     ; hot pages without the stamp of the last lap
A_SUM   = ANSWERS + 16                    ; of the hot pages, as the register has it
A_FOUND = ANSWERS + 24                    ; the same, as the pages have it
A_FIRST = ANSWERS + 32                    ; sum of the cold pages when they were filled
A_COLD  = ANSWERS + 40                    ; and at the end

STAMP = 0
VALUE = 8

start:
    START_RING3 program

.p2align 12
user_begin:
program:
    mov   rax, 0x9e3779b97f4a7c15
    mov   ebx, COLD
    mov   ecx, COLD_PAGES
fill:
    imul  rax, rax, 0x19660d
    add   rax, 0x3c6ef35f
    mov   qword ptr [rbx], rax
    mov   qword ptr [rbx + 0xff8], rax
    add   ebx, 0x1000
    dec   ecx
    jnz   fill
    call  cold_sum
    mov   qword ptr [A_FIRST], rdx
    xor   r12d, r12d                      ; laps
    xor   r13d, r13d                      ; the sum of all hot values
    xor   r14d, r14d                      ; laps since it arrived
lap:
    inc   r12
    mov   ebx, HOT
    mov   ecx, HOT_PAGES
write:
    mov   rax, qword ptr [rbx + VALUE]
    sub   r13, rax
    imul  rax, rax, 0x19660d
    add   rax, r12
    rol   rax, 7
    add   r13, rax
    mov   qword ptr [rbx + VALUE], rax
    mov   qword ptr [rbx + STAMP], r12
    add   ebx, 0x1000
    dec   ecx
    jnz   write
    call  cold_sum                        ; what is only read must not be sent again
    mov   al, 1
    KERNEL_OUT DELAY_PORT                 ; a lap is done
    cmp   qword ptr [ARRIVED], 0
    je    lap
    inc   r14
    cmp   r14, AFTER
    jb    lap

    mov   qword ptr [A_LAPS], r12
    mov   qword ptr [A_SUM], r13
    mov   qword ptr [A_COLD], rdx
    xor   edx, edx
    xor   esi, esi
    mov   ebx, HOT
    mov   ecx, HOT_PAGES
check:
    add   rdx, qword ptr [rbx + VALUE]
    cmp   qword ptr [rbx + STAMP], r12
    je    fresh
    inc   rsi
fresh:
    add   ebx, 0x1000
    dec   ecx
    jnz   check
    mov   qword ptr [A_FOUND], rdx
    mov   qword ptr [A_STALE], rsi
    USER_PASS

cold_sum:                                 ; RDX: of the first and last words of all cold pages
    xor   edx, edx
    mov   ebx, COLD
    mov   ecx, COLD_PAGES
cold_next:
    rol   rdx, 5
    add   rdx, qword ptr [rbx]
    add   rdx, qword ptr [rbx + 0xff8]
    add   ebx, 0x1000
    dec   ecx
    jnz   cold_next
    ret
.p2align 12
user_end:

%include "kernel.inc"
%include "idt.inc"
