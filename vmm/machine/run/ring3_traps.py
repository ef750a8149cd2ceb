# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether debug traps of ring 3 come to the VMM on this host: tried, once per process, on a machine of their own.

On a software-backed host the guest takes them itself (docs/hosts.md). Only who steps or waits in ring 3 imports this.
"""

from __future__ import annotations

from vmm.abi.ports import EXIT
from vmm.abi.x86 import PAGE
from vmm.asm.program import Program
from vmm.errors import MissingCapability
from vmm.kvm.exits import Debug
from vmm.machine.memory.layout import REGIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from vmm.kvm.system import Kvm
    from vmm.machine.whole import Make

CODE = bytes((0x90, 0x90, 0xE6, EXIT, 0xEB, 0xFE))  # nop; nop; out EXIT, al; jmp $
BASE = REGIONS["code"].base
SECOND = BASE + 1  # where both the breakpoint and the first step stop
NO_BREAKPOINTS = "breakpoints do not strike on this host"
_found: dict[str, bool] = {}


def breakpoint_strikes(kvm: Kvm, make: Make) -> bool:
    """Does an execution breakpoint of KVM_SET_GUEST_DEBUG exit in ring 3? `make` makes a machine."""
    return _strikes("breakpoint", kvm, make, breakpoints=[SECOND])


def require_breakpoints(kvm: Kvm, make: Make, doing: str) -> None:
    """Raises: MissingCapability, where they do not strike."""
    if not breakpoint_strikes(kvm, make):
        hint = "an OUT in the program, and a callback that calls stop(); `pyvmm docs debug#what-hosts-can-do`"
        raise MissingCapability(f"{doing}, and there {NO_BREAKPOINTS}", hint=hint)


def step_strikes(kvm: Kvm, make: Make) -> bool:
    """Does single-step exit in ring 3? `make` makes a machine."""
    return _strikes("step", kvm, make, singlestep=True)


def _strikes(name: str, kvm: Kvm, make: Make, **debug: Any) -> bool:
    if name not in _found:
        with make(kvm=kvm) as machine:
            program = Program(f"<{name} in ring 3>", BASE, CODE, {}, ())
            machine.load(program, ring=3, user=[(BASE, BASE + PAGE)], allowed_ports=[EXIT])
            machine.cpus[0].vcpu.set_guest_debug(**debug)
            exit = machine.run(timeout=10).stop.exit
            _found[name] = isinstance(exit, Debug) and exit.pc == SECOND
    return _found[name]
