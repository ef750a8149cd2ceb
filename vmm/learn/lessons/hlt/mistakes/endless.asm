; lesson: hlt
; says: your guest came to no end: it spins in lines 5 to 7, from `mov eax, 42` to `jmp start`

start:
    mov   eax, 42
    nop
    jmp   start                           ; as `while (1);`
