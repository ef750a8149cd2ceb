# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine's state as text that another process can take: all but its memory, and what the host must be for it.

A text of Python's literals (numbers, strings, bytes, tuples, lists, dicts), read by ast.literal_eval: nothing that
comes from a file or a socket is ever run. It knows hosts and shapes; it knows neither files (snapshot_file.py) nor
sockets (migration.py).
"""

from __future__ import annotations

import ast
import struct
from typing import TYPE_CHECKING, Any

from vmm.abi.caps import CAPS
from vmm.abi.msrs import msr_name
from vmm.errors import UsageError
from vmm.kvm.system import Kvm
from vmm.kvm.vcpu import Vcpu

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vmm.asm.program import Program
    from vmm.machine.whole import Whole

ENTRY = struct.Struct("<7I12x")  # struct kvm_cpuid_entry2
MOVING = {(1, 0): (0, 0, 1 << 27, 0), (7, 0): (0, 0, 1 << 4, 0), (0xD, 0): (0, ~0, 0, 0), (0xD, 1): (0, ~0, 0, 0)}
"""What of CPUID follows CR4 and XCR0 as the guest runs (OSXSAVE, OSPKE, sizes of the XSAVE area): (leaf, subleaf) ->
bits of EAX to EDX. Intel SDM vol. 2A, CPUID."""
SHAPE = ("memory", "cpus", "board", "irqchip", "strict")
Frozen = dict[str, Any]


class AnotherHost(UsageError):
    """The state needs what this host does not have, or not so."""


def host_of(kvm: Kvm) -> dict[str, Any]:
    """What a host must have in common with this one: values of capabilities by name, MSRs that KVM lists."""
    values = {row.name: kvm.check_extension(row.name) for row in CAPS}
    return {"capabilities": {name: value for name, value in values.items() if value}, "msrs": kvm.get_msr_index_list()}


def cpuid_of(vcpu: Vcpu) -> dict[tuple[int, int], tuple[int, ...]]:
    """(leaf, subleaf) -> EAX to EDX as the vCPU has them, without what moves as the guest runs."""
    found = {}
    for leaf, subleaf, _, *registers in ENTRY.iter_unpack(vcpu.raw_state()[2]):
        masks = MOVING.get((leaf, subleaf), (0, 0, 0, 0))
        found[leaf, subleaf] = tuple(value & ~mask for value, mask in zip(registers, masks, strict=True))
    return found


def frozen(
    machine: Whole,
    shape: Mapping[str, Any],
    parts: Mapping[str, bytes],
    devices: Mapping[str, Any],
    slots: Iterable[tuple[int, int]],
    started: Iterable[int],
) -> Frozen:
    """All of it as one value, for `text_of`. `slots` are (guest-physical address, bytes) of memory that is written."""
    program = machine.program
    return {
        "host": host_of(machine.kvm),
        "cpuid": [cpuid_of(cpu.vcpu) for cpu in machine.cpus],
        "shape": {name: shape[name] for name in SHAPE} | {"irqchip": machine.irqchip},
        "parts": dict(parts),
        "devices": dict(devices),
        "slots": list(slots),
        "started": list(started),
        "program": None if program is None else (program.name, program.base, program.code, dict(program.symbols)),
    }


def text_of(value: object) -> bytes:
    """As bytes.

    Raises:
        UsageError: a device has a state that is no literal.
    """
    text = repr(value)
    try:
        same = ast.literal_eval(text) == value
    except (ValueError, SyntaxError):
        same = False
    if not same:
        devices = value.get("devices", {}) if isinstance(value, dict) else {}
        wrong = [place for place, state in devices.items() if not _is_literal(state)]
        raise UsageError(
            f"no file can hold the state of {', '.join(wrong) or 'this machine'}: "
            "it is made of more than numbers, text and bytes"
        )
    return text.encode()


def _is_literal(value: object) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except (ValueError, SyntaxError):
        return False


def value_of(text: bytes, what: str) -> Any:
    """What `text_of` had.

    Raises:
        UsageError: it is none.
    """
    try:
        return ast.literal_eval(text.decode())
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise UsageError(f"{what} is nothing that pyvmm wrote") from error


def check_host(state: Frozen, kvm: Kvm) -> None:
    """Raises AnotherHost: what the host of the state had is not so here; one line says the first thing that differs."""
    there, here = state["host"], host_of(kvm)
    for name in sorted(there["capabilities"].keys() | here["capabilities"].keys()):
        values = there["capabilities"].get(name, 0), here["capabilities"].get(name, 0)
        if values[0] != values[1]:
            raise AnotherHost(
                f"this state is of another host: KVM_CAP_{name} is {values[0]} there, and {values[1]} here"
            )
    for only, where in (
        (set(there["msrs"]) - set(here["msrs"]), "there"),
        (set(here["msrs"]) - set(there["msrs"]), "here"),
    ):
        if only:
            raise AnotherHost(f"this state is of another host: KVM lists the MSR {msr_name(min(only))} {where} alone")


def check_cpuid(state: Frozen, machine: Whole) -> None:
    """Raises AnotherHost: the vCPUs do not have the CPUID that those of the state had."""
    for number, (then, cpu) in enumerate(zip(state["cpuid"], machine.cpus, strict=True)):
        now = cpuid_of(cpu.vcpu)
        for leaf, subleaf in sorted(then.keys() | now.keys()):
            values = then.get((leaf, subleaf)), now.get((leaf, subleaf))
            if values[0] != values[1]:
                shown = [" ".join(f"{word:08x}" for word in each) if each else "nothing" for each in values]
                raise AnotherHost(
                    f"this state is of another host: CPUID {leaf:#x}.{subleaf} of vCPU {number} is {shown[0]} "
                    f"there, and {shown[1]} here",
                    hint="the same CPU; `cpuid=` as it was for the machine of the state",
                )


def program_of(state: Frozen) -> Program | None:
    """The program that was loaded: bytes and symbols, without its lines."""
    if state["program"] is None:
        return None
    from vmm.asm.program import Program

    name, base, code, symbols = state["program"]
    return Program(name, base, code, symbols, ())
