# SPDX-License-Identifier: GPL-2.0-or-later
"""What kvm-unit-tests' x86 images find on a PC beside a PC's hardware: test device and fw_cfg, as numbers.

Sources: kvm-unit-tests, lib/x86/fwcfg.h, x86/ioram.h, lib/x86/apic.c (set_irq_line), x86/eventinj.c; QEMU's
docs/specs/fw_cfg.rst. Names as there.
"""

from __future__ import annotations

# The test device: a register of four bytes that any width reads and writes, one of a byte, a port that takes an
# address whose page the hypervisor shall forget, a port for each interrupt line, and memory that is a device.
TESTDEV_IO_PORT, TESTDEV_IO_SIZE = 0xE0, 4
TESTDEV_FLUSH_PORT, TESTDEV_FLUSH_SIZE = 0xE4, 4
TESTDEV_BYTE_PORT = 0xE8
TESTDEV_IRQ_PORTS, TESTDEV_IRQ_LINES = 0x2000, 24
IORAM_BASE_PHYS, IORAM_SIZE = 0xFF000000, 0x10000

SLP_TYP_S3 = 1  # of PM1 control: x86/s3.c writes it without asking the DSDT, as QEMU's PC has it

# fw_cfg: a selector of 16 bits at the first port, data by bytes at the second.
BIOS_CFG_IOPORT, BIOS_CFG_PORTS = 0x510, 2
FW_CFG_SIGNATURE = 0x00
FW_CFG_ID = 0x01
FW_CFG_RAM_SIZE = 0x03  # u64
FW_CFG_NOGRAPHIC = 0x04  # u16
FW_CFG_NB_CPUS = 0x05  # u16
FW_CFG_MAX_CPUS = 0x0F  # u16: one more than the highest APIC id
FW_CFG_FILE_DIR = 0x19  # u32, big-endian: how many files follow
FW_CFG_SIGNATURE_TEXT = b"QEMU"
FW_CFG_VERSION = 0x01  # of FW_CFG_ID: the traditional interface, without DMA
FW_CFG_WRITE_CHANNEL = 0x4000  # of a selector; obsolete, and ignored
