# SPDX-License-Identifier: GPL-2.0-or-later
"""What an instruction changed of a vCPU's registers, by name. It compares two states; it reads neither."""

from __future__ import annotations

from typing import TypeAlias

from vmm.abi.x86 import RFLAGS
from vmm.kvm.state import Regs, Sregs

Change: TypeAlias = tuple[str, int, int]
"""(register, before, now)"""

CONTROL = ("cr0", "cr2", "cr3", "cr4", "cr8", "efer", "apic_base")
SELECTORS = ("cs", "ss", "ds", "es", "fs", "gs", "tr", "ldt")
BASES = ("fs", "gs")
STEPS = RFLAGS.TF | RFLAGS.RF
"""Bits that a step has set, or may have."""


def values(regs: Regs, sregs: Sregs) -> dict[str, int]:
    """All registers that a trace compares; RIP is not one of them, each line has its own."""
    found: dict[str, int] = {name: getattr(regs, name) for name in Regs.__match_args__ if name != "rip"}
    found["rflags"] &= ~STEPS
    found |= {name: getattr(sregs, name) for name in CONTROL}
    found |= {name: getattr(sregs, name).selector for name in SELECTORS}
    found |= {f"{name}_base": getattr(sregs, name).base for name in BASES}
    found |= {f"{name}_base": getattr(sregs, name).base for name in ("gdt", "idt")}
    return found


def changes(before: tuple[Regs, Sregs], now: tuple[Regs, Sregs]) -> tuple[Change, ...]:
    """Each register that differs, in the order of `values`."""
    old, new = values(*before), values(*now)
    return tuple((name, value, new[name]) for name, value in old.items() if new[name] != value)
