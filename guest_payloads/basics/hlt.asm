; summary: stop with HLT, as a guest without a verdict does
; ends:    halt
; result:  reached  u64   1: the instruction before HLT was executed
;
; Without an in-kernel interrupt controller nothing could wake the vCPU, so KVM gives HLT to the VMM (KVM_EXIT_HLT)
; and pyvmm ends the run. With irqchip=kernel or split, HLT waits inside KVM instead.

%include "results.inc"

start:
    mov   eax, 1
    RESULT reached
    hlt
