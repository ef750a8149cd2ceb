; summary: NAME talks to a device that its host half NAME.py plays
; result:  sum  u64   what the device answered, added up: 6
; param:   port = 0x300   where the device is
;
; pyvmm run NAME.asm
; pyvmm run NAME.asm --trace
;
; NAME.py beside this file is the host half: `setup` gives the machine a device before the run, `check` looks at what
; the guest did after it.

%include "results.inc"

COUNT = 3

start:
    mov   edx, PARAM_port
    xor   ebx, ebx
    mov   ecx, COUNT
ask:
    in    eax, dx                   ; the guest stops here, and Python answers
    add   rbx, rax
    out   dx, eax                   ; tell it what came
    dec   ecx
    jnz   ask

    mov   rax, rbx
    RESULT sum
    PASS
