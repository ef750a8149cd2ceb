; lesson: mmio
; summary: read a register of a device, and write another
; ends:    halt
;
; The text of this lesson: pyvmm learn show 4

COUNT = 0x10                              ; registers of the device, as offsets: read a number here,
NEXT  = 0x20                              ; and write the number that comes after it here

start:
    mov   ebx, SCRATCH_MMIO_BASE          ; where the device lies
    ; >>> your code: EAX = the 32-bit register COUNT; EAX + 1 to the 32-bit register NEXT
    mov   dword ptr [DATA_BASE], eax      ; RAM, for comparison: no exit
    hlt
