# SPDX-License-Identifier: GPL-2.0-or-later
"""Calling a function of the loaded program, as a C program would. It knows registers and a stack; it knows no test.

Source: System V ABI, AMD64, 3.2.2 and 3.2.3: arguments in RDI to R9, the result in RAX, and RSP + 8 a multiple of 16
where the function begins.
"""

from __future__ import annotations

from vmm.abi.ports import EXIT
from vmm.base.bits import MASK64
from vmm.errors import GuestError, UsageError
from vmm.machine.ends import Why
from vmm.machine.memory.layout import REGIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from vmm.machine.whole import Whole

ARGUMENTS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
LANDING = bytes((0xE6, EXIT, 0xF4))  # out EXIT, al; hlt
LANDING_AT = REGIONS["code"].end - 16


def call(machine: Whole, function: str | int, *args: int, timeout: float | None = None) -> int:
    """Call `function` (a symbol of the loaded program, or an address) on vCPU 0 in ring 0; RAX as it returned.

    Each call starts with fresh registers and an empty stack; memory stays as it is. A negative argument is passed in
    two's complement, the result is unsigned, 64 bits. `timeout` in seconds (default: the machine's own).

    Raises:
        UsageError: nothing is loaded, or what lies outside of pyvmm's own map; no such symbol, more than six arguments,
            or one that needs more than 64 bits.
        GuestError: it did not return; says how the guest ended and where: label, source line.
    """
    prepare(machine, function, args)
    vcpu = machine.cpus[0].vcpu
    stop = machine.run(timeout).stop
    vcpu.complete()
    regs = vcpu.get_regs()
    if stop.why is not Why.EXIT_PORT or regs.rip != LANDING_AT + 2:
        from vmm.machine.run.where_ended import where_ended

        where = where_ended(machine, stop, machine.cpus[0])
        raise GuestError(f"{function} did not return: {stop.text}" + (f"; {where}" if where else ""))
    return regs.rax


def prepare(machine: Whole, function: str | int, args: Sequence[int]) -> None:
    """All of a call but the run: vCPU 0 stands at the function's first instruction. A debugger goes on from there.

    Raises:
        UsageError: as `call`.
    """
    program = machine.program
    if program is None:
        raise UsageError(f"calling {function}: load a program first")
    if program.end > LANDING_AT >= program.base:
        raise UsageError(f"calling {function}: the program leaves no room for a return address to lead to")
    if len(args) > len(ARGUMENTS):
        raise UsageError(f"calling {function}: {len(args)} arguments, and registers take {len(ARGUMENTS)}")
    if not all(-(1 << 63) <= value <= MASK64 for value in args):
        raise UsageError(f"calling {function}: an argument does not fit in 64 bits")
    machine.start(0, function)
    machine.memory.write(LANDING_AT, LANDING)
    vcpu = machine.cpus[0].vcpu
    regs = vcpu.get_regs()
    regs.rdi = regs.rsi = 0
    for name, value in zip(ARGUMENTS, args, strict=False):
        setattr(regs, name, value & MASK64)
    regs.rsp -= 8
    machine.memory.write(regs.rsp, LANDING_AT.to_bytes(8, "little"))
    vcpu.set_regs(regs)
