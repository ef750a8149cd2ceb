# SPDX-License-Identifier: GPL-2.0-or-later
"""What the devices of a machine hold, register by register, as text. Looking changes nothing: no device is read as a
guest would read it, none is made that no guest has touched, and no queue is served.

A device of our own has its registers as plain attributes, and those are shown by their names; what means more than its
number (a line of flags, a redirection entry, a queue) has a row of words of its own. KVM's own controllers are asked
by KVM_GET_LAPIC, KVM_GET_IRQCHIP and KVM_GET_PIT2.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vmm.abi import apic, irq, virtio
from vmm.abi import serial_reg as uart
from vmm.base.bits import describe
from vmm.errors import VmmError
from vmm.kvm import irqchip
from vmm.machine.bus.claims import Claim
from vmm.machine.devices.on_demand import Asleep
from vmm.machine.devices.quiet import Quiet
from vmm.machine.machine import Machine
from vmm.machine.run.cpu import Cpu

Rows = list[tuple[str, str]]
SHOWN = 16  # bytes of a buffer, and of entries of a table
UART_FLAGS = {
    "ier": "UART_IER_", "mcr": "UART_MCR_", "lcr": "UART_LCR_", "lines": "UART_MSR_", "deltas": "UART_MSR_",
}  # fmt: skip
LAPIC_SHOWN = ("ID", "TASKPRI", "PROCPRI", "LDR", "SPIV", "ESR", "LVTT", "LVT0", "LVT1", "TMICT", "TMCCT", "TDCR")


def devices(machine: Machine) -> list[tuple[str, str, Rows]]:
    """(name, where it answers, its registers) of each device: those on the buses by address, then KVM's own."""
    found: dict[int, tuple[str, list[str], Any]] = {}
    for bus, word in ((machine.platform.ports, "port"), (machine.platform.mmio, "mmio")):
        claims: list[Claim[Any]] = sorted({*bus.readers, *bus.writers}, key=lambda claim: claim.base)
        for claim in claims:
            last = f"-{claim.stop - 1:#x}" if claim.stop - claim.base > 1 else ""
            place = f"{word} {claim.base:#x}{last}"
            row = found.setdefault(id(claim.owner), (claim.name, [], claim.owner))
            if place not in row[1]:
                row[1].append(place)
    there = [row for row in found.values() if not isinstance(row[2], Quiet)]  # a device that is not there has none
    rows = [(name, ", ".join(places), registers(owner)) for name, places, owner in there]
    for index, word_at in machine.lane.finish.msr_words.items():
        rows.append(("word", f"MSR {index:#x}", [("value", f"{word_at.value:#x}")]))
    return rows + list(_of_kvm(machine))


def registers(device: Any) -> Rows:
    """(name, value) of each register of a device of ours; of one that is no device of ours, what it is called."""
    if isinstance(device, Asleep):
        return registers(device.made) if device.made is not None else [("", "not touched yet")]
    if hasattr(device, "queues") and hasattr(device, "driver_features"):
        return _virtio(device)
    if callable(device) and not hasattr(device, "read"):
        return [("callback", getattr(device, "__qualname__", repr(device)))]
    if hasattr(device, "word"):
        word = device.word
        return [("value", f"{word.value:#x}"), ("accesses", f"{word.reads} reads, {word.writes} writes")]
    if hasattr(device, "_chip"):
        return _plain(device._chip)
    whole = getattr(getattr(device, "get_state", None), "__self__", device)  # of what has several claims, one speaks
    if whole is not device:
        return _plain(whole)
    rows = [("entries", text) for text in _redirections(device.entries)] if hasattr(device, "entries") else []
    return _plain(device) + rows + _parts(device)


def _plain(device: Any, *, flags: bool = True) -> Rows:
    """Its attributes that are numbers, switches, or bytes, by their names."""
    rows = []
    for name, value in getattr(device, "__dict__", {}).items():
        shown = name.lstrip("_")
        if shown in ("size", "limit", "writable", "name"):  # what it was made as, no register
            continue
        if isinstance(value, bool):
            rows.append((shown, "1" if value else "0"))
        elif isinstance(value, int):
            words = _words(shown, value) if flags and type(device).__name__ == "Uart16550A" else ""
            rows.append((shown, f"{value:#x}{f'  {words}' if words else ''}"))
        elif isinstance(value, (bytes, bytearray)):
            rows.append((shown, _bytes(value)))
        elif isinstance(value, dict) and value and all(isinstance(each, int) for each in value.values()):
            rows.append((shown, ", ".join(f"{each} of {key}" for key, each in value.items())))
    return rows


def _parts(device: Any) -> Rows:
    """What it is made of: the counters of a timer, the receiver of a serial port."""
    rows: Rows = []
    for number, counter in enumerate(getattr(device, "counters", ())):
        words = " ".join(f"{name}={value}" for name, value in _plain(counter, flags=False) if name != "low_byte")
        rows.append((f"counter {number}", words))
    receiver = getattr(device, "_rx", None)
    if receiver is not None:
        rows.append(("receiver", f"{len(receiver)} to be read, {receiver.waiting} still to come"))
    return rows


def _words(name: str, value: int) -> str:
    """The flags of a register of the serial port."""
    prefix = UART_FLAGS.get(name)
    if prefix is None or not value:
        return ""
    rows = [(bit, each.removeprefix(prefix)) for each, bit in vars(uart).items() if each.startswith(prefix)]
    return describe(value, rows)


def _bytes(data: bytes | bytearray) -> str:
    """The first of them that are not all zero, where there are many."""
    used = len(bytes(data).rstrip(b"\0"))
    if len(data) > SHOWN and not used:
        return f"{len(data)} bytes, all zero"
    return bytes(data[:SHOWN]).hex(" ") + (" ..." if used > SHOWN else "")


def _redirections(entries: Any) -> Iterator[str]:
    """The pins of an I/O APIC that are not as after a reset."""
    for pin, entry in enumerate(entries):
        if entry == irq.RTE_MASKED or not entry:
            continue
        mode = apic.DELIVERY_MODES.get(entry & irq.RTE_DELIVERY_MODE, "?")
        words = [
            f"vector {entry & irq.RTE_VECTOR:#x}", mode, "level" if entry & irq.RTE_LEVEL else "edge",
            f"to {entry >> irq.RTE_DESTINATION_SHIFT:#x}",
        ]  # fmt: skip
        words += ["logical"] * bool(entry & irq.RTE_LOGICAL) + ["masked"] * bool(entry & irq.RTE_MASKED)
        words += ["remote IRR"] * bool(entry & irq.RTE_REMOTE_IRR)
        yield f"pin {pin}: {', '.join(words)}"


def _virtio(device: Any) -> Rows:
    prefix = "VIRTIO_CONFIG_S_"
    rows = [(bit, name.removeprefix(prefix)) for name, bit in vars(virtio).items() if name.startswith(prefix)]
    counts = ", ".join(f"{count} {name}" for name, count in device.counts.items()) or "none"
    found: Rows = [
        ("status", describe(device.status, rows)),
        ("features", f"{device.driver_features:#x} taken of {device.features:#x}"),
        ("interrupt", f"{device.interrupt_status:#x}"),
        ("counts", counts),
    ]
    if device.trouble:
        found.append(("trouble", device.trouble))
    for number, queue in enumerate(device.queues):
        text = "not ready"
        if queue.ready:
            text = (
                f"{queue.size} entries, desc {queue.desc:#x} avail {queue.avail:#x} used {queue.used:#x}, "
                f"next avail {queue.last_avail}, next used {queue.used_idx}"
            )
        found.append((f"queue {number}", text))
    return found


def _of_kvm(machine: Machine) -> Iterator[tuple[str, str, Rows]]:
    """The controllers that KVM plays itself."""
    if machine.irqchip == "none":
        return
    try:
        for cpu in machine.cpus:
            yield f"LAPIC of vCPU {cpu.index}", f"KVM, at {apic.DEFAULT_BASE:#x}", _lapic(cpu)
        if machine.irqchip == "kernel":
            for name, slave in (("8259A master", False), ("8259A slave", True)):
                chip = irqchip.get_pic(machine.vm, slave=slave)
                rows = [(each, f"{getattr(chip, each):#x}") for each in ("irr", "imr", "isr", "irq_base", "elcr")]
                yield name, "KVM", rows
            table = irqchip.get_ioapic(machine.vm)
            yield "IOAPIC", f"KVM, at {apic.IOAPIC_BASE:#x}", [("entries", text) for text in _redirections(table)]
        if machine.vm.has_pit:
            counts = irqchip.get_pit_counts(machine.vm)
            yield "8254 PIT", "KVM", [(f"counter {number}", f"{count:#x}") for number, count in enumerate(counts)]
    except VmmError as error:
        yield "interrupt controllers", "KVM", [("", error.text)]


def _lapic(cpu: Cpu) -> Rows:
    lapic = cpu.lapic
    rows = [(name, f"{lapic[name]:#x}") for name in LAPIC_SHOWN if lapic[name] or name in ("ID", "SPIV")]
    for name, vectors in (("IRR", lapic.irr), ("ISR", lapic.isr), ("TMR", lapic.tmr)):
        if vectors:
            rows.append((name, " ".join(f"{vector:#x}" for vector in vectors)))
    return rows
