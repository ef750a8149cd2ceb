# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine as the file that bench/floor.c loads (its struct guest), so that both run the same bytes."""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

from vmm.errors import UsageError
from vmm.machine.machine import Machine

MAGIC = 0x32726F6F6C66  # "floor2"
MAX_CPUID = 256
CPUID_ENTRY = 40


@dataclass(frozen=True)
class SetUp:
    """What the floor does with its VM beside memory and one vCPU; names and order of struct guest. 0: nothing."""

    msi_address: int = 0
    msi_data: int = 0
    stamp_port: int = 0
    console_port: int = 0
    ioeventfd_port: int = 0
    coalesced_port: int = 0
    denied_msr: int = 0
    touch_base: int = 0
    touch_size: int = 0


def image(machine: Machine, set_up: SetUp) -> bytes:
    """The file's bytes, from a machine that is loaded and has not run."""
    if machine.irqchip == "kernel" or len(machine.memory.slots) != 1:
        raise UsageError("the C floor knows split interrupt controllers or none, and one memslot")
    regs, sregs, cpuid = machine.runners[0].vcpu.raw_state()
    count = len(cpuid) // CPUID_ENTRY
    memory = machine.memory.read(0, machine.memory.size).rstrip(b"\0")
    rest = regs + sregs + struct.pack("<II", 0, 0) + cpuid.ljust(MAX_CPUID * CPUID_ENTRY, b"\0")
    words = [machine.irqchip == "split", *astuple(set_up)]
    offset = 8 * (5 + len(words)) + len(rest)
    memory += bytes(-len(memory) % 4096)
    head = struct.pack(f"<{5 + len(words)}Q", MAGIC, machine.memory.size, offset, len(memory), count, *words)
    return head + rest + memory
