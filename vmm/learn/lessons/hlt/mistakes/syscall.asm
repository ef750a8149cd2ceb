; lesson: hlt
; says: RIP is 0: SYSCALL, at line 
; says: There is no operating system below your guest
; summary: put 42 into RAX, and give the CPU back
; ends:    halt

start:
    mov   eax, 42
    syscall
