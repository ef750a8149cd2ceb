; summary: registers read and set through kvm_run instead of by ioctl
; proves:  sync_regs
; needs:   KVM_CAP_SYNC_REGS
; machine: timeout=30
; param:   exits = 300     OUTs, each with other registers
; result:  changed   u64   RBX after the host has set it: the value at the OUT, complemented, summed over all of them

%include "results.inc"

START  = 0x123456789
FACTOR = 13

start:
    xor   r12d, r12d
    mov   ecx, PARAM_exits
    mov   rbx, START
next:
    lea   rdx, [rbx + rcx * 8]
    mov   r9, rsp
    out   DELAY_PORT, al
    add   r12, rbx                        ; what the host made of it
    imul  rbx, rbx, FACTOR
    add   rbx, rcx
    dec   ecx
    jnz   next
    mov   rax, r12
    RESULT changed
    PASS
