; summary: interrupts by message, by route and by eventfd; an eventfd behind a level line, told of each EOI
; proves:  irqfd, irqfd_resample, gsi_routing, msi
; needs:   KVM_CAP_IRQCHIP, KVM_CAP_SIGNAL_MSI, KVM_CAP_IRQ_ROUTING, KVM_CAP_IRQFD
; machine: irqchip=kernel timeout=30
; param:   resample = 1       0 leaves out the level line with its resample eventfd
; result:  msi         u64    of 0x61, by KVM_SIGNAL_MSI: 1
; result:  routed      u64    of 0x62, by GSI 40 routed to that message: 1
; result:  rerouted    u64    of 0x63, by the same GSI routed anew: 1
; result:  old_route   u64    of 0x62 then: still 1
; result:  unrouted    u64    of both, after the route was taken away: still 2
; result:  by_eventfd  u64    of 0x64, by an eventfd bound to GSI 41: 1
; result:  unbound     u64    after it was unbound, and written once more: still 1
; result:  level       u64    of 0x65, by an eventfd behind pin 11 of the IOAPIC, written once more at the first EOI: 2
; result:  rte         u64    pin 11's redirection entry after that: no remote IRR left
;
; A GSI is a number to KVM; a route says what it does: pull a pin of an interrupt controller, or send a message. An
; eventfd bound to a GSI lets any process raise it with a write, and no vCPU leaves the guest for it. For a level KVM
; lowers the line by itself at the guest's EOI and signals a second eventfd: a device that still wants can say so.

%include "results.inc"
%include "apic.inc"
%include "vectors.inc"

.macro ASK what
    mov   al, \what
    out   DELAY_PORT, al
    LET_IN
.endm

start:
    X2APIC_ENABLE
    TAKE  0x61
    TAKE  0x62
    TAKE  0x63
    TAKE  0x64
    TAKE  0x65
    mov   al, 0xff                        ; the PICs are not asked
    out   PIC_MASTER_IMR, al
    out   PIC_SLAVE_IMR, al
    sti

    ASK   1                               ; KVM_SIGNAL_MSI
    STORE 0x61, msi
    ASK   2                               ; route GSI 40 to 0x62, and raise it
    STORE 0x62, routed
    ASK   3                               ; route it to 0x63, and raise it
    STORE 0x63, rerouted
    STORE 0x62, old_route
    ASK   4                               ; no route, and raise it
    mov   rax, qword ptr [COUNTS + 0x62 * 8]
    add   rax, qword ptr [COUNTS + 0x63 * 8]
    RESULT unrouted

    ASK   5                               ; an eventfd is bound to GSI 41, and written
    AWAIT_COUNT 0x64, 1
    STORE 0x64, by_eventfd
    ASK   6                               ; unbound, and written
    STORE 0x64, unbound

.if PARAM_resample
    mov   ebx, IOAPIC_DEFAULT_PHYS_BASE
    mov   dword ptr [rbx + IOREGSEL], IOAPIC_REDTBL + 11 * 2
    mov   dword ptr [rbx + IOWIN], 0x65 | RTE_LEVEL
    ASK   7                               ; an eventfd with a resample eventfd is bound to pin 11, and written
    AWAIT_COUNT 0x65, 1
    ASK   8                               ; the device hears of the EOI, and writes once more
    AWAIT_COUNT 0x65, 2
    ASK   9                               ; it hears of the second, and is content
    mov   dword ptr [rbx + IOREGSEL], IOAPIC_REDTBL + 11 * 2
    mov   eax, dword ptr [rbx + IOWIN]
    RESULT rte
.else
    xor   eax, eax
    RESULT rte
.endif
    STORE 0x65, level
    PASS

    COUNTER 0x61
    COUNTER 0x62
    COUNTER 0x63
    COUNTER 0x64
    COUNTER 0x65

%include "idt.inc"
