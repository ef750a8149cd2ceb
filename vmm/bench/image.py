# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine as the file that bench/floor.c loads (its struct guest), so that both run the same bytes."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

from vmm.abi.x86 import PAGE
from vmm.errors import UsageError
from vmm.machine.machine import Machine
from vmm.machine.run.cpu import Cpu

MAGIC = 0x34726F6F6C66  # "floor4"
IRQCHIPS = {"none": 0, "split": 1, "kernel": 2}
MAX_CPUS = 2
MAX_CPUID = 256
CPUID_ENTRY = 40


@dataclass(frozen=True)
class SetUp:
    """What the floor does with its VM beside memory and vCPUs; names and order of struct guest. 0: nothing."""

    msi_address: int = 0
    msi_data: int = 0
    stamp_port: int = 0
    console_port: int = 0
    ioeventfd_port: int = 0
    ioeventfd_address: int = 0
    answer_address: int = 0
    coalesced_port: int = 0
    denied_msr: int = 0
    exit_hypercalls: int = 0
    touch_base: int = 0
    touch_size: int = 0
    serial_port: int = 0
    serial_gsi: int = 0


def image(machine: Machine, set_up: SetUp) -> bytes:
    """The file's bytes, from a machine that is loaded and has not run."""
    cpus = len(machine.cpus)
    if len(machine.memory.slots) != 1 or cpus > MAX_CPUS:
        raise UsageError(f"the C floor knows one memslot, and {MAX_CPUS} vCPUs")
    vcpus = [_vcpu(cpu) for cpu in machine.cpus]
    states = b"".join(vcpus).ljust(MAX_CPUS * len(vcpus[0]), b"\0")
    memory = machine.memory.read(0, machine.memory.size).rstrip(b"\0")
    words = [IRQCHIPS[machine.irqchip], *astuple(set_up)]
    offset = 8 * (5 + len(words)) + len(states)
    memory += bytes(-len(memory) % PAGE)
    head = struct.pack(f"<{5 + len(words)}Q", MAGIC, machine.memory.size, offset, len(memory), cpus, *words)
    return head + states + memory


def _vcpu(cpu: Cpu) -> bytes:
    """Its struct cpu."""
    regs, sregs, cpuid = cpu.vcpu.raw_state()
    head = struct.pack("<II", len(cpuid) // CPUID_ENTRY, 0)
    return regs + sregs + head + cpuid.ljust(MAX_CPUID * CPUID_ENTRY, b"\0")
