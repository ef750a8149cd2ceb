; summary: print for ever; the output limit ends it
; machine: output=64K
; ends:    output
;
; An exit storm: REP OUTSB without an end. How many characters come with one exit is KVM's affair: from one to a page
; full. Nothing a guest does may fill the host's memory: the console takes what its limit allows, and pyvmm ends the run.

start:
    cld
    mov   edx, DEBUG_CONSOLE
again:
    lea   rsi, [rip + text]
    mov   ecx, 64
    rep   outsb
    jmp   again

text:
    .ascii "All work and no play makes the vCPU a dull boy, says the guest.\n"
