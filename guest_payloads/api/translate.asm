; summary: random page tables, walked by KVM_TRANSLATE, by pyvmm, and by the CPU itself
; proves:  translate
; machine: memory=4M timeout=30
; param:   seed = 1        of the random tables
; param:   tables = 8      how many random graphs of tables, in one machine each
; param:   addresses = 60  linear addresses looked up in each
; result:  read  u64  addresses that the guest has read, or faulted at
;
; The host half makes the tables below entries 1 to 4 of the PML4, and writes the addresses to LIST: u64 address, u64
; value, u64 faulted; address 0 ends it. All RAM from 2 MiB holds its own address in each quadword, so the value that is
; read says which page it was.

%include "results.inc"

LIST = DATA_BASE

start:
    mov   edi, PF_VECTOR
    lea   rsi, [rip + page_fault]
    call  set_gate
    mov   ebp, LIST
    xor   r12d, r12d
next:
    mov   rbx, qword ptr [rbp]
    test  rbx, rbx
    jz    done
    xor   r13d, r13d
    xor   eax, eax
    lea   r14, [rip + after]
    mov   rax, qword ptr [rbx]
after:
    mov   qword ptr [rbp + 8], rax
    mov   qword ptr [rbp + 16], r13
    inc   r12d
    add   rbp, 24
    jmp   next
done:
    mov   eax, r12d
    RESULT read
    PASS

page_fault:
    mov   r13d, 1
    add   rsp, 8                          ; the error code
    mov   qword ptr [rsp], r14
    iretq

%include "idt.inc"
