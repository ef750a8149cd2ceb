# SPDX-License-Identifier: GPL-2.0-or-later
"""The breakpoints, watchpoints and catches of a machine: made, counted, removed. What they are made of while the guest
runs is breakpoints.py's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vmm.debug import conditions, places
from vmm.debug.abilities import Abilities, measure
from vmm.debug.looking import Looking
from vmm.debug.ring3_breaks import MISSING, traps
from vmm.debug.slow_watch import BY_STEPS
from vmm.debug.values import BREAKPOINT, CATCH, WATCHPOINT, Break
from vmm.debug.wanted import catcher
from vmm.errors import MissingCapability, UsageError
from vmm.kvm.vcpu import HW_BREAKPOINTS, Watchpoint
from vmm.observe.postmortem import readable

if TYPE_CHECKING:
    import ast

    from vmm.asm.program import Program
    from vmm.debug.legs import Cause
    from vmm.debug.values import Condition
    from vmm.kvm.exits import Exit
    from vmm.machine.machine import Machine

KINDS = ("write", "read", "access")


class Points(Looking):
    """`breaks` are all that there are."""

    def __init__(self, machine: Machine, program: Program | None) -> None:
        super().__init__(machine, program)
        self.breaks: list[Break] = []
        self._numbers = 0
        self._compiled: dict[str, ast.expr] = {}

    @property
    def can(self) -> Abilities:
        """What this host lets a debugger do; measured by the first who asks."""
        return measure(self.machine)

    def break_at(
        self,
        where: int | str,
        *,
        when: Condition | None = None,
        hardware: bool = False,
        hits: int = 0,
        temporary: bool = False,
    ) -> Break:
        """Stop before the instruction at `where`: a label, `label+8`, an address, `file.asm:7`. `when` is a condition
        (conditions.py) or a callable(session); the first `hits` hits do not stop. `hardware` insists on a debug
        register; otherwise one is taken while there is room, and INT3 in guest memory, out of sight whenever the
        machine stands still, where there is none. Where neither strikes on this host, the guest goes there by
        single-step (`how` is "step", and `doubts` says so).

        Raises:
            MissingCapability: no breakpoint strikes on this host, and single-step does not exit.
            UsageError: no such place, or a condition that is none.
        """
        address = places.address_of(self.program, where)
        what = where if isinstance(where, str) and not where.startswith(("0x", "*")) else f"{address:#x}"
        made = Break(0, BREAKPOINT, str(what), address, hardware=hardware, when=when, ignore=hits, temporary=temporary)
        if not self._strikes(made):
            if not self.can.step_ring0:
                raise MissingCapability(f"a breakpoint at {what}: KVM takes it on this host, and it never strikes",
                                        hint="an OUT in the program, and catch(port=...)")  # fmt: skip
            made.how = BY_STEPS
        return self._add(made)

    def _strikes(self, made: Break) -> bool:
        """In ring 0, by a debug register that is free, or by INT3?"""
        can = self.can
        if can.int3_ring0 and not (made.hardware and not can.hardware):
            return True
        taken = {each.address for each in self.breaks if each.kind in (BREAKPOINT, WATCHPOINT) and each.how != BY_STEPS}
        return can.hardware and (made.hardware or len(taken | {made.address}) <= HW_BREAKPOINTS)

    def watch(
        self,
        where: int | str,
        size: int = 8,
        kind: str = "write",
        *,
        when: Condition | None = None,
        hits: int = 0,
    ) -> Break:
        """Stop after an instruction that writes ("write"), or reads or writes ("access") one of `size` bytes there. x86
        has no watchpoint for reads alone: "read" stops where an access left the bytes as they were. The first `hits`
        hits do not stop.

        Raises:
            MissingCapability: watchpoints do not strike on this host, which is measured, and single-step does not exit
                either. Where it does they are made by it (slow_watch.py; `how` is "step"): "write" sees only what
                changes, "read" and "access" what an instruction's operands say.
            UsageError: 1, 2, 4 or 8 bytes, aligned, is what a debug register can watch, and there are four.
        """
        if kind not in KINDS:
            raise UsageError(f"watching {kind!r}: choose write, read or access")
        address = places.address_of(self.program, where)
        _ = Watchpoint(address, size, kind != "write").control
        if not self.can.watchpoints:
            return self._watch_slowly(where, address, size, kind, when, hits)
        what = f"{where if isinstance(where, str) else hex(address)}, {size} bytes, {kind}"
        return self._add(Break(0, WATCHPOINT, what, address, size, kind, True, when, hits))

    def _watch_slowly(
        self, where: int | str, address: int, size: int, kind: str,
        when: Condition | None, hits: int,
    ) -> Break:  # fmt: skip
        """By steps, where no debug register strikes."""
        if not self.can.step_ring0:
            text = f"a watchpoint for {kind}: KVM takes it on this host, and it never strikes, nor does single-step"
            raise MissingCapability(text, hint="a breakpoint where the variable is used")
        seen = "changes" if kind == "write" else kind
        what = f"{where if isinstance(where, str) else hex(address)}, {size} bytes, {seen}, by single-step"
        return self._add(Break(0, WATCHPOINT, what, address, size, kind, False, when, hits, how=BY_STEPS))

    def catch(
        self,
        *,
        exit: str | type[Exit] | None = None,
        port: int | tuple[int, int] | None = None,
        mmio: int | tuple[int, int] | None = None,
        msr: int | None = None,
        when: Condition | None = None,
        hits: int = 0,
    ) -> Break:
        """Stop at an exit before it is served: of a kind (a class of vmm.kvm.exits or its name), at a `port` or an
        `mmio` address (or a range: first and last), of the MSR with the number `msr`. The first `hits` hits do not
        stop. What KVM serves itself causes no exit, and is not caught.

        Raises:
            UsageError: not exactly one of them, or no such kind.
        """
        what, catches = catcher(self.machine, exit=exit, port=port, mmio=mmio, msr=msr)
        return self._add(Break(0, CATCH, what, when=when, ignore=hits, catches=catches, how="exit"))

    def _add(self, made: Break) -> Break:
        if isinstance(made.when, str):
            self._compiled[made.when] = conditions.parse(made.when)
        elif made.when is not None and not callable(made.when):
            raise UsageError(f"when={made.when!r}: give a condition as text, or a callable")
        self._numbers += 1
        made.number = self._numbers
        self.breaks.append(made)
        return made

    def remove(self, made: Break | int) -> None:
        """UsageError: there is no such breakpoint."""
        found = [each for each in self.breaks if each is made or each.number == made]
        if not found:
            raise UsageError(
                f"no breakpoint {made}: there are {', '.join(str(b.number) for b in self.breaks) or 'none'}"
            )
        self.breaks.remove(found[0])

    @property
    def too_many(self) -> str:
        """More than the debug registers take, in words; else nothing."""
        registers = [each for each in self.breaks if each.how != BY_STEPS]
        places = {each.address for each in registers if each.enabled and each.hardware and each.kind == BREAKPOINT}
        watched = {(each.address, each.size) for each in registers if each.kind == WATCHPOINT}
        many = len(places) + len(watched)
        return (
            f"{many} hardware breakpoints and watchpoints, and the CPU has {HW_BREAKPOINTS}"
            if many > HW_BREAKPOINTS
            else ""
        )

    def doubts(self, made: Break) -> list[str]:
        """What this host may keep a breakpoint from, as sentences."""
        if made.how == BY_STEPS and made.kind == BREAKPOINT:
            return [f"{made}: no breakpoint strikes on this host; the guest is stepped there, which is slow"]
        if made.how == BY_STEPS:
            sees = "sees changes alone" if made.access == "write" else "sees what an instruction's operands say"
            return [f"{made}: debug registers never strike on this host; it is slow, and {sees}"]
        if made.kind != BREAKPOINT or self.can.breakpoints_ring3:
            return []
        if not self.walk(made.address).user or any(traps(self.machine, cpu) for cpu in self.machine.cpus):
            return []
        return [f"{made.address:#x} is open to ring 3, {MISSING}"]

    def _look_at_reads(self) -> None:
        """The guest goes on: what is at each watchpoint for reads now?"""
        for each in self.breaks:
            if each.kind == WATCHPOINT and each.access == "read":
                each.left = self._bytes_at(each)

    def _bytes_at(self, each: Break) -> bytes:
        return readable(self.machine, self._cpu().vcpu.look("sregs"), each.address, each.size)

    def _struck(self, cause: Cause) -> list[Break]:
        if cause.catch is not None:
            return [cause.catch]
        kind, at = cause.kind, cause.address
        return [each for each in self.breaks if each.kind == kind and each.address == at and each.enabled]

    def _holds(self, each: Break) -> bool:
        if each.when is None:
            return True
        if isinstance(each.when, str):
            return bool(conditions.evaluate(self._compiled[each.when], self))
        return bool(each.when(self))

    def _counts(self, each: Break) -> bool:
        """It struck: does that stop the guest?"""
        if each.kind == WATCHPOINT and each.access == "read" and each.how != BY_STEPS:
            before, each.left = each.left, self._bytes_at(each)
            if each.left != before:
                return False  # a write: no debug register is for reads alone
        if not self._holds(each):
            return False
        each.hits += 1
        return each.hits > each.ignore
