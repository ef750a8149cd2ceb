# SPDX-License-Identifier: GPL-2.0-or-later
"""Vector, x87 and debug registers and MSRs of a vCPU that stands still, as text. What KVM keeps of them is asked of
gdb's table (debug/gdb/registers.py) and of KVM; it knows no pane.

Source of the words: Intel SDM vol. 3B, 18.2 (debug registers).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from vmm.abi.msrs import msr_name
from vmm.debug.gdb import registers
from vmm.screen.scene import OtherLook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vmm.machine.machine import Machine
    from vmm.machine.run.cpu import Cpu

ON = ("executed", "written", "port", "accessed")
SIZES = (1, 2, 8, 4)
DR6 = ((13, "BD"), (14, "BS"), (15, "BT"))


def others(machine: Machine, cpu: Cpu, kind: str) -> list[OtherLook]:
    """Those of one kind of scene.REGISTER_KINDS; nothing of it is marked as changed."""
    match kind:
        case "vector":
            return list(_vector(_values(cpu, (registers.SSE, registers.AVX))))
        case "x87":
            return [OtherLook(name, value[::-1].hex()) for name, value in _values(cpu, (registers.CORE,)).items()
                    if name.startswith("st") or name in registers.FPU_CONTROL]  # fmt: skip
        case "debug":
            return list(_debug({name: int.from_bytes(value, "little") for name, value in
                                _values(cpu, (registers.DEBUG,)).items()}))  # fmt: skip
        case "msrs":
            return list(_msrs(machine, cpu))
        case _:
            return []


def _values(cpu: Cpu, features: tuple[str, ...]) -> dict[str, bytes]:
    rows = [each for each in registers.layout(cpu) if each.feature in features]
    return {row.name: value for row, value in zip(rows, registers.read(cpu, rows), strict=True)}


def _vector(values: dict[str, bytes]) -> Iterator[OtherLook]:
    """XMM as one number, and its lanes as float; of AVX the whole YMM."""
    for number in range(16):
        low, high = values[f"xmm{number}"], values.get(f"ymm{number}h")
        lanes = ", ".join(f"{each:.6g}" for each in struct.unpack("<4f", low)) if any(low) else ""
        if high is None:
            yield OtherLook(f"xmm{number}", low[::-1].hex(), lanes)
        else:
            yield OtherLook(f"ymm{number}", f"{high[::-1].hex()}_{low[::-1].hex()}", lanes)
    yield OtherLook("mxcsr", values["mxcsr"][::-1].hex())


def _debug(values: dict[str, int]) -> Iterator[OtherLook]:
    control = values["dr7"]
    for number in range(4):
        enabled = control >> 2 * number & 3
        how = control >> 16 + 4 * number & 15
        size = SIZES[how >> 2]
        words = f"when {ON[how & 3]}, {size} byte{'s' * (size > 1)}" if enabled else "off"
        yield OtherLook(f"dr{number}", f"{values[f'dr{number}']:016x}", words)
    struck = [f"B{number}" for number in range(4) if values["dr6"] >> number & 1]
    yield OtherLook(
        "dr6", f"{values['dr6']:x}", " ".join(struck + [name for bit, name in DR6 if values["dr6"] >> bit & 1])
    )
    yield OtherLook("dr7", f"{control:x}", "GD" if control >> 13 & 1 else "")


def _msrs(machine: Machine, cpu: Cpu) -> Iterator[OtherLook]:
    """Those that KVM counts to a vCPU's state and reads; one by one, as it stops at the first that it refuses."""
    for index in sorted(machine.kvm.get_msr_index_list()):
        found = cpu.vcpu.get_msrs([index])
        if index in found:
            yield OtherLook(f"{index:#x}", f"{found[index]:016x}", msr_name(index).removeprefix("MSR_"))
