; summary: a 16550A serial port: output polled, input polled, then input by interrupt
; machine: irqchip=kernel
; result:  identified u64   IIR after enabling the FIFOs: 0xc1, a 16550A with working FIFOs
; result:  polled     u64   the first 8 characters of input, read by polling LSR
; result:  by_irq     u64   the next 8, read by the interrupt handler
; result:  interrupts u64   how many interrupts it took: at least 1
;
; The port lies at 0x3f8 and raises ISA interrupt 4. The in-kernel PIC delivers it as the vector that the guest chose
; when it initialised the PIC. MCR.OUT2 is the gate through which the PC lets the UART interrupt at all.

%include "results.inc"
%include "entry.inc"

RBR = COM1                                ; receive buffer; transmit on writes
IER = COM1 + 1                            ; interrupt enable
FCR = COM1 + 2                            ; FIFO control; IIR on reads
LCR = COM1 + 3                            ; line control
MCR = COM1 + 4                            ; modem control
LSR = COM1 + 5                            ; line status: bit 0 data ready, bit 5 transmitter empty
VECTOR = 0x24                             ; PIC base 0x20 + IRQ 4

start:
    mov   dx, LCR
    mov   al, 0x83                        ; divisor latch on, 8 data bits
    out   dx, al
    mov   dx, RBR
    mov   al, 1                           ; 115200 baud
    out   dx, al
    mov   dx, IER
    mov   al, 0
    out   dx, al
    mov   dx, LCR
    mov   al, 0x3
    out   dx, al
    mov   dx, FCR
    mov   al, 0x1                         ; FIFOs on
    out   dx, al
    xor   eax, eax
    in    al, dx
    RESULT identified

    lea   rsi, [rip + greeting]
send:
    lodsb
    test  al, al
    jz    sent
    mov   ah, al
    mov   dx, LSR
not_empty:
    in    al, dx
    test  al, 0x20
    jz    not_empty
    mov   al, ah
    mov   dx, RBR
    out   dx, al
    jmp   send
sent:

    xor   ebx, ebx                        ; eight characters, the first in the lowest byte
    xor   ecx, ecx
receive:
    mov   dx, LSR
    in    al, dx
    test  al, 1
    jz    receive
    mov   dx, RBR
    xor   eax, eax
    in    al, dx
    shl   rax, cl
    or    rbx, rax
    add   ecx, 8
    cmp   ecx, 64
    jb    receive
    mov   rax, rbx
    RESULT polled

    mov   edi, VECTOR
    lea   rsi, [rip + on_interrupt]
    call  set_gate
    call  pic_init
    xor   ebx, ebx
    xor   ecx, ecx
    xor   ebp, ebp
    mov   dx, MCR
    mov   al, 0x8                         ; OUT2
    out   dx, al
    mov   dx, IER
    mov   al, 0x1                         ; interrupt when data is ready
    out   dx, al
idle:
    sti                                   ; takes effect after the next instruction: no interrupt is lost before HLT
    hlt
    cli
    cmp   ecx, 64
    jb    idle
    mov   rax, rbx
    RESULT by_irq
    mov   eax, ebp
    RESULT interrupts
    PASS

on_interrupt:
    TAKEN_ONCE
    LEAVE_HLT
    push  rax
    push  rdx
    inc   ebp
drain:
    mov   dx, LSR
    in    al, dx
    test  al, 1
    jz    drained
    cmp   ecx, 64
    jae   drained
    mov   dx, RBR
    xor   eax, eax
    in    al, dx
    shl   rax, cl
    or    rbx, rax
    add   ecx, 8
    jmp   drain
drained:
    mov   al, 0x20                        ; end of interrupt
    out   0x20, al
    pop   rdx
    pop   rax
    iretq

pic_init:                                 ; both 8259s: edge, cascade, base 0x20 and 0x28, only IRQ 4 unmasked
    mov   al, 0x11
    out   0x20, al
    out   0xa0, al
    mov   al, 0x20
    out   0x21, al
    mov   al, 0x28
    out   0xa1, al
    mov   al, 0x4
    out   0x21, al
    mov   al, 0x2
    out   0xa1, al
    mov   al, 0x1
    out   0x21, al
    out   0xa1, al
    mov   al, 0xef
    out   0x21, al
    mov   al, 0xff
    out   0xa1, al
    ret

greeting:
    .asciz "Serial console ready.\n"

%include "idt.inc"
