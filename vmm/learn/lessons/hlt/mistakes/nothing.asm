; lesson: hlt
; says: past the end of your program (its last line is line 6 `nop`), and has no handler for it: it ran on past its end

start:
    mov   eax, 42
    nop
