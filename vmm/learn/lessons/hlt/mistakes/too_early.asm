; lesson: hlt
; says: your guest halted with interrupts off after 0 instructions: line 5 `hlt`; nothing can wake it, so no line below it runs. RAX is 0 then, and the task is 42

start:
    hlt
    mov   eax, 42
