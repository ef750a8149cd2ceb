# SPDX-License-Identifier: GPL-2.0-or-later
"""ACPI as numbers: the layout of the tables that pyvmm writes, and the encoding of AML. It knows no machine.

Source: ACPI specification 6.5: 5.2.5.3 (RSDP), 5.2.6 (header), 5.2.9 (FADT), 5.2.10 (FACS), 5.2.12 (MADT), 6.4
(resource descriptors), 20.2 (AML).
"""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """A field of a table: its name as the specification has it, and its bytes."""

    name: str
    size: int


RSDP_SIGNATURE = b"RSD PTR "
RSDP_REVISION = 2
RSDP_LENGTH = 36
RSDP_FIRST = 20  # bytes of revision 0, which have a checksum of their own
HEADER_LENGTH = 36
FADT_REVISION, FADT_MINOR = 6, 3
FACS_LENGTH, FACS_VERSION, FACS_ALIGN = 64, 2, 64
FACS_SIGNATURE = b"FACS"
FACS_WAKING_VECTOR = 12  # offset of four bytes
MADT_REVISION = 5
DSDT_REVISION = 2  # from 2 on, integers of AML have 64 bits

GENERIC_ADDRESS = 12  # bytes of a Generic Address Structure
SPACE_SYSTEM_IO = 1
ACCESS_BYTE, ACCESS_WORD, ACCESS_DWORD = 1, 2, 3

FADT = (
    Part("FIRMWARE_CTRL", 4), Part("DSDT", 4), Part("Reserved", 1), Part("Preferred_PM_Profile", 1),
    Part("SCI_INT", 2), Part("SMI_CMD", 4), Part("ACPI_ENABLE", 1), Part("ACPI_DISABLE", 1), Part("S4BIOS_REQ", 1),
    Part("PSTATE_CNT", 1), Part("PM1a_EVT_BLK", 4), Part("PM1b_EVT_BLK", 4), Part("PM1a_CNT_BLK", 4),
    Part("PM1b_CNT_BLK", 4), Part("PM2_CNT_BLK", 4), Part("PM_TMR_BLK", 4), Part("GPE0_BLK", 4), Part("GPE1_BLK", 4),
    Part("PM1_EVT_LEN", 1), Part("PM1_CNT_LEN", 1), Part("PM2_CNT_LEN", 1), Part("PM_TMR_LEN", 1),
    Part("GPE0_BLK_LEN", 1), Part("GPE1_BLK_LEN", 1), Part("GPE1_BASE", 1), Part("CST_CNT", 1), Part("P_LVL2_LAT", 2),
    Part("P_LVL3_LAT", 2), Part("FLUSH_SIZE", 2), Part("FLUSH_STRIDE", 2), Part("DUTY_OFFSET", 1),
    Part("DUTY_WIDTH", 1), Part("DAY_ALRM", 1), Part("MON_ALRM", 1), Part("CENTURY", 1), Part("IAPC_BOOT_ARCH", 2),
    Part("Reserved2", 1), Part("Flags", 4), Part("RESET_REG", GENERIC_ADDRESS), Part("RESET_VALUE", 1),
    Part("ARM_BOOT_ARCH", 2), Part("FADT_Minor_Version", 1), Part("X_FIRMWARE_CTRL", 8), Part("X_DSDT", 8),
    Part("X_PM1a_EVT_BLK", GENERIC_ADDRESS), Part("X_PM1b_EVT_BLK", GENERIC_ADDRESS),
    Part("X_PM1a_CNT_BLK", GENERIC_ADDRESS), Part("X_PM1b_CNT_BLK", GENERIC_ADDRESS),
    Part("X_PM2_CNT_BLK", GENERIC_ADDRESS), Part("X_PM_TMR_BLK", GENERIC_ADDRESS), Part("X_GPE0_BLK", GENERIC_ADDRESS),
    Part("X_GPE1_BLK", GENERIC_ADDRESS), Part("SLEEP_CONTROL_REG", GENERIC_ADDRESS),
    Part("SLEEP_STATUS_REG", GENERIC_ADDRESS), Part("Hypervisor_Vendor_Identity", 8),
)  # fmt: skip

# FADT: IAPC_BOOT_ARCH and Flags
LEGACY_DEVICES = 1 << 0
HAS_8042 = 1 << 1
VGA_NOT_PRESENT = 1 << 2
WBINVD = 1 << 0
PROC_C1 = 1 << 2
SLP_BUTTON = 1 << 5  # set: none in the fixed hardware
FIX_RTC = 1 << 6  # set: no RTC wake status in the fixed hardware
RESET_REG_SUP = 1 << 10
NO_C2, NO_C3 = 101, 1001  # latencies by which a system says that it has no such state
PROFILE_ENTERPRISE_SERVER = 4

# MADT
PCAT_COMPAT = 1 << 0  # there are two 8259s, too
MADT_LAPIC, MADT_IOAPIC, MADT_OVERRIDE, MADT_LAPIC_NMI, MADT_X2APIC, MADT_X2APIC_NMI = 0, 1, 2, 4, 9, 10
LAPIC_ENABLED = 1
ACTIVE_HIGH_LEVEL = 0b1101  # polarity 01, trigger mode 11
ALL_CPUS_8, ALL_CPUS_32 = 0xFF, 0xFFFF_FFFF

# Resource descriptors
SMALL_IRQ_NO_FLAGS = 0x22
SMALL_IO = 0x47
SMALL_END = 0x79
LARGE_MEMORY32_FIXED = 0x86
LARGE_INTERRUPT = 0x89
IO_DECODE_16 = 1
MEMORY_WRITABLE = 1
INTERRUPT_CONSUMER = 1 << 0
INTERRUPT_EDGE = 1 << 1

# AML
ZERO_OP, ONE_OP, NAME_OP, BYTE_PREFIX, WORD_PREFIX, DWORD_PREFIX, STRING_PREFIX, QWORD_PREFIX = (
    0x00, 0x01, 0x08, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E
)  # fmt: skip
SCOPE_OP, BUFFER_OP, PACKAGE_OP = 0x10, 0x11, 0x12
DEVICE_OP = b"\x5b\x82"
ROOT_CHAR, DUAL_NAME_PREFIX, MULTI_NAME_PREFIX = b"\\", b"\x2e", b"\x2f"

# Devices by their ids
PNP_SERIAL = "PNP0501"
PNP_RTC = "PNP0B00"
PNP_KEYBOARD = "PNP0303"
ACPI_PROCESSOR = "ACPI0007"
VIRTIO_MMIO = "LNRO0005"  # of the Linux kernel's driver (drivers/virtio/virtio_mmio.c)
STA_PRESENT = 0x0F  # present, enabled, shown, working
