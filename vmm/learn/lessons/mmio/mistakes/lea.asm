; lesson: mmio
; says: your guest never read the device: no KVM_EXIT_MMIO came for a read
; ends:    halt

COUNT = 0x10
NEXT  = 0x20

start:
    mov   ebx, SCRATCH_MMIO_BASE
    lea   eax, [rbx + COUNT]
    inc   eax
    mov   dword ptr [rbx + NEXT], eax
    mov   dword ptr [DATA_BASE], eax
    hlt
