; summary: print a line on the debug console and end
;
; The smallest guest that says something. Each OUT to port 0xe9 leaves the guest: KVM returns to pyvmm with
; KVM_EXIT_IO, pyvmm keeps the byte and runs the guest on. The last OUT, to the exit port, ends the run.

%include "results.inc"

start:
    lea   rsi, [rip + text]
    call  print
    PASS

text:
    .asciz "Hello from ring 0 of a virtual machine.\n"

%include "console.inc"
