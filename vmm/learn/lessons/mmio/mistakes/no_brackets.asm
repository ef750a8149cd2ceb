; lesson: mmio
; says: It wrote 0x11, at line 
; says: COUNT without brackets is the number 0x10
; summary: read a register of a device, and write another
; ends:    halt

COUNT = 0x10                              ; registers of the device, as offsets: read a number here,
NEXT  = 0x20                              ; and write the number that comes after it here

start:
    mov   ebx, SCRATCH_MMIO_BASE          ; where the device lies
    mov   eax, COUNT
    inc   eax
    mov   dword ptr [rbx + NEXT], eax
    mov   dword ptr [DATA_BASE], eax      ; RAM, for comparison: no exit
    hlt
