# SPDX-License-Identifier: GPL-2.0-or-later
"""The PC's fixed hardware as numbers: ports, interrupt lines, and the bits of its RTC, keyboard controller and ACPI.

Sources: Motorola MC146818A data sheet (RTC); IBM PC/AT Technical Reference, 8042 and system control ports; ACPI
specification 6.5, 4.8 (fixed hardware); Intel 82371AB (PIIX4) data sheet, 4.3 and 7.2 (reset control, PM1). Of ports
that emulators agreed on, who has them. Linux's names where it has one (<linux/mc146818rtc.h>, drivers/input/serio/
i8042.h), plain ones elsewhere.
"""

from __future__ import annotations

from vmm.abi.ports import COM1_IRQ as COM1_IRQ

# Interrupt lines. ISA numbers are GSIs, but for the PIT's: it is at pin 2 of the IOAPIC (the MADT says so).
PIT_IRQ = 0
PIT_PIN = 2
KEYBOARD_IRQ = 1
RTC_IRQ = 8
SCI_IRQ = 9
MOUSE_IRQ = 12
ISA_IRQS = 16
FREE_ISA_IRQS = (5, 10, 11, 7, 6, 12, 14, 15, 3)  # no device of the board has them: for virtio, in this order
FREE_PINS = tuple(range(16, 24))  # of the IOAPIC alone

# Memory that is not for the guest's use: VGA's, and the BIOS area where it looks for tables.
VGA_BASE, VGA_SIZE = 0xA0000, 0x20000
BIOS_BASE, BIOS_SIZE = 0xE0000, 0x20000

# MC146818A: an index port and a data port; the index's bit 7 masks NMIs on a PC, and is not the chip's.
RTC_INDEX = 0x70
RTC_DATA = 0x71
RTC_NMI_OFF = 0x80
CMOS_BYTES = 128
RTC_SECONDS = 0
RTC_SECONDS_ALARM = 1
RTC_MINUTES = 2
RTC_MINUTES_ALARM = 3
RTC_HOURS = 4
RTC_HOURS_ALARM = 5
RTC_DAY_OF_WEEK = 6
RTC_DAY_OF_MONTH = 7
RTC_MONTH = 8
RTC_YEAR = 9
RTC_REG_A = 10
RTC_REG_B = 11
RTC_REG_C = 12
RTC_REG_D = 13
RTC_UIP = 0x80  # register A: the time is about to change
RTC_DIV_CTL = 0x70
RTC_REF_CLCK_32KHZ = 0x20
RTC_DIV_RESET2 = 0x70  # both values 110 and 111 hold the divider
RTC_DIV_RESET1 = 0x60
RTC_RATE_SELECT = 0x0F
RTC_SET = 0x80  # register B
RTC_PIE = 0x40
RTC_AIE = 0x20
RTC_UIE = 0x10
RTC_SQWE = 0x08
RTC_DM_BINARY = 0x04
RTC_24H = 0x02
RTC_DST_EN = 0x01
RTC_IRQF = 0x80  # register C
RTC_PF = 0x40
RTC_AF = 0x20
RTC_UF = 0x10
RTC_VRT = 0x80  # register D: the battery is good
RTC_DONT_CARE = 0xC0  # an alarm byte from here up matches any value
RTC_PM = 0x80  # of an hour in 12-hour mode
RTC_HZ = 32768
RTC_UPDATE_NS = 1_984_000  # how long an update takes at 32,768 Hz
RTC_UIP_NS = 244_000  # how long UIP warns before it

# CMOS bytes behind the clock that software of a PC looks at.
CMOS_SHUTDOWN = 0x0F
CMOS_BASE_KIB = 0x15  # two bytes: KiB below 640 KiB
CMOS_EXTENDED_KIB = 0x17  # two bytes: KiB from 1 MiB on
CMOS_EXTENDED_KIB_2 = 0x30
CMOS_CENTURY = 0x32
CMOS_HIGH_64KIB = 0x34  # two bytes: 64 KiB units from 16 MiB on (Bochs, QEMU)
CMOS_ABOVE_4G_64KIB = 0x5B  # three bytes: 64 KiB units above 4 GiB (Bochs, QEMU)
CMOS_CPUS = 0x5F  # vCPUs but the first (Bochs, QEMU)

