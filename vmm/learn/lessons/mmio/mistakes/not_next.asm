; lesson: mmio
; says: COUNT was 0x1234, so NEXT has to become 0x1235; your guest wrote 0x1234, at line 11 `mov dword ptr [rbx + NEXT], eax`
; ends:    halt

COUNT = 0x10
NEXT  = 0x20

start:
    mov   ebx, SCRATCH_MMIO_BASE
    mov   eax, dword ptr [rbx + COUNT]
    mov   dword ptr [rbx + NEXT], eax
    mov   dword ptr [DATA_BASE], eax
    hlt
