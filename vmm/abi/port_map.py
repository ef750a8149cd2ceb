# SPDX-License-Identifier: GPL-2.0-or-later
"""Which I/O ports mean what on pyvmm's boards: first port, how many, whose. Numbers are those of the other tables.

`boards` names where one answers: own (pyvmm's), pc, testdev (a pc with what kvm-unit-tests ask of it). A row that lies
inside another's is the more exact one.
"""

from __future__ import annotations

from typing import NamedTuple

from vmm.abi import irq, pc, ports, testdev

ALL = ("own", "pc", "testdev")
PCS = ("pc", "testdev")


class PortRow(NamedTuple):
    """`asm` is the constant of assembly text that names the first port, where there is one."""

    first: int
    size: int
    name: str
    what: str
    boards: tuple[str, ...] = PCS
    asm: str = ""

    @property
    def last(self) -> int:
        """The last port of it."""
        return self.first + self.size - 1

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and self.first <= port <= self.last


_KVM = "answered by KVM itself where it is the interrupt controller"
PORTS = (
    PortRow(ports.DEBUG_CONSOLE, 1, "debug console", "one byte of text for each OUT, as in Bochs and QEMU", ALL,
            "DEBUG_CONSOLE"),
    PortRow(ports.EXIT, 1, "exit port", "OUT of EXIT_PASS, EXIT_FAIL or EXIT_SKIP ends the run", ("own",), "EXIT_PORT"),
    PortRow(ports.FAULT, 1, "fault port", "the default IDT gates report an exception here", ("own",), "FAULT_PORT"),
    PortRow(ports.HYPERCALL, 1, "hypercall port", "a #UD handler hands a hypercall over where the instruction never "
            "reaches KVM", ("own",), "HYPERCALL_PORT"),
    PortRow(ports.SYSCALL, 1, "syscall port", "the kernel of a payload hands a system call of its user program over",
            ("own",), "SYSCALL_PORT"),
    PortRow(ports.BIOS, 1, "BIOS port", "the interrupt services of 16-bit code are handed over here", ALL),
    PortRow(ports.COM1, ports.COM1_SIZE, "COM1", f"a 16550A serial port, interrupt {ports.COM1_IRQ}", ALL, "COM1"),
    PortRow(ports.DELAY, 1, "delay port", "a write costs time and does nothing; free for payloads", ALL, "DELAY_PORT"),
    PortRow(irq.PIC_MASTER_CMD, 2, "PIC", f"the first 8259A: command, then interrupt mask; {_KVM}", ALL,
            "PIC_MASTER_CMD"),
    PortRow(irq.PIC_SLAVE_CMD, 2, "PIC", f"the second 8259A: command, then interrupt mask; {_KVM}", ALL,
            "PIC_SLAVE_CMD"),
    *(PortRow(first, count, whose, f"edge or level for each interrupt line; {_KVM}", ALL)
      for first, count, whose in ports.PICS if "ELCR" in whose),
    *(PortRow(first, count, whose, "the 8254 timer: channels 0 to 2, then control; KVM may answer it", ALL)
      for first, count, whose in ports.PIT),
    PortRow(pc.PORT_61, 1, "port 0x61", "system control B: PIT channel 2, speaker, memory refresh", PCS, "PORT_61"),
    PortRow(pc.PORT_92, 1, "port 0x92", "system control A: fast A20, reset", PCS, "PORT_92"),
    PortRow(pc.I8042_DATA, 1, "8042 data", f"keyboard controller, interrupts {pc.KEYBOARD_IRQ} and {pc.MOUSE_IRQ}", PCS,
            "I8042_DATA"),
    PortRow(pc.I8042_COMMAND, 1, "8042 command", "keyboard controller: status when read, command when written", PCS,
            "I8042_COMMAND"),
    PortRow(pc.RTC_INDEX, 1, "RTC index", "which byte of the clock's memory; bit 7 masks NMIs", PCS, "RTC_INDEX"),
    PortRow(pc.RTC_DATA, 1, "RTC data", f"the byte: time, alarms, memory; interrupt {pc.RTC_IRQ}", PCS, "RTC_DATA"),
    PortRow(pc.RESET_CONTROL, 1, "reset control", "bit 2 rising resets the CPU, with bit 1 the whole system", PCS,
            "RESET_CONTROL"),
    PortRow(pc.PM1_EVENT, 4, "ACPI PM1 event", "status, then enable, two bytes each", PCS, "PM1_EVENT"),
    PortRow(pc.PM1_CONTROL, 2, "ACPI PM1 control", "sleep type, SLP_EN: how a guest powers off", PCS, "PM1_CONTROL"),
    PortRow(pc.PM_TIMER, 4, "ACPI PM timer", f"{pc.PM_TIMER_BITS} bits at {pc.PM_TIMER_HZ} Hz", PCS, "PM_TIMER"),
    *(PortRow(port, 2, "power-off port", f"a write of {value:#x} powers off, as in {whose}")
      for port, value, whose in pc.POWER_OFF_PORTS),
    PortRow(pc.SHUTDOWN_TEXT_PORT, 1, "shutdown port", f"the letters of {pc.SHUTDOWN_TEXT.decode()!r} power off, as "
            "in Bochs and QEMU before 2.0", PCS, "SHUTDOWN_TEXT_PORT"),
    PortRow(pc.DEBUG_EXIT, pc.DEBUG_EXIT_SIZE, "isa-debug-exit", "QEMU's: N written ends with status N << 1 | 1", PCS,
            "DEBUG_EXIT"),
    PortRow(testdev.TESTDEV_IO_PORT, testdev.TESTDEV_IO_SIZE, "test device", "a register of four bytes", ("testdev",)),
    PortRow(testdev.TESTDEV_FLUSH_PORT, testdev.TESTDEV_FLUSH_SIZE, "test device", "forget the page of this address",
            ("testdev",)),
    PortRow(testdev.TESTDEV_BYTE_PORT, 1, "test device", "a register of one byte", ("testdev",)),
    PortRow(testdev.TESTDEV_IRQ_PORTS, testdev.TESTDEV_IRQ_LINES, "test device", "the level of interrupt line port - "
            f"{testdev.TESTDEV_IRQ_PORTS:#x}", ("testdev",)),
    PortRow(testdev.BIOS_CFG_IOPORT, testdev.BIOS_CFG_PORTS, "fw_cfg", "QEMU's configuration: selector, then data",
            ("testdev",)),
    *(PortRow(first, count, whose, "a PC has it; here reads give all ones and writes do nothing")
      for first, count, whose in pc.QUIET_PORTS),
)  # fmt: skip


def at(port: int) -> list[PortRow]:
    """The rows that hold a port, the most exact first."""
    return sorted((row for row in PORTS if port in row), key=lambda row: row.size)
