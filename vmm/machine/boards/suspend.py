# SPDX-License-Identifier: GPL-2.0-or-later
"""ACPI S3: vCPU 0 asleep, and awake again at FACS's waking vector. It knows no event that wakes: who sees one calls.

No vCPU waits in the host. In the page below 1 MiB vCPU 0 is put into HLT with interrupts off; to wake it is an NMI,
and the handler of that, in real mode, goes on at the waking vector, as firmware does. Source: ACPI 6.5, 5.2.10 (FACS,
Firmware Waking Vector): real mode, CS and IP from the vector's address.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmm.abi import acpi
from vmm.abi.apic import DM_NMI, SPIV_APIC_ENABLED, msi_address, msi_data
from vmm.kvm import state
from vmm.machine.x86 import modes
from vmm.machine.x86.lapic import OFFSETS

if TYPE_CHECKING:
    from vmm.machine.boards.board import Tables
    from vmm.machine.whole import Whole

PAGE_BASE = 0xFF000  # the last of the BIOS area: our tables are far below
SEGMENT = PAGE_BASE >> 4
NMI_VECTOR = 2
SLEEP, IDT_OPERAND, WAKE, STACK = 0x400, 0x410, 0x420, 0xF00  # offsets in the page, behind a table of vectors
REAL_MODE_VECTORS = 0x3FF  # IDTR's limit


def facs_in(tables: Tables) -> int:
    """The address of the FACS, 0 where there is none."""
    return next((base for base, data in tables.segments if data[:4] == acpi.FACS_SIGNATURE), 0)


def waking_code(vector: int) -> bytes:
    """16-bit code: DS and ES to 0, IDTR to real mode's usual, NMIs on, and on to the vector."""
    segment, offset = vector >> 4, vector & 0xF
    return (
        b"\x31\xc0\x8e\xd8\x8e\xc0"  # xor ax, ax; mov ds, ax; mov es, ax
        + b"\x2e\x0f\x01\x1e" + struct.pack("<H", IDT_OPERAND)  # lidt cs:[IDT_OPERAND]
        + b"\x68\x02\x00" + b"\x68" + struct.pack("<H", segment) + b"\x68" + struct.pack("<H", offset) + b"\xcf"
    )  # fmt: skip


def fall_asleep(machine: Whole, facs: int) -> None:
    """On the thread of vCPU 0, in the exit by which it asked for it."""
    vector = machine.memory.read_u32(facs + acpi.FACS_WAKING_VECTOR)
    memory = machine.memory
    memory.write(PAGE_BASE + 4 * NMI_VECTOR, struct.pack("<HH", WAKE, SEGMENT))
    memory.write(PAGE_BASE + SLEEP, b"\xf4\xeb\xfd")  # hlt; and again
    memory.write(PAGE_BASE + IDT_OPERAND, struct.pack("<HI", REAL_MODE_VECTORS, 0))
    memory.write(PAGE_BASE + WAKE, waking_code(vector & 0xFFFFF))
    vcpu = machine.cpus[0].vcpu
    modes.enter(vcpu, "real", SLEEP, base=PAGE_BASE, data_base=PAGE_BASE, registers={"rsp": STACK})
    sregs = vcpu.get_sregs()
    sregs.idt = state.Table(PAGE_BASE, REAL_MODE_VECTORS)
    vcpu.set_sregs(sregs)
    lapic = bytearray(vcpu.get_lapic())  # firmware leaves it enabled; else nothing could wake it
    at = OFFSETS["SPIV"]
    lapic[at : at + 4] = (int.from_bytes(lapic[at : at + 4], "little") | SPIV_APIC_ENABLED).to_bytes(4, "little")
    vcpu.set_lapic(bytes(lapic))


def wake(machine: Whole) -> None:
    """From any thread."""
    machine.vm.signal_msi(msi_address(machine.cpus[0].vcpu.id), msi_data(0, DM_NMI))
