# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers and bits of a 16550A that pyvmm uses: offsets from the UART's base, and masks. It knows no behaviour.

Names and values: include/uapi/linux/serial_reg.h. Meanings: National Semiconductor PC16550D data sheet, section 8.0.
"""

from __future__ import annotations

REGISTERS = 8  # the chip decodes three address lines
FIFO_SIZE = 16

# With LCR.DLAB set, offsets 0 and 1 are the divisor latch.
UART_RX = UART_TX = UART_DLL = 0
UART_IER = UART_DLM = 1
UART_IIR = UART_FCR = 2
UART_LCR = 3
UART_MCR = 4
UART_LSR = 5
UART_MSR = 6
UART_SCR = 7

UART_IER_RDI = 0x01  # received data, and the character timeout
UART_IER_THRI = 0x02  # transmitter holding register empty
UART_IER_RLSI = 0x04  # receiver line status
UART_IER_MSI = 0x08  # modem status

UART_IIR_NO_INT = 0x01
UART_IIR_MSI = 0x00
UART_IIR_THRI = 0x02
UART_IIR_RDI = 0x04
UART_IIR_RLSI = 0x06
UART_IIR_RX_TIMEOUT = 0x0C
IIR_FIFOS_ENABLED = 0xC0  # the header has no name for it

UART_FCR_ENABLE_FIFO = 0x01
UART_FCR_CLEAR_RCVR = 0x02
UART_FCR_CLEAR_XMIT = 0x04
UART_FCR_TRIGGER_MASK = 0xC0
UART_FCR_TRIGGER_1 = 0x00
UART_FCR_TRIGGER_4 = 0x40
UART_FCR_TRIGGER_8 = 0x80
UART_FCR_TRIGGER_14 = 0xC0
TRIGGER_LEVEL = {UART_FCR_TRIGGER_1: 1, UART_FCR_TRIGGER_4: 4, UART_FCR_TRIGGER_8: 8, UART_FCR_TRIGGER_14: 14}

UART_LCR_DLAB = 0x80

UART_MCR_DTR = 0x01
UART_MCR_RTS = 0x02
UART_MCR_OUT1 = 0x04
UART_MCR_OUT2 = 0x08
UART_MCR_LOOP = 0x10

UART_LSR_DR = 0x01  # data ready
UART_LSR_OE = 0x02  # overrun error
UART_LSR_THRE = 0x20
UART_LSR_TEMT = 0x40

UART_MSR_DCTS = 0x01
UART_MSR_DDSR = 0x02
UART_MSR_TERI = 0x04  # trailing edge of RI only
UART_MSR_DDCD = 0x08
UART_MSR_CTS = 0x10
UART_MSR_DSR = 0x20
UART_MSR_RI = 0x40
UART_MSR_DCD = 0x80
MSR_LINES = 0xF0  # the header has no name for it
