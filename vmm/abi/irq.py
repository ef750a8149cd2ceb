# SPDX-License-Identifier: GPL-2.0-or-later
"""The interrupt controllers and the timer of a PC as numbers: 8259A, 82093AA (IOAPIC), 8254, and machine checks.

Sources: Intel 8259A and 8254 data sheets; 82093AA data sheet, 3.2 (registers); Intel SDM vol. 3B, 16.3 (machine-check
MSRs). Linux's names where it has one (<asm/mce.h>, <asm/io_apic.h>), plain ones elsewhere.
"""

from __future__ import annotations

# 8259A: two of them, the slave on the master's input 2.
PIC_MASTER_CMD = 0x20
PIC_MASTER_IMR = 0x21
PIC_SLAVE_CMD = 0xA0
PIC_SLAVE_IMR = 0xA1
PIC_CASCADE_IR = 2
PIC_EOI = 0x20  # OCW2: non-specific end of interrupt
PIC_ICW1 = 0x11  # edge triggered, cascaded, ICW4 follows
PIC_ICW4 = 0x01  # 8086 mode, ordinary end of interrupt
PIC_INPUTS = 8
PIC_IS_ICW1 = 0x10  # a write to the command port with it begins an initialization;
PIC_IS_OCW3 = 0x08  # else, with it, the word is OCW3, and OCW2 without
PIC_ICW1_IC4 = 0x01
PIC_ICW1_SNGL = 0x02
PIC_ICW1_LTIM = 0x08
PIC_ICW4_AEOI = 0x02
PIC_ICW4_SFNM = 0x10
PIC_OCW2_R = 0x80
PIC_OCW2_SL = 0x40
PIC_OCW2_EOI = 0x20
PIC_OCW3_ESMM = 0x40
PIC_OCW3_SMM = 0x20
PIC_OCW3_P = 0x04
PIC_OCW3_RR = 0x02
PIC_OCW3_RIS = 0x01
PIC_POLL_PENDING = 0x80
ELCR_MASTER_WRITABLE = 0xF8  # IRQ 0 to 2 are edges on a PC,
ELCR_SLAVE_WRITABLE = 0xDE  # and 8 and 13
PIC_ELCR1 = 0x4D0  # which inputs are level triggered
PIC_ELCR2 = 0x4D1

# KVM_GET_IRQCHIP's chips, and the controllers of a route (<asm/kvm.h>).
KVM_IRQCHIP_PIC_MASTER = 0
KVM_IRQCHIP_PIC_SLAVE = 1
KVM_IRQCHIP_IOAPIC = 2

# IOAPIC: an index register, a data window, and behind them the registers below.
IOREGSEL = 0x00
IOWIN = 0x10
IOAPIC_EOIR = 0x40  # version 0x20 has it: end of interrupt by vector
IOAPIC_ID = 0x00
IOAPIC_VERSION = 0x01
IOAPIC_ARB = 0x02
IOAPIC_REDTBL = 0x10  # two registers for each pin
IOAPIC_VERSION_82093AA = 0x11
IOAPIC_PINS = 24

# A redirection entry; destination in bits 63:56.
RTE_VECTOR = 0xFF
RTE_DELIVERY_MODE = 0x700  # as in an ICR (vmm.abi.apic)
RTE_LOGICAL = 1 << 11
RTE_DELIVERY_STATUS = 1 << 12  # read only
RTE_ACTIVE_LOW = 1 << 13
RTE_REMOTE_IRR = 1 << 14  # read only: accepted, not ended (level)
RTE_LEVEL = 1 << 15
RTE_MASKED = 1 << 16
RTE_DESTINATION_SHIFT = 56
RTE_WRITABLE = 0xFF << RTE_DESTINATION_SHIFT | RTE_MASKED | RTE_LEVEL | RTE_ACTIVE_LOW | RTE_LOGICAL | 0x7FF

# 8254
PIT_CH0 = 0x40
PIT_CH2 = 0x42
PIT_MODE = 0x43
PIT_HZ = 1_193_182
PIT_CH0_RATE = 0x34  # channel 0, both bytes, mode 2 (rate generator)
PIT_CH0_ONCE = 0x30  # channel 0, both bytes, mode 0 (interrupt on terminal count)
PIT_CH0_STROBE = 0x3A  # channel 0, both bytes, mode 5 (hardware triggered strobe)
PIT_GSI = 0
PIT_CHANNELS = 3
PIT_READ_BACK = 3  # in place of a channel's number
PIT_RW_LATCH, PIT_RW_LSB, PIT_RW_MSB, PIT_RW_BOTH = 0, 1, 2, 3
PIT_READ_BACK_NO_COUNT = 0x20
PIT_READ_BACK_NO_STATUS = 0x10
PIT_STATUS_OUT = 0x80
PIT_STATUS_NULL = 0x40

# Machine checks
MCG_CTL_P = 1 << 8  # MCG_CAP: MCG_CTL is there
MCG_SER_P = 1 << 24  # software error recovery
MCG_LMCE_P = 1 << 27
MCG_CMCI_P = 1 << 10
MCG_BANKCNT_MASK = 0xFF
MCG_STATUS_RIPV = 1 << 0
MCG_STATUS_EIPV = 1 << 1
MCG_STATUS_MCIP = 1 << 2
MCI_STATUS_VAL = 1 << 63
MCI_STATUS_OVER = 1 << 62
MCI_STATUS_UC = 1 << 61
MCI_STATUS_EN = 1 << 60
MCI_STATUS_MISCV = 1 << 59
MCI_STATUS_ADDRV = 1 << 58
MCI_STATUS_PCC = 1 << 57


def ioapic_rte(
    vector: int,
    destination: int = 0,
    *,
    level: bool = False,
    masked: bool = False,
    mode: int = 0,
    logical: bool = False,
) -> int:
    """A redirection entry as 64 bits; `mode` is an APIC_DM_ value."""
    flags = level * RTE_LEVEL | masked * RTE_MASKED | logical * RTE_LOGICAL
    return destination << RTE_DESTINATION_SHIFT | flags | mode | vector


def asm_constants() -> dict[str, int]:
    """Everything above by name."""
    return {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int)}
