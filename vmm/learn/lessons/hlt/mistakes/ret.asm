; lesson: hlt
; says: your guest took #PF (page fault): instruction fetch from a page that is not present at 0x0, at 0x0 (null+0x0), and has no handler for it
; says: RET takes the address to go on at from the stack, and nobody has called your guest

start:
    mov   eax, 42
    ret
