# SPDX-License-Identifier: GPL-2.0-or-later
"""The ACPI tables of a pc board: which CPUs, interrupt controllers, fixed hardware and devices there are, as bytes.

Source: ACPI specification 6.5, chapter 5.2, and 7.4.2.5 (_S5). No interpreter of AML is needed for anything but names:
there is no method. What the tables say of the machine comes as arguments and from vmm.abi.pc.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi import acpi, pc, ports
from vmm.abi.acpi import Part
from vmm.machine.boards import aml
from vmm.machine.boards.board import Tables, VirtioPlace
from vmm.machine.memory.layout import REGIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OEM, OEM_TABLE, CREATOR = b"PYVMM ", b"PC      ", b"PYVM"
LAST_XAPIC_ID = 254  # one byte, and 255 is all of them
RESET_VALUE = pc.RESET_SYSTEM | pc.RESET_CPU


def tables(apic_ids: Sequence[int], virtio: Sequence[VirtioPlace], *, apic: bool = True) -> Tables:
    """All of them, one behind the other from the beginning of the BIOS area, where a guest without other advice looks
    for the RSDP. `apic` False: the machine has neither local APICs nor an IOAPIC, and so no MADT.
    """
    at = pc.BIOS_BASE + _up(acpi.RSDP_LENGTH, 16)
    placed: list[tuple[int, bytes]] = []

    def place(data: bytes, align: int = 16) -> int:
        nonlocal at
        base = _up(at, align)
        placed.append((base, data))
        at = base + len(data)
        return base

    firmware = place(facs(), acpi.FACS_ALIGN)
    described = place(dsdt(len(apic_ids), virtio))
    listed = [place(fadt(firmware, described))]
    if apic:
        listed.append(place(madt(apic_ids)))
    short = place(table(b"RSDT", 1, b"".join(each.to_bytes(4, "little") for each in listed)))
    long = place(table(b"XSDT", 1, b"".join(each.to_bytes(8, "little") for each in listed)))
    return Tables(((pc.BIOS_BASE, rsdp(short, long)), *placed), pc.BIOS_BASE)


def checksum(data: bytes | bytearray) -> int:
    """The byte that makes the sum of all 0."""
    return -sum(data) & 0xFF


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """A table with its header (5.2.6)."""
    length = acpi.HEADER_LENGTH + len(body)
    head = signature + length.to_bytes(4, "little") + bytes((revision, 0)) + OEM + OEM_TABLE
    head += (1).to_bytes(4, "little") + CREATOR + (1).to_bytes(4, "little")
    whole = bytearray(head + body)
    whole[9] = checksum(whole)
    return bytes(whole)


def rsdp(short: int, long: int) -> bytes:
    """The root pointer (5.2.5.3)."""
    first = bytearray(acpi.RSDP_SIGNATURE + b"\0" + OEM + bytes((acpi.RSDP_REVISION,)) + short.to_bytes(4, "little"))
    first[8] = checksum(first)
    whole = bytearray(first + acpi.RSDP_LENGTH.to_bytes(4, "little") + long.to_bytes(8, "little") + bytes(4))
    whole[32] = checksum(whole)
    return bytes(whole)


def facs() -> bytes:
    """Nothing wakes by it, but a FADT needs one (5.2.10)."""
    head = acpi.FACS_SIGNATURE + acpi.FACS_LENGTH.to_bytes(4, "little") + bytes(24)
    return (head + bytes((acpi.FACS_VERSION,))).ljust(acpi.FACS_LENGTH, b"\0")


def fields(parts: Sequence[Part], values: Mapping[str, int | bytes]) -> bytes:
    """A table's body by its parts; what has no value is 0."""
    unknown = values.keys() - {part.name for part in parts}
    if unknown:
        raise ValueError(f"no such field: {', '.join(sorted(unknown))}")
    made = []
    for part in parts:
        value = values.get(part.name, 0)
        made.append(value if isinstance(value, bytes) else value.to_bytes(part.size, "little"))
    return b"".join(made)


def register(port: int, size: int, access: int) -> bytes:
    """A Generic Address Structure of an I/O port (5.2.3.2)."""
    return bytes((acpi.SPACE_SYSTEM_IO, 8 * size, 0, access)) + port.to_bytes(8, "little")


