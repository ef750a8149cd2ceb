# SPDX-License-Identifier: GPL-2.0-or-later
"""Who sees exits: several at once, none in another's place, and the lean way stays open unless one needs it closed."""

from __future__ import annotations

import pytest

from vmm import Machine
from vmm.errors import UsageError
from vmm.kvm.exits import Halt, PortOut
from vmm.machine.ends import Stop, Why

pytestmark = pytest.mark.kvm
TWO_WRITES = "out 0x80, al; out 0x81, al; hlt"


def test_several_observe_and_an_assignment_takes_only_its_own_place():
    with Machine() as machine:
        seen = []
        first, second = ((lambda runner, exit, name=name: seen.append((name, type(exit)))) for name in "ab")
        machine.observe(first, PortOut)
        machine.on_exit = second
        machine.on_exit = lambda runner, exit: seen.append(("c", type(exit)))
        machine.load(TWO_WRITES)
        machine.run()
        assert seen == [("a", PortOut), ("c", PortOut)] * 2 + [("c", Halt)]
        machine.on_exit = None
        machine.unobserve(first)
        with pytest.raises(UsageError, match="observes no exits"):
            machine.unobserve(first)
        machine.load(TWO_WRITES)
        machine.run()
        assert len(seen) == 5


@pytest.mark.parametrize(("kinds", "lean"), [((Halt,), True), ((Halt, PortOut), False), ((), False)])
def test_the_lean_way_is_off_for_those_alone_who_look_at_what_it_serves(kinds, lean):
    with Machine() as machine:
        seen, open_ = [], []
        machine.observe(lambda runner, exit: seen.append(type(exit)), *kinds)
        machine.on_port_write(0x80, lambda value: open_.append(machine.all_cpus.lane is not None))
        machine.load(TWO_WRITES)
        machine.run()
        assert (open_, seen) == ([lean], [PortOut] * 2 * (not lean) + [Halt])


@pytest.mark.parametrize("fast", [True, False])
def test_an_observer_that_a_hook_adds_sees_the_very_next_exit(fast):
    with Machine(fast=fast) as machine:
        seen = []
        machine.on_port_write(0x80, lambda value: machine.observe(lambda runner, exit: seen.append(exit), PortOut))
        machine.load(TWO_WRITES)
        machine.run()
        assert [exit.port for exit in seen] == [0x81]


def test_a_debug_hook_stays_when_a_run_has_an_end_of_its_own():
    with Machine() as machine:
        machine.load("nop; nop; hlt")
        at = machine.program.base + 1
        machine.platform.on_debug.append(lambda exit: Stop(Why.STOPPED, "mine", exit))
        assert machine.run(until=at).stop.text == "mine"
        machine.platform.on_debug.pop(0)
        machine.load("nop; nop; hlt")
        assert machine.run(until=at).stop.why is Why.REACHED
