; lesson: hlt
; says: your guest ran on past its last line, line 6 `nop`, into bytes that are none of its code

start:
    mov   eax, 42
    nop
