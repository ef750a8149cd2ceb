; lesson: mmio
; says: your guest never wrote to the device: no KVM_EXIT_MMIO came for a write
; ends:    halt

COUNT = 0x10
NEXT  = 0x20

start:
    mov   ebx, SCRATCH_MMIO_BASE
    mov   eax, dword ptr [rbx + COUNT]
    inc   eax
    mov   dword ptr [DATA_BASE + NEXT], eax
    mov   dword ptr [DATA_BASE], eax
    hlt
