; summary: real mode, protected mode of 16 and 32 bits, 32-bit paging, PAE, long mode: by registers, and climbed by the guest
; proves:  mode_real, mode_protected16, mode_protected32, mode_paging32, mode_pae, mode_long
; machine: timeout=30
; param:   climb = 0       0: stay; from real mode up to 1: 32-bit paging, 2: PAE, 3: long mode; 4: through all of them
; result:  real_push       u32  bytes that the one-byte PUSH 0x50 takes: 2, in 32-bit code 4, in 64-bit code 8
; result:  real_cr0        u32  protection (bit 0) and paging (bit 31) are off
; result:  real_cr4        u32
; result:  real_efer       u32  LME and LMA are off
; result:  protected16_push u32 2
; result:  protected16_cr0 u32  protection on
; result:  protected16_cr4 u32
; result:  protected16_efer u32
; result:  protected32_push u32 4
; result:  protected32_cr0 u32
; result:  protected32_cr4 u32
; result:  protected32_efer u32
; result:  paging32_push   u32  4
; result:  paging32_cr0    u32  paging on
; result:  paging32_cr4    u32  PSE, for a page of 4 MiB
; result:  paging32_efer   u32
; result:  paging32_window u32  what lies at WINDOW, where the tables put the marker
; result:  pae_push        u32  4
; result:  pae_cr0         u32
; result:  pae_cr4         u32  PAE
; result:  pae_efer        u32
; result:  pae_window      u32
; result:  long_push       u32  8
; result:  long_cr0        u32
; result:  long_cr4        u32
; result:  long_efer       u32  LME and LMA are on
; result:  long_window     u32  at WINDOW64, which only 64 bits can reach
;
; Each mode tells what it is by what it does: how many bytes a PUSH takes, and what lies behind an address that paging
; moves. The host half enters each mode by KVM_SET_SREGS; then real mode only, and the guest climbs from there.

%include "results.inc"

STACK    = TRAMPOLINE_BASE + 0x1000       ; below 64 KiB, for every mode
WINDOW   = 0x400000                       ; no RAM of ours is there
WINDOW64 = 0x8000400000
MARKER   = 0x600d
CODE16   = 0x08
CODE32   = 0x10
CODE64   = 0x18
FLAT     = 0x20
DATA16   = 0x28
BASE16   = CODE_BASE                      ; 16-bit code lies in the 64 KiB from here

.macro TELL name                          ; RESULT of EAX, in any mode
    mov   dword ptr [RESULTS_BASE + R_\name], eax
    mov   byte ptr [RESULTS_BASE + R_\name + 8], 1
.endm

.macro TELL_MODE name                     ; in 16- and 32-bit code
    mov   eax, esp
    .byte 0x50                            ; PUSH AX, EAX or RAX
    sub   eax, esp
    TELL  \name\()_push
    mov   esp, STACK
    mov   eax, cr0
    TELL  \name\()_cr0
    mov   eax, cr4
    TELL  \name\()_cr4
    mov   ecx, MSR_EFER
    rdmsr
    TELL  \name\()_efer
.endm

.macro END_IF condition                   ; or climb on
.if \condition
    mov   al, EXIT_PASS
    out   EXIT_PORT, al
    hlt
.endif
.endm

; ---- real mode: CS = CODE_BASE / 16, the other segments 0

.code16
real:
    mov   esp, STACK
    TELL_MODE real
    END_IF PARAM_climb == 0
    lgdt  cs:[gdt_pointer - BASE16]
    mov   eax, cr0
    or    eax, X86_CR0_PE
    mov   cr0, eax                        ; protected from here on; CS is still what it was
    ljmp  CODE16:protected16 - BASE16

protected16:
    mov   ax, DATA16
    mov   ds, ax
    mov   es, ax
    mov   ss, ax
    mov   esp, STACK
    TELL_MODE protected16
    END_IF PARAM_climb == 0
    data32 ljmp CODE32:protected32        ; an offset of 32 bits

