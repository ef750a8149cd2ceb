# SPDX-License-Identifier: GPL-2.0-or-later
"""What a debugger can do on this host, each measured by a guest of two instructions, once a process. Never assumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmm.abi.ports import EXIT
from vmm.abi.x86 import PAGE
from vmm.asm.program import Program
from vmm.debug.values import INT3
from vmm.kvm.exits import Debug, InternalError
from vmm.kvm.vcpu import Watchpoint
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS
from vmm.machine.run.ring3_traps import breakpoint_strikes, step_strikes

if TYPE_CHECKING:
    from typing import Any

    from vmm.kvm.system import Kvm

BASE = REGIONS["code"].base
DATA = REGIONS["user"].base
STORE = bytes((0x88, 0x04, 0x25)) + DATA.to_bytes(4, "little")  # mov [DATA], al
CODE = bytes((0x90, 0x90)) + STORE + bytes((0xE6, EXIT, 0xEB, 0xFE))  # nop; nop; ...; out EXIT, al; jmp $
SECOND, AFTER_STORE = BASE + 1, BASE + 2 + len(STORE)
_found: dict[str, bool] = {}
_all: list[Abilities] = []


@dataclass(frozen=True)
class Abilities:
    """`hardware` and `watchpoints` are those of ring 0; `int3_ring0` says that INT3 can be a breakpoint there, by its
    debug exit or because KVM gives up at it. What ring 3 cannot do, the guest would take itself.
    """

    step_ring0: bool
    step_ring3: bool
    breakpoints_ring3: bool
    hardware: bool
    watchpoints: bool
    watchpoints_ring3: bool
    int3_ring0: bool
    int3_ring3: bool

    @property
    def missing(self) -> list[str]:
        """What this host cannot do, as sentences."""
        rows = (
            (self.step_ring0, "single-step does not exit in ring 0"),
            (self.step_ring3, "single-step does not exit in ring 3: the guest would take the trap itself"),
            (self.hardware, "hardware breakpoints do not strike in ring 0"),
            (self.breakpoints_ring3, "hardware breakpoints do not strike in ring 3"),
            (self.watchpoints, "watchpoints do not strike in ring 0"),
            (self.watchpoints_ring3, "watchpoints do not strike in ring 3"),
            (self.int3_ring0, "INT3 is no breakpoint in ring 0"),
            (self.int3_ring3, "INT3 is no breakpoint in ring 3: the guest would take it itself"),
        )
        return [text for has, text in rows if not has]


def measure(machine: Machine) -> Abilities:
    """What this machine's /dev/kvm can do."""
    if not _all:
        _all.append(_measure(machine.kvm))
    return _all[0]


def _measure(kvm: Kvm) -> Abilities:
    watched = {"watchpoints": [Watchpoint(DATA, 1)]}
    return Abilities(
        step_ring0=_strikes("step", kvm, 0, SECOND, singlestep=True),
        step_ring3=step_strikes(kvm, Machine),
        breakpoints_ring3=breakpoint_strikes(kvm, Machine),
        hardware=_strikes("breakpoint", kvm, 0, SECOND, breakpoints=[SECOND]),
        watchpoints=_strikes("watchpoint", kvm, 0, AFTER_STORE, **watched),
        watchpoints_ring3=_strikes("watchpoint", kvm, 3, AFTER_STORE, **watched),
        int3_ring0=_strikes("int3", kvm, 0, SECOND, software=True),
        int3_ring3=_strikes("int3", kvm, 3, SECOND, software=True),
    )


def _strikes(name: str, kvm: Kvm, ring: int, at: int, **debug: Any) -> bool:
    name = f"{name} in ring {ring}"
    if name not in _found:
        with Machine(kvm=kvm) as machine:
            program = Program(f"<{name}>", BASE, CODE, {}, ())
            user = [(BASE, BASE + PAGE), (DATA, DATA + PAGE)]
            machine.load(program, ring=ring, user=user if ring else (), allowed_ports=[EXIT])
            vcpu = machine.cpus[0].vcpu
            vcpu.set_guest_debug(**debug)
            if debug.get("software"):
                machine.memory.write(SECOND, INT3)
            exit = machine.run(timeout=10).stop.exit
            gave_up = isinstance(exit, InternalError) and not ring and vcpu.get_regs().rip == at
            _found[name] = (isinstance(exit, Debug) and exit.pc == at) or (gave_up and "software" in debug)
    return _found[name]
