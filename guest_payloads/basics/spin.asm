; summary: loop for ever; the time limit ends it
; machine: timeout=0.5
; ends:    timeout
;
; A guest that never exits. Only a signal gets KVM_RUN back: pyvmm's timer sends one, looks at the clock, and after the
; limit prints where every vCPU was.

start:
    jmp   start