# 8042: data, and status when read, command when written
I8042_DATA = 0x60
I8042_COMMAND = 0x64
I8042_STR_OBF = 0x01
I8042_STR_IBF = 0x02
I8042_STR_SYS = 0x04
I8042_STR_CMD = 0x08
I8042_STR_KEYLOCK = 0x10
I8042_STR_AUXDATA = 0x20
I8042_CMD_CTL_RCTR = 0x20
I8042_CMD_CTL_WCTR = 0x60
I8042_CMD_AUX_DISABLE = 0xA7
I8042_CMD_AUX_ENABLE = 0xA8
I8042_CMD_AUX_TEST = 0xA9
I8042_CMD_SELF_TEST = 0xAA
I8042_CMD_KBD_TEST = 0xAB
I8042_CMD_KBD_DISABLE = 0xAD
I8042_CMD_KBD_ENABLE = 0xAE
I8042_CMD_READ_INPUT = 0xC0
I8042_CMD_READ_OUTPUT = 0xD0
I8042_CMD_WRITE_OUTPUT = 0xD1
I8042_CMD_KBD_LOOP = 0xD2
I8042_CMD_AUX_LOOP = 0xD3
I8042_CMD_AUX_SEND = 0xD4
I8042_CMD_A20_OFF = 0xDD
I8042_CMD_A20_ON = 0xDF
I8042_CMD_PULSE = 0xF0  # to 0xff: each clear bit pulses that output line
I8042_CMD_RESET = 0xFE
I8042_CTR_KBDINT = 0x01
I8042_CTR_AUXINT = 0x02
I8042_CTR_SYSTEM = 0x04
I8042_CTR_KBDDIS = 0x10
I8042_CTR_AUXDIS = 0x20
I8042_CTR_XLATE = 0x40
I8042_RET_SELF_TEST = 0x55
I8042_RET_PORT_OK = 0x00
I8042_OUT_RESET = 0x01  # output port: the line is low while the CPU is in reset
I8042_OUT_A20 = 0x02
I8042_OUT_OBF = 0x10
I8042_OUT_AUX_OBF = 0x20
I8042_IN_UNLOCKED = 0x80
KBD_ACK = 0xFA
KBD_RESEND = 0xFE
KBD_ECHO = 0xEE
KBD_SELF_TEST_OK = 0xAA
KBD_CMD_SET_LEDS = 0xED
KBD_CMD_ECHO = 0xEE
KBD_CMD_SCAN_SET = 0xF0
KBD_CMD_GET_ID = 0xF2
KBD_CMD_SET_RATE = 0xF3
KBD_CMD_ENABLE = 0xF4
KBD_CMD_DISABLE = 0xF5
KBD_CMD_DEFAULTS = 0xF6
KBD_CMD_RESET = 0xFF
KBD_ID = (0xAB, 0x83)  # an MF2 keyboard

# System control ports
PORT_61 = 0x61
PORT_61_GATE2 = 0x01  # PIT channel 2 counts
PORT_61_SPEAKER = 0x02
PORT_61_REFRESH = 0x10  # toggles with each memory refresh
PORT_61_OUT2 = 0x20  # the output of PIT channel 2
PORT_61_WRITABLE = 0x0F
REFRESH_NS = 15_085
PORT_92 = 0x92
PORT_92_RESET = 0x01  # set: the CPU is reset
PORT_92_A20 = 0x02
RESET_CONTROL = 0xCF9
RESET_SYSTEM = 0x02  # the whole system, and not the CPU alone
RESET_CPU = 0x04  # its rising edge resets

# ACPI's fixed hardware: where PIIX4 and ICH9 of QEMU have it, so that what writes there blindly is understood.
PM1_EVENT = 0x600  # status and enable, two bytes each
PM1_CONTROL = 0x604
PM_TIMER = 0x608
PM_TIMER_HZ = 3_579_545
PM_TIMER_BITS = 24
PM1_TMR = 1 << 0
PM1_BM = 1 << 4
PM1_GBL = 1 << 5
PM1_PWRBTN = 1 << 8
PM1_SLPBTN = 1 << 9
PM1_RTC = 1 << 10
PM1_WAK = 1 << 15
PM1_ENABLES = PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC
PM1_STATUSES = PM1_ENABLES | PM1_BM | PM1_WAK
PM1_SCI_EN = 1 << 0
PM1_SLP_TYP_SHIFT = 10
PM1_SLP_TYP = 7 << PM1_SLP_TYP_SHIFT
PM1_SLP_EN = 1 << 13
SLP_TYP_S5 = 0  # what our DSDT's _S5 says, and PIIX4 and QEMU have

# Ports by which small systems end an emulator: (port, value, whose). The first is PM1_CONTROL itself.
POWER_OFF_PORTS = (
    (0xB004, 0x2000, "Bochs, QEMU before 2.0"),
    (0x4004, 0x3400, "VirtualBox"),
)
SHUTDOWN_TEXT_PORT = 0x8900  # Bochs, QEMU before 2.0: the letters of the word below, one after the other
SHUTDOWN_TEXT = b"Shutdown"

DEBUG_EXIT = 0xF4  # QEMU's isa-debug-exit, where kvm-unit-tests has it
DEBUG_EXIT_SIZE = 4

# The PIT's channel 2 and speaker gate with it, as KVM_CREATE_PIT2 takes them
KVM_PIT_SPEAKER_DUMMY = 1

# Ports that a PC's software asks after or writes to without need of an answer: (first, how many, whose).
QUIET_PORTS = (
    (0x00, 0x20, "DMA controller"),
    (0x2E, 2, "super I/O"),
    (0x4E, 2, "super I/O"),
    (0x80, 0x10, "delay port and DMA pages"),
    (0xC0, 0x20, "DMA controller"),
    (0xED, 1, "delay port"),
    (0xF0, 2, "FPU busy latch"),
    (0x170, 8, "IDE"),
    (0x1F0, 8, "IDE"),
    (0x200, 8, "game port"),
    (0x278, 8, "LPT2"),
    (0x2E8, 8, "COM4"),
    (0x2F8, 8, "COM2"),
    (0x376, 1, "IDE"),
    (0x378, 8, "LPT1"),
    (0x3B0, 0x30, "VGA"),
    (0x3E8, 8, "COM3"),
    (0x3F0, 8, "floppy disk and IDE"),
    (0xCF8, 1, "PCI address"),
    (0xCFA, 6, "PCI address and data"),
    (0xC000, 0x1000, "PCI configuration, the second way"),
)


def asm_constants() -> dict[str, int]:
    """Every number above by name."""
    return {name: value for name, value in globals().items() if name.isupper() and isinstance(value, int)}
