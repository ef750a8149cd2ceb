# SPDX-License-Identifier: GPL-2.0-or-later
"""Is ring 0 of a guest native or emulated? Measured: a known number of instructions against KVM's own count.

A guest runs a loop with one exit at its end. On hardware KVM emulates next to none of it; a software-backed KVM
emulates every instruction, and its statistic `insn_emulation` says so. A second figure, time per turn of the loop in
ring 0 over that in ring 3 (native everywhere), shows what it costs. It knows nothing of the host's CPU or modules.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vmm.abi import ports
from vmm.abi.x86 import PAGE
from vmm.errors import HostError
from vmm.kvm.system import Kvm
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.machine.x86 import boot

STATISTIC = "insn_emulation"
TIME_LIMIT = 20.0  # of one run, in seconds: it ends a hang, and nothing that a slow host does
COUNTED_TURNS = 1000
NATIVE_TURNS = 4_000_000  # about a millisecond: far above the cost of entering and leaving a guest
REPEATS = 3  # the least of them is taken: what disturbs a run only makes it longer
LONG_LOOP_BELOW = 100  # so many times slower than ring 3, the long loop still takes a tenth of a second
EMULATED_SLOWDOWN = 20.0  # emulation costs hundreds of times more, native code once


@dataclass(frozen=True, slots=True)
class Ring0:
    """`kind`: native, emulated, mixed (a part of the instructions), or unknown.

    `instructions` is what the guest ran in ring 0, `emulated` how many of those KVM says it emulated (None without the
    statistic), `slowdown` the time of a turn in ring 0 over that in ring 3 (None where it could not be measured).
    """

    kind: str
    instructions: int
    emulated: int | None
    slowdown: float | None
    evidence: str


def program(turns: int) -> bytes:
    """mov ecx, turns; dec ecx; jnz; xor eax, eax; out EXIT, al. Works in any ring and needs no assembler."""
    return b"\xb9" + struct.pack("<I", turns) + b"\xff\xc9\x75\xfc\x31\xc0\xe6" + bytes((ports.EXIT,))


def instructions(turns: int) -> int:
    """How many instructions `program` executes."""
    return 1 + 2 * turns + 2


def measure(kvm: Kvm) -> Ring0:
    """Run the loop in ring 0 and ring 3, in well under a second on any host.

    Raises:
        HostError: no VM can be made, or even this guest does not run to its end. Then KVM is of no use here.
    """
    with Machine(kvm=kvm) as machine:
        emulated, slowdown = _count(machine), _slowdown(machine)
    return judge(instructions(COUNTED_TURNS), emulated, slowdown)


def count(kvm: Kvm) -> Ring0:
    """By KVM's own count alone, in milliseconds; as `measure` where this KVM does not count.

    Raises:
        HostError: as `measure`.
    """
    with Machine(kvm=kvm) as machine:
        emulated = _count(machine)
    return measure(kvm) if emulated is None else judge(instructions(COUNTED_TURNS), emulated, None)


def judge(executed: int, emulated: int | None, slowdown: float | None) -> Ring0:
    """The kind, from the figures alone. A few emulated instructions (the OUT, a first fault) are no emulated ring."""
    pace = (
        ""
        if slowdown is None
        else f"; a turn of the loop takes {slowdown:.{0 if slowdown >= 10 else 2}f} times as long as in ring 3"
    )
    if emulated is None:
        if slowdown is None:
            return Ring0(
                "unknown", executed, None, None, f"this KVM has no statistic {STATISTIC}, and no run was timed"
            )
        kind = "emulated" if slowdown >= EMULATED_SLOWDOWN else "native"
        return Ring0(kind, executed, None, slowdown, f"by time only, for want of the statistic {STATISTIC}{pace}")
    share = emulated / executed
    kind = "emulated" if share >= 0.9 else "native" if share <= 0.1 else "mixed"
    return Ring0(
        kind, executed, emulated, slowdown, f"{STATISTIC} rose by {emulated} over {executed} instructions{pace}"
    )


def _run(machine: Machine, turns: int, ring: int) -> float | None:
    """Seconds of one run, or None if it did not reach its OUT in time."""
    code = layout.REGIONS["code"].base
    machine.memory.write(code, program(turns))
    machine.start(0, code, ring=ring)
    result = machine.run(TIME_LIMIT)
    machine.cpus[0].vcpu.complete()
    return result.wall if result.stop.why is Why.EXIT_PORT and result.stop.code == 0 else None


def _count(machine: Machine) -> int | None:
    """The rise of the statistic over one run in ring 0; None where this KVM does not count."""
    code = layout.REGIONS["code"].base
    boot.write_tables(machine.memory, 1, user=((code, code + PAGE),), allowed_ports=(ports.EXIT,))
    _proves_usable(machine)
    if not machine.kvm.check_extension("BINARY_STATS_FD"):
        return None
    with machine.cpus[0].vcpu.get_stats() as stats:
        before = stats.get(STATISTIC)
        if before is None or _run(machine, COUNTED_TURNS, 0) is None:
            return None
        return stats[STATISTIC] - before


def _proves_usable(machine: Machine) -> None:
    code = layout.REGIONS["code"].base
    machine.memory.write(code, program(1))
    machine.start(0, code)
    stop = machine.run(TIME_LIMIT).stop
    machine.cpus[0].vcpu.complete()
    if stop.why is not Why.EXIT_PORT or stop.code != 0:
        raise HostError(
            f"a VM can be made, but a guest of {instructions(1)} instructions does not run to its end: {stop.text}",
            hint="`dmesg | grep -i kvm` for what the kernel says",
        )


def _slowdown(machine: Machine) -> float | None:
    """A short loop first, for it may be emulated; one that is nearly as fast as ring 3 is measured by a long one."""
    fast = _per_turn(machine, NATIVE_TURNS, 3)
    if fast is None:
        return None
    slow = _per_turn(machine, COUNTED_TURNS, 0)
    if slow is None or slow < LONG_LOOP_BELOW * fast:
        slow = _per_turn(machine, NATIVE_TURNS, 0) or slow
    return None if slow is None else slow / fast


def _per_turn(machine: Machine, turns: int, ring: int) -> float | None:
    """Seconds per turn of the loop, entering and leaving the guest taken off."""
    empty, full = _least(machine, 1, ring), _least(machine, turns, ring)
    if empty is None or full is None or full <= empty:
        return None
    return (full - empty) / turns


def _least(machine: Machine, turns: int, ring: int) -> float | None:
    times = []
    for _ in range(REPEATS):
        time = _run(machine, turns, ring)
        if time is None:  # once over its limit, it would be so again
            return None
        times.append(time)
    return min(times)
