# SPDX-License-Identifier: GPL-2.0-or-later
"""`-cpu` as an edit of the CPUID that KVM offers. It makes no ioctl.

A model can only take away: a feature that KVM does not offer stays away, as in QEMU, and is said. Family, model and
stepping stay the host's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.abi import cpuid
from vmm.abi.qemu_cpus import BESIDE, MODELS, WHOLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.machine.x86.cpuid import CpuidModel
    from vmm.payload.kut.settings import CpuChoice

MAX_PHYS_BITS = 52


def editor(choice: CpuChoice, notes: list[str]) -> Callable[[CpuidModel], None] | None:
    """What edits the model, as Machine takes it; None for nothing. It adds to `notes` what KVM does not offer."""
    if choice.model in WHOLE and not (choice.features or choice.vendor or choice.phys_bits):
        return None
    return lambda model: _edit(model, choice, notes)


def _edit(model: CpuidModel, choice: CpuChoice, notes: list[str]) -> None:
    offered = {name for name, row in cpuid.features().items() if not row.is_kvm and model.has(name)}
    wanted = dict(choice.features)
    named = {row.name: on for name, on in wanted.items() if (row := cpuid.find(name)) is not None}
    if choice.model in MODELS:
        keep = MODELS[choice.model] | BESIDE | {name for name, on in named.items() if on}
        model.disable(*sorted(offered - keep))
    elif choice.model not in WHOLE:
        notes.append(f"-cpu {choice.model}: not known here, the guest sees what KVM offers")
    for name, on in wanted.items():
        row = cpuid.find(name)
        if row is None:
            notes.append(f"-cpu {'+' if on else '-'}{name}: no CPUID feature that is known here")
        elif not on:
            model.disable(row.name)  # also one that is not offered: what the guest has all the same is said (not_taken)
        elif not row.is_kvm and row.name not in offered:
            notes.append(f"-cpu +{name}: this KVM does not offer it")
    if choice.vendor:
        _set_vendor(model, choice.vendor)
    if choice.phys_bits:
        eax = model.register(0x80000008, 0, "eax")
        bits = min(choice.phys_bits, eax & 0xFF or MAX_PHYS_BITS)
        model.set_register(0x80000008, 0, "eax", eax & ~0xFF | bits)


def _set_vendor(model: CpuidModel, vendor: str) -> None:
    """Twelve letters, in EBX, EDX and ECX of leaf 0; AMD's CPUs repeat them in 0x80000000."""
    parts = [int.from_bytes(vendor[at : at + 4].encode("latin-1", "replace"), "little") for at in (0, 4, 8)]
    for leaf in (0, 0x80000000):
        for register, value in zip(("ebx", "edx", "ecx"), parts, strict=True):
            if leaf == 0 or model.register(leaf, 0, register):
                model.set_register(leaf, 0, register, value)
