; lesson: mmio
; says: your guest read 8 bytes at 0xd0000010 (base + 0x10), at line 10 `mov rax, qword ptr [rbx + COUNT]`; COUNT is 4 bytes at 0xd0000010
; ends:    halt

COUNT = 0x10
NEXT  = 0x20

start:
    mov   ebx, SCRATCH_MMIO_BASE
    mov   rax, qword ptr [rbx + COUNT]
    inc   eax
    mov   dword ptr [rbx + NEXT], eax
    mov   dword ptr [DATA_BASE], eax
    hlt
