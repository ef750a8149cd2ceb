; summary: the PICs, the IOAPIC and the local APIC that KVM keeps, driven by KVM_IRQ_LINE: edges and levels
; proves:  irqchip_kernel, irq_line_edge, irq_line_level
; needs:   KVM_CAP_IRQCHIP
; machine: irqchip=kernel timeout=30
; param:   unmask = 1     0 leaves every input masked, at both controllers
; result:  pic_master  u64   interrupts by a pulse on IRQ 3: 1
; result:  pic_slave   u64   interrupts by a pulse on IRQ 10, which comes through the slave: 1
; result:  pic_masked  u64   of IRQ 3, after a pulse while it was masked: still 1
; result:  pic_latched u64   after it was unmasked: 2, the PIC remembers an edge
; result:  edge_up     u64   of IOAPIC pin 5, after its line rose: 1
; result:  edge_held   u64   after it was driven high once more: still 1, that is no edge
; result:  edge_again  u64   after it fell and rose: 2
; result:  level       u64   of IOAPIC pin 11, whose device is content after the third: 3
; result:  level_after u64   after that, with the line low: still 3
; result:  rte         u64   pin 11's redirection entry as the guest reads it then: no remote IRR left
;
; Every OUT to DELAY_PORT asks the host half for the next thing on an interrupt line; AL says what. So the interrupt is
; there before the guest goes on, on the host's own thread, and nothing here depends on time.

%include "results.inc"
%include "apic.inc"
%include "vectors.inc"

LINE   = DELAY_PORT                       ; the host half drives a line
LOOK   = DELAY_PORT + 1                   ; inside a handler: the host half reads the controllers
DEVICE = DELAY_PORT + 2                   ; the handler of pin 11 talks to its device
REDIR5  = IOAPIC_REDTBL + 5 * 2
REDIR11 = IOAPIC_REDTBL + 11 * 2

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

start:
    X2APIC_ENABLE
    TAKE  0x23
    TAKE  0x2a
    TAKE  0x55
    TAKE  0x5b

    mov   ecx, X2APIC_LVT0                ; the PICs' output is wired to LINT0: let it through as it is
    mov   eax, APIC_DM_EXTINT
    xor   edx, edx
    wrmsr

    mov   al, PIC_ICW1                    ; both PICs: four words of initialization
    out   PIC_MASTER_CMD, al
    out   PIC_SLAVE_CMD, al
    mov   al, 0x20                        ; IRQ 0 to 7 are vectors 0x20 to 0x27,
    out   PIC_MASTER_IMR, al
    mov   al, 0x28                        ; IRQ 8 to 15 are 0x28 to 0x2f
    out   PIC_SLAVE_IMR, al
    mov   al, 1 << PIC_CASCADE_IR         ; the slave hangs on the master's input 2
    out   PIC_MASTER_IMR, al
    mov   al, PIC_CASCADE_IR
    out   PIC_SLAVE_IMR, al
    mov   al, PIC_ICW4
    out   PIC_MASTER_IMR, al
    out   PIC_SLAVE_IMR, al
    mov   al, 0xff                        ; all inputs masked
    out   PIC_SLAVE_IMR, al
    out   PIC_MASTER_IMR, al
.if PARAM_unmask
    mov   al, 0xfb                        ; but IRQ 10, IRQ 3 and the cascade
    out   PIC_SLAVE_IMR, al
    mov   al, 0xf3
    out   PIC_MASTER_IMR, al
.endif
    sti

    ASK   1                               ; IRQ 3 rises and falls
    STORE 0x23, pic_master
    ASK   2                               ; IRQ 10 likewise
    STORE 0x2a, pic_slave
    mov   al, 0xfb
    out   PIC_MASTER_IMR, al              ; IRQ 3 masked
    ASK   1
    STORE 0x23, pic_masked
.if PARAM_unmask
    mov   al, 0xf3
    out   PIC_MASTER_IMR, al
.endif
    LET_IN
    STORE 0x23, pic_latched

    mov   al, 0xff                        ; ---- from here on the IOAPIC alone
    out   PIC_MASTER_IMR, al
    out   PIC_SLAVE_IMR, al
    mov   ebx, IOAPIC_DEFAULT_PHYS_BASE
.if PARAM_unmask
    IOAPIC_WRITE REDIR5 + 1, 0            ; destination: APIC id 0
    IOAPIC_WRITE REDIR5, 0x55             ; fixed, edge triggered, not masked
    IOAPIC_WRITE REDIR11 + 1, 0
    IOAPIC_WRITE REDIR11, 0x5b | RTE_LEVEL
.endif

    ASK   3                               ; pin 5 rises
    STORE 0x55, edge_up
    ASK   3                               ; and is driven high again
    STORE 0x55, edge_held
    ASK   4                               ; falls and rises
    STORE 0x55, edge_again
    ASK   5                               ; pin 11 rises, and its device lets go at its third interrupt
    STORE 0x5b, level
    ASK   0                               ; nothing
    STORE 0x5b, level_after
    mov   dword ptr [rbx + IOREGSEL], REDIR11
    mov   eax, dword ptr [rbx + IOWIN]
    RESULT rte
    PASS

    COUNT_PIC 0x23, LOOK, 0
    COUNT_PIC 0x2a, LOOK, 1
    COUNTER 0x55, LOOK
    COUNTER 0x5b, DEVICE

%include "idt.inc"