; ---- protected mode of 32 bits, without paging and with two kinds of it

.code32
protected32:
    mov   ax, FLAT
    mov   ds, ax
    mov   es, ax
    mov   ss, ax
    mov   esp, STACK
    TELL_MODE protected32
    END_IF PARAM_climb == 0
.if PARAM_climb == 2
    jmp   to_pae
.endif
.if PARAM_climb == 3
    jmp   to_long
.endif
    mov   eax, directory32
    mov   cr3, eax
    mov   eax, cr4
    or    eax, X86_CR4_PSE
    mov   cr4, eax
    mov   eax, cr0
    or    eax, X86_CR0_PG
    mov   cr0, eax

paging32:
    mov   esp, STACK
    TELL_MODE paging32
    mov   eax, dword ptr [WINDOW]
    TELL  paging32_window
    END_IF PARAM_climb < 2
    mov   eax, cr0
    and   eax, ~X86_CR0_PG & 0xffffffff   ; the kind of paging changes only while it is off
    mov   cr0, eax
to_pae:
    mov   eax, cr4
    and   eax, ~X86_CR4_PSE & 0xffffffff
    or    eax, X86_CR4_PAE
    mov   cr4, eax
    mov   eax, pointers_pae
    mov   cr3, eax
    mov   eax, cr0
    or    eax, X86_CR0_PG
    mov   cr0, eax

pae:
    mov   esp, STACK
    TELL_MODE pae
    mov   eax, dword ptr [WINDOW]
    TELL  pae_window
    END_IF PARAM_climb == 0 || PARAM_climb == 2
    mov   eax, cr0
    and   eax, ~X86_CR0_PG & 0xffffffff
    mov   cr0, eax
to_long:
    mov   eax, cr4
    or    eax, X86_CR4_PAE
    mov   cr4, eax
    mov   eax, level4
    mov   cr3, eax
    mov   ecx, MSR_EFER
    rdmsr
    or    eax, EFER_LME
    wrmsr
    mov   eax, cr0
    or    eax, X86_CR0_PG
    mov   cr0, eax                        ; LMA is on; the code is of 32 bits until CS says otherwise
    ljmp  CODE64:long

; ---- long mode

.code64
long:
    mov   eax, FLAT
    mov   ss, eax
    mov   esp, STACK
    mov   rax, rsp
    .byte 0x50
    sub   rax, rsp
    TELL  long_push
    mov   rax, cr0
    TELL  long_cr0
    mov   rax, cr4
    TELL  long_cr4
    mov   ecx, MSR_EFER
    rdmsr
    TELL  long_efer
    mov   rdi, WINDOW64
    mov   eax, dword ptr [rdi]
    TELL  long_window
    PASS

; ---- tables

.p2align 3
gdt:
    .quad 0
    .quad 0x00009b000000ffff | (BASE16 & 0xffffff) << 16   ; CODE16: from BASE16, 64 KiB
    .quad 0x00cf9b000000ffff              ; CODE32: from 0, 4 GiB
    .quad 0x00af9b000000ffff              ; CODE64
    .quad 0x00cf93000000ffff              ; FLAT: data
    .quad 0x000093000000ffff              ; DATA16
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long gdt
.p2align 5
pointers_pae:                             ; a PDPTE of PAE has no R/W bit
    .quad directory + _PAGE_PRESENT, 0, 0, 0

.p2align 12
directory32:
    .long 0x83, table32 + 3               ; 4 MiB as they are; the next four by a table
.p2align 12
table32:
    .long marker + 3
.p2align 12
directory:                                ; of PAE and of long mode: their last two levels are alike
    .quad 0x83, 0, table + 3              ; 2 MiB as they are; 2 MiB of nothing; WINDOW
.p2align 12
table:
    .quad marker + 3
.p2align 12
level4:
    .quad level3 + 3, level3 + 3          ; from 0 and from 1 << 39
.p2align 12
level3:
    .quad directory + 3
.p2align 12
marker:
    .quad MARKER
.p2align 12
end:
