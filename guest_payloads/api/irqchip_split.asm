; summary: local APICs in the kernel, the IOAPIC in pyvmm: entries become MSIs, the end of a level comes by an exit
; proves:  irqchip_split, ioapic_eoi_exit
; needs:   KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_SIGNAL_MSI, KVM_CAP_IRQ_ROUTING
; machine: irqchip=split timeout=30
; param:   unmask = 1     0 leaves every pin masked
; result:  version     u64   the IOAPIC's version register: 0x170011, 24 pins
; result:  id          u64   its id register after 0xffffffff was written: bits 27:24 are kept
; result:  edge_up     u64   of pin 5, after its line rose: 1
; result:  edge_held   u64   after it was driven high once more: still 1
; result:  edge_masked u64   after an edge while it was masked, and unmasking: still 1, the edge is lost
; result:  edge_again  u64   after one more edge: 2
; result:  level       u64   of pin 11, whose device is content after the third: 3
; result:  level_after u64   after that, with the line low: still 3
; result:  rte         u64   pin 11's redirection entry as the guest reads it then: no remote IRR left
; result:  nmi         u64   of pin 6 in delivery mode NMI, after an edge: 1
;
; As in irqchip_kernel, an OUT to DELAY_PORT asks the host half to drive a line. The IOAPIC's registers are now a device
; of pyvmm: it turns an entry into a message (KVM_SIGNAL_MSI), and must hear when a level's interrupt has been ended.

%include "results.inc"
%include "apic.inc"
%include "vectors.inc"

LINE   = DELAY_PORT
DEVICE = DELAY_PORT + 2                   ; the handler of pin 11 talks to its device

.macro ASK what
    mov   al, \what
    out   LINE, al
    LET_IN
.endm

; RBX = the IOAPIC: one 32-bit register by index and data window
.macro IOAPIC_WRITE index, value
    mov   dword ptr [rbx + IOREGSEL], \index
    mov   dword ptr [rbx + IOWIN], \value
.endm

.macro IOAPIC_READ index
    mov   dword ptr [rbx + IOREGSEL], \index
    mov   eax, dword ptr [rbx + IOWIN]
.endm

.macro PIN number, entry
    IOAPIC_WRITE IOAPIC_REDTBL + \number * 2 + 1, 0 ; destination: APIC id 0
    IOAPIC_WRITE IOAPIC_REDTBL + \number * 2, \entry
.endm

start:
    X2APIC_ENABLE
    TAKE  NMI_VECTOR
    TAKE  0x55
    TAKE  0x5b
    sti
    mov   ebx, IOAPIC_DEFAULT_PHYS_BASE
    IOAPIC_READ IOAPIC_VERSION
    RESULT version
    IOAPIC_WRITE IOAPIC_ID, 0xffffffff
    mov   eax, dword ptr [rbx + IOWIN]
    RESULT id
.if PARAM_unmask
    PIN   5, 0x55                         ; fixed, edge triggered
    PIN   6, APIC_DM_NMI                  ; an NMI has no vector
    PIN   11, 0x5b | RTE_LEVEL
.endif

    ASK   1                               ; pin 5 rises
    STORE 0x55, edge_up
    ASK   1                               ; and is driven high again
    STORE 0x55, edge_held
    PIN   5, 0x55 | RTE_MASKED
    ASK   2                               ; falls and rises
.if PARAM_unmask
    PIN   5, 0x55
.endif
    LET_IN
    STORE 0x55, edge_masked
    ASK   2
    STORE 0x55, edge_again
    ASK   3                               ; pin 11 rises, and its device lets go at its third interrupt
    STORE 0x5b, level
    ASK   0                               ; nothing
    STORE 0x5b, level_after
    IOAPIC_READ IOAPIC_REDTBL + 11 * 2
    RESULT rte
    ASK   4                               ; an edge on pin 6
    STORE NMI_VECTOR, nmi
    PASS

    COUNTER 0x55
    COUNTER 0x5b, DEVICE
    COUNT_EVENT NMI_VECTOR

%include "idt.inc"