def fadt(firmware: int, described: int) -> bytes:
    """The fixed hardware (5.2.9). No SMI_CMD: the machine is always in ACPI mode."""
    body = fields(
        acpi.FADT,
        {
            "FIRMWARE_CTRL": firmware,
            "DSDT": described,
            "Preferred_PM_Profile": acpi.PROFILE_ENTERPRISE_SERVER,
            "SCI_INT": pc.SCI_IRQ,
            "PM1a_EVT_BLK": pc.PM1_EVENT,
            "PM1a_CNT_BLK": pc.PM1_CONTROL,
            "PM_TMR_BLK": pc.PM_TIMER,
            "PM1_EVT_LEN": 4,
            "PM1_CNT_LEN": 2,
            "PM_TMR_LEN": 4,
            "P_LVL2_LAT": acpi.NO_C2,
            "P_LVL3_LAT": acpi.NO_C3,
            "CENTURY": pc.CMOS_CENTURY,
            "IAPC_BOOT_ARCH": acpi.LEGACY_DEVICES | acpi.HAS_8042 | acpi.VGA_NOT_PRESENT,
            "Flags": acpi.WBINVD | acpi.PROC_C1 | acpi.SLP_BUTTON | acpi.FIX_RTC | acpi.RESET_REG_SUP,
            "RESET_REG": register(pc.RESET_CONTROL, 1, acpi.ACCESS_BYTE),
            "RESET_VALUE": RESET_VALUE,
            "FADT_Minor_Version": acpi.FADT_MINOR,
            "X_DSDT": described,
            "X_PM1a_EVT_BLK": register(pc.PM1_EVENT, 4, acpi.ACCESS_WORD),
            "X_PM1a_CNT_BLK": register(pc.PM1_CONTROL, 2, acpi.ACCESS_WORD),
            "X_PM_TMR_BLK": register(pc.PM_TIMER, 4, acpi.ACCESS_DWORD),
        },
    )
    return table(b"FACP", acpi.FADT_REVISION, body)


def madt(apic_ids: Sequence[int]) -> bytes:
    """CPUs and interrupt controllers (5.2.12). The PIT's line is at pin 2, and the SCI is a level."""
    body = REGIONS["lapic"].base.to_bytes(4, "little") + acpi.PCAT_COMPAT.to_bytes(4, "little")
    for index, apic_id in enumerate(apic_ids):
        if apic_id <= LAST_XAPIC_ID and index <= LAST_XAPIC_ID:
            body += entry(acpi.MADT_LAPIC, (index, 1), (apic_id, 1), (acpi.LAPIC_ENABLED, 4))
        else:
            body += entry(acpi.MADT_X2APIC, (0, 2), (apic_id, 4), (acpi.LAPIC_ENABLED, 4), (index, 4))
    body += entry(acpi.MADT_IOAPIC, (0, 2), (REGIONS["ioapic"].base, 4), (0, 4))
    body += entry(acpi.MADT_OVERRIDE, (0, 1), (pc.PIT_IRQ, 1), (pc.PIT_PIN, 4), (0, 2))
    body += entry(acpi.MADT_OVERRIDE, (0, 1), (pc.SCI_IRQ, 1), (pc.SCI_IRQ, 4), (acpi.ACTIVE_HIGH_LEVEL, 2))
    body += entry(acpi.MADT_LAPIC_NMI, (acpi.ALL_CPUS_8, 1), (0, 2), (1, 1))
    if any(apic_id > LAST_XAPIC_ID for apic_id in apic_ids):
        body += entry(acpi.MADT_X2APIC_NMI, (0, 2), (acpi.ALL_CPUS_32, 4), (1, 1), (0, 3))
    return table(b"APIC", acpi.MADT_REVISION, body)


def entry(kind: int, *values: tuple[int, int]) -> bytes:
    """An entry of the MADT: (value, size) of each field behind type and length."""
    body = b"".join(value.to_bytes(size, "little") for value, size in values)
    return bytes((kind, len(body) + 2)) + body


def dsdt(cpus: int, virtio: Sequence[VirtioPlace]) -> bytes:
    """Devices by name, with their ports, addresses and interrupts; and how to power off."""
    sleep = aml.name("\\_S5", aml.package(*[aml.integer(pc.SLP_TYP_S5)] * 4))
    devices = [
        *(_cpu(index) for index in range(cpus)),
        _pnp("COM1", acpi.PNP_SERIAL, aml.io(ports.COM1, ports.COM1_SIZE), aml.irq(pc.COM1_IRQ)),
        _pnp("RTC", acpi.PNP_RTC, aml.io(pc.RTC_INDEX, 2), aml.irq(pc.RTC_IRQ)),
        _pnp("KBD", acpi.PNP_KEYBOARD, aml.io(pc.I8042_DATA, 1), aml.io(pc.I8042_COMMAND, 1), aml.irq(pc.KEYBOARD_IRQ)),
        *(_virtio(index, place) for index, place in enumerate(virtio)),
    ]
    return table(b"DSDT", acpi.DSDT_REVISION, sleep + aml.scope("\\_SB", *devices))


def _cpu(index: int) -> bytes:
    return aml.device(
        f"C{index:03X}", aml.name("_HID", aml.string(acpi.ACPI_PROCESSOR)), aml.name("_UID", aml.integer(index))
    )


def _pnp(name: str, hid: str, *where: bytes) -> bytes:
    return aml.device(
        name,
        aml.name("_HID", aml.eisa_id(hid)),
        aml.name("_UID", aml.integer(1)),
        aml.name("_STA", aml.integer(acpi.STA_PRESENT)),
        aml.name("_CRS", aml.resources(*where)),
    )


def _virtio(index: int, place: VirtioPlace) -> bytes:
    where = aml.resources(aml.memory32(place.base, place.size), aml.interrupt(place.gsi))
    return aml.device(
        f"VR{index:02X}",
        aml.name("_HID", aml.string(acpi.VIRTIO_MMIO)),
        aml.name("_UID", aml.integer(index)),
        aml.name("_CCA", aml.integer(1)),
        aml.name("_CRS", where),
    )


def _up(at: int, align: int) -> int:
    return -(-at // align) * align
