; summary: one exception of each kind that this CPU can raise, with its error code
; user:    user_begin user_end
; result:  divide     u64   #DE from DIV by zero: vector 0 and its error code (none counts as 0)
; result:  debug      u64   #DB from the trap flag: vector 1
; result:  breakpoint u64   #BP from INT3 in ring 3: vector 3
; result:  opcode     u64   #UD from UD2: vector 6
; result:  device     u64   #NM from an SSE load with CR0.TS set: vector 7
; result:  segment    u64   #NP from loading a segment that is not present: vector 11, error code 0x38
; result:  protection u64   #GP from a non-canonical address: vector 13, error code 0
; result:  page       u64   #PF from a read of address 0: vector 14, error code 0
; result:  taken      u64   how many exceptions were taken
;
; Each attempt sets R13 (from ring 3: R12) to where to go on; the handlers store vector and error code in R14 (vector
; << 32 | error code), which an attempt fills with ones before, so that no result is left over from another.
; INT3 and the trap flag are tried in ring 3: where ring 0 is emulated, its emulator does not know INT3 (docs/hosts.md).

%include "results.inc"
%include "ring3.inc"

.macro ATTEMPT register, next
    lea   \register, [rip + \next]
    mov   r14, -1
.endm

start:
    mov   edi, 0
    lea   rsi, [rip + on_de]
    call  set_gate
    mov   edi, DB_VECTOR
    lea   rsi, [rip + on_db]
    call  set_gate
    mov   edi, BP_VECTOR
    lea   rsi, [rip + on_bp]
    call  set_gate
    mov   edi, UD_VECTOR
    lea   rsi, [rip + on_ud]
    call  set_gate
    mov   edi, NM_VECTOR
    lea   rsi, [rip + on_nm]
    call  set_gate
    mov   edi, NP_VECTOR
    lea   rsi, [rip + on_np]
    call  set_gate
    mov   edi, GP_VECTOR
    lea   rsi, [rip + on_gp]
    call  set_gate
    mov   edi, PF_VECTOR
    lea   rsi, [rip + on_pf]
    call  set_gate
    xor   ebp, ebp

    ATTEMPT r13, after_de
    xor   eax, eax
    xor   edx, edx
    xor   ecx, ecx
    div   ecx
after_de:
    mov   rax, r14
    RESULT divide

    ATTEMPT r13, after_ud
    ud2
after_ud:
    mov   rax, r14
    RESULT opcode

    mov   rax, qword ptr [GDT_BASE + DATA16_DS]
    mov   rcx, 0x800000000000             ; bit 47: present
    not   rcx
    and   rax, rcx
    mov   qword ptr [GDT_BASE + DATA16_DS], rax
    ATTEMPT r13, after_np
    mov   eax, DATA16_DS
    mov   es, ax
after_np:
    mov   rax, r14
    RESULT segment

    ATTEMPT r13, after_gp
    mov   rbx, 0x8000000000000000
    mov   al, byte ptr [rbx]
after_gp:
    mov   rax, r14
    RESULT protection

    ATTEMPT r13, after_pf
    xor   ebx, ebx
    mov   al, byte ptr [rbx]
after_pf:
    mov   rax, r14
    RESULT page

    mov   rax, cr0
    or    rax, X86_CR0_TS
    mov   cr0, rax
    ATTEMPT r13, after_nm
    mov   ebx, DATA_BASE
    movdqu xmm0, xmmword ptr [rbx]
after_nm:
    mov   rax, r14
    RESULT device

    ATTEMPT r12, after_bp
    ENTER_RING3 use_int3
after_bp:
    mov   rax, r14
    RESULT breakpoint

    ATTEMPT r12, after_db
    ENTER_RING3 use_trap_flag, 0x102      ; RFLAGS.TF: a debug exception after each instruction
after_db:
    mov   rax, r14
    RESULT debug
    mov   eax, ebp
    RESULT taken
    PASS

; ---- handlers: without an error code a zero takes its place

.macro HANDLER name, vector
on_\name:
    push  0
    mov   r14, \vector
    jmp   handled
.endm
.macro HANDLER_WITH_CODE name, vector
on_\name:
    mov   r14, \vector
    jmp   handled
.endm

    HANDLER de, 0
    HANDLER db, DB_VECTOR
    HANDLER bp, BP_VECTOR
    HANDLER ud, UD_VECTOR
    HANDLER nm, NM_VECTOR
    HANDLER_WITH_CODE np, NP_VECTOR
    HANDLER_WITH_CODE gp, GP_VECTOR
    HANDLER_WITH_CODE pf, PF_VECTOR

handled:
    pop   rax                             ; the error code
    shl   r14, 32
    or    r14, rax
    inc   ebp
    test  byte ptr [rsp + 8], 3           ; the interrupted ring
    jnz   from_ring3
    mov   qword ptr [rsp], r13
    iretq
from_ring3:                               ; leave ring 3 for good: the kernel goes on at R12
    mov   rsp, qword ptr [rip + kernel_stack]
    jmp   r12

kernel_stack:
    .quad CPUS_BASE + CPU_BOOT_STACK_OFFSET + 0x1000

%include "idt.inc"

.p2align 12
user_begin:
use_int3:
    int3
    ud2
use_trap_flag:
    nop
    nop
    ud2
.p2align 12
user_end:
