# SPDX-License-Identifier: GPL-2.0-or-later
"""The targets that come with pyvmm, by name, with one line about each. Making one imports its module."""

from __future__ import annotations

import importlib

from vmm.base.names import unknown
from vmm.errors import UsageError
from vmm.fuzz.target import Target

# name: (module, class, what it is)
SHIPPED = {
    "uart": ("devices", "Uart", "the serial port: registers, a peer, its interrupt"),
    "ioapic": ("devices", "IoapicTarget", "the I/O APIC: registers, lines, ends of interrupts"),
    "virtio-rng": ("virtio", "Rng", "virtio registers and queues, a source of random bytes behind them"),
    "virtio-console": ("virtio", "Console", "the same with a console"),
    "virtio-blk": ("virtio", "Blk", "the same with a disk, as Python serves it"),
    "virtio-net": ("virtio", "Net", "the same with a network card, as Python serves it"),
    "image-elf": ("readers", "Elf", "a 64-bit ELF file with symbols and lines"),
    "image-elf32": ("readers", "Elf32", "a 32-bit ELF file"),
    "image-multiboot1": ("readers", "Multiboot1", "a multiboot kernel"),
    "image-multiboot2": ("readers", "Multiboot2", "a multiboot 2 kernel"),
    "image-pvh": ("readers", "Pvh", "a PVH kernel"),
    "image-bzimage": ("readers", "BzImage", "a Linux kernel"),
    "image-flat": ("readers", "Flat", "a boot sector, or code without a header"),
    "trace": ("readers", "Trace", "the reader of recorded runs"),
    "hypercalls": ("served", "Hypercalls", "the hypercall service, beside a machine (needs /dev/kvm)"),
    "gdb": ("served", "Gdb", "the packets of a gdb client, beside a machine (needs /dev/kvm)"),
}


def shipped(name: str) -> Target:
    """A new target.

    Raises:
        UsageError: there is none of that name.
        HostError: it needs /dev/kvm, which cannot be used.
    """
    if name not in SHIPPED:
        raise UsageError(
            unknown("target", name, SHIPPED), hint="`pyvmm fuzz --list`, or the file of a guest or a device"
        )
    module, kind, _ = SHIPPED[name]
    made: Target = getattr(importlib.import_module(f"vmm.fuzz.targets.{module}"), kind)()
    return made
