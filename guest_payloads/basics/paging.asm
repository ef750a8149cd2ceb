; summary: page faults: not present, read-only, no-execute, a remap; error code and CR2 of each
; result:  absent_error   u64   write to a page that is not present: 2 (write)
; result:  absent_cr2     u64   its address
; result:  readonly_error u64   write to a read-only page: 3 (present, write)
; result:  readonly_cr2   u64   its address
; result:  while_exec     u64   faults taken after a call into the page while it was executable: still 2
; result:  noexec_error   u64   jump to it once it is no-execute: 0x11 (present, fetch)
; result:  noexec_cr2     u64   its address
; result:  before         u64   what the page held before the remap
; result:  after          u64   and after the page-table entry was changed and INVLPG
; result:  faults         u64   how many page faults were taken: 3
;
; The boot page tables map the first 2 MiB by 4 KiB pages; their last table lies at PT. The guest edits its own entries:
; bits 51:12 are the frame, bit 0 present, bit 1 writable, bit 63 no-execute.

%include "results.inc"

PAGE = DATA_BASE + 0x4000                 ; the page that the guest plays with
OTHER = DATA_BASE + 0x6000
NX_BIT = 0x8000000000000000

start:
    mov   edi, PF_VECTOR
    lea   rsi, [rip + page_fault]
    call  set_gate
    xor   ebp, ebp                        ; faults taken
    mov   edx, PAGE
    call  find_entry                      ; RBX = address of the entry that maps PAGE
    mov   r12, qword ptr [rbx]            ; as the boot tables have it
    mov   rax, 0x1111
    mov   qword ptr [PAGE], rax
    mov   rax, 0x2222
    mov   qword ptr [OTHER], rax

    mov   qword ptr [rbx], 0              ; not present
    invlpg [PAGE]
    lea   r13, [rip + after_absent]
    mov   qword ptr [PAGE + 8], rax
after_absent:
    mov   rax, r14
    RESULT absent_error
    mov   rax, r15
    RESULT absent_cr2

    mov   rax, r12
    and   rax, -3                         ; clear the writable bit; CR0.WP holds ring 0 to it
    mov   qword ptr [rbx], rax
    invlpg [PAGE]
    lea   r13, [rip + after_readonly]
    mov   qword ptr [PAGE + 8], rax
after_readonly:
    mov   rax, r14
    RESULT readonly_error
    mov   rax, r15
    RESULT readonly_cr2

    mov   rax, NX_BIT                     ; the boot tables make data no-execute: first without
    not   rax
    and   rax, r12
    mov   qword ptr [rbx], rax
    invlpg [PAGE]
    mov   byte ptr [PAGE + 0x10], 0xc3    ; RET
    lea   r13, [rip + after_call]
    mov   eax, PAGE + 0x10
    call  rax
after_call:
    mov   eax, ebp
    RESULT while_exec

    mov   rax, NX_BIT
    or    rax, qword ptr [rbx]
    mov   qword ptr [rbx], rax
    invlpg [PAGE]
    lea   r13, [rip + after_noexec]
    mov   eax, PAGE + 0x10
    jmp   rax
after_noexec:
    mov   rax, r14
    RESULT noexec_error
    mov   rax, r15
    RESULT noexec_cr2

    mov   qword ptr [rbx], r12
    invlpg [PAGE]
    mov   rax, qword ptr [PAGE]
    RESULT before
    mov   rax, r12
    and   rax, 0xfff                      ; the flags
    or    rax, OTHER                      ; the frame of another page
    mov   qword ptr [rbx], rax
    invlpg [PAGE]
    mov   rax, qword ptr [PAGE]
    RESULT after
    mov   eax, ebp
    RESULT faults
    PASS

; The handler keeps error code and CR2, and goes on where R13 says.
page_fault:
    pop   r14
    mov   r15, cr2
    inc   ebp
    mov   qword ptr [rsp], r13
    iretq

%include "walk.inc"
%include "idt.inc"
