; summary: memory-mapped I/O in every width
; result:  read8   u64   a byte read back from the device
; result:  read16  u64   16 bits
; result:  read32  u64   32 bits
; result:  read64  u64   64 bits
; result:  nobody  u64   an address that neither RAM nor a device holds reads all ones
;
; An access to a guest-physical address without a memslot leaves the guest with KVM_EXIT_MMIO: address, length and up
; to 8 bytes of data. KVM had to emulate the instruction to know them.

%include "results.inc"

start:
    mov   ebx, SCRATCH_MMIO_BASE          ; above 2 GiB: an address goes through a register
    mov   byte ptr [rbx], 0x11
    mov   word ptr [rbx + 0x10], 0x2222
    mov   dword ptr [rbx + 0x20], 0x44444444
    mov   rax, 0x8877665544332211
    mov   qword ptr [rbx + 0x30], rax

    movzx eax, byte ptr [rbx]
    RESULT read8
    movzx eax, word ptr [rbx + 0x10]
    RESULT read16
    mov   eax, dword ptr [rbx + 0x20]
    RESULT read32
    mov   rax, qword ptr [rbx + 0x30]
    RESULT read64
    mov   eax, dword ptr [rbx + SCRATCH_MMIO_SIZE]
    RESULT nobody
    PASS
