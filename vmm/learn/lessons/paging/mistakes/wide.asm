; lesson: paging
; says: 0x8000005003 has more than 32 bits: load it into a register first
; summary: let a page of memory appear at another address
; result:  found  u64      what the guest reads at VIRTUAL: the number that the host has put into FRAME

%include "results.inc"

VIRTUAL   = 0x8000005000                  ; PML4 entry 1, then entry 0, entry 0, entry 5: 0x8000000000 + 5 * 0x1000
FRAME     = DATA_BASE + 0x8000            ; the page of memory that is to appear there
PDPT      = DATA_BASE + 0x10000           ; three pages of zeros, for tables
DIRECTORY = DATA_BASE + 0x11000
TABLE     = DATA_BASE + 0x12000

start:
    mov   rbx, cr3                        ; the PML4 that pyvmm has made
    mov   qword ptr [rbx + 1 * 8], PDPT | _PAGE_PRESENT | _PAGE_RW
    mov   qword ptr [PDPT + 0 * 8], DIRECTORY | _PAGE_PRESENT | _PAGE_RW
    mov   qword ptr [DIRECTORY + 0 * 8], TABLE | _PAGE_PRESENT | _PAGE_RW
    mov   qword ptr [TABLE + 5 * 8], VIRTUAL | _PAGE_PRESENT | _PAGE_RW

    mov   rbx, VIRTUAL
    mov   rax, qword ptr [rbx]
    RESULT found
    mov   dword ptr [rbx + 8], 0x600d     ; a store through the new mapping
    PASS
