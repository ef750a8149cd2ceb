; summary: crash on purpose: a fault whose handler cannot be found, twice
; ends:    shutdown
;
; With an empty IDT the CPU cannot deliver #UD; that makes a double fault, which it cannot deliver either; that makes
; a triple fault, and the CPU shuts down. KVM tells pyvmm with KVM_EXIT_SHUTDOWN.

start:
    lidt  [rip + empty]
    ud2

empty:
    .word 0x0                             ; limit: no gate fits
    .quad 0x0
