; lesson: hlt
; summary: put 42 into RAX, and give the CPU back
; ends:    halt
;
; What a line that begins with `;` says is a comment. The text of this lesson: pyvmm learn show 1

start:
    mov   eax, 42
    ; >>> your code: the instruction that gives the CPU back to the host
