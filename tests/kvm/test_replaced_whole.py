# SPDX-License-Identifier: GPL-2.0-or-later
"""What KVM replaces as a whole (MSR filter, capabilities, traps) keeps what each of its users asked for."""

from __future__ import annotations

import pytest

from vmm import Machine
from vmm.kvm.vcpu import Watchpoint
from vmm.kvm.vm import MsrRange
from vmm.machine.ends import Why
from vmm.machine.extra.migration_control import (
    UNKNOWN,
    MigrationControl,
    exit_as_unknown,
    exit_by_filter,
    number,
)
from vmm.machine.run.handed_over import FILTERED

pytestmark = pytest.mark.kvm
MINE, STAR, LSTAR = 0x1234, 0xC000_0081, 0xC000_0082


def read(machine: Machine, msr: int) -> int | None:
    """RDMSR's EAX; None where it faults."""
    machine.load(f"mov ecx, {msr:#x}; rdmsr; hlt")
    stop = machine.run(timeout=10).stop
    return machine.regs.eax if stop.why is Why.HALT else None


@pytest.mark.parametrize("leave", [exit_by_filter, exit_as_unknown])
@pytest.mark.parametrize("first", [True, False])
def test_a_callback_for_an_msr_leaves_migration_control_to_its_owner(leave, first):
    with Machine() as machine:
        if first:
            machine.on_msr_read(MINE, lambda: 7)
        leave(machine.vm)
        MigrationControl(machine.platform)
        if not first:
            machine.on_msr_read(MINE, lambda: 7)
        assert (read(machine, number()), read(machine, MINE)) == (1, 7)


def test_a_filter_of_ones_own_and_a_callback_both_hold():
    with Machine() as machine:
        machine.on_msr_read(STAR - 1, lambda: 7)
        machine.on_msr_read(LSTAR, lambda: 8)  # one range with the first: STAR between them stays as it was
        assert read(machine, STAR) == 0
        machine.vm.set_msr_filter([MsrRange(STAR, (False,))])
        assert [read(machine, STAR + i) for i in (-1, 0, 1)] == [7, None, 8]
        machine.vm.set_msr_filter([MsrRange(STAR, (True,))], default_deny=True)
        machine.on_msr_read(MINE, lambda: 9)
        assert [read(machine, msr) for msr in (STAR - 1, STAR, LSTAR, LSTAR + 1, MINE)] == [7, 0, 8, None, 9]
        machine.vm.set_msr_filter([])
        assert [read(machine, msr) for msr in (STAR - 1, STAR, LSTAR, LSTAR + 1, MINE)] == [7, 0, 8, 0, 9]


def test_a_mask_that_is_set_anew_keeps_what_a_callback_needs():
    with Machine() as machine:
        machine.on_msr_read(MINE, lambda: 7)
        machine.vm.enable_cap("X86_USER_SPACE_MSR", UNKNOWN)
        assert machine.vm.enabled["X86_USER_SPACE_MSR"] == (FILTERED | UNKNOWN,)
        assert read(machine, MINE) == 7


def test_an_end_of_a_run_leaves_ones_own_breakpoints():
    """KVM_SET_GUEST_DEBUG."""
    with Machine() as machine:
        vcpu = machine.cpus[0].vcpu
        machine.load("nop; nop; nop; nop; hlt")
        places = [machine.program.base + i for i in range(5)]
        watched = (Watchpoint(0x8000),)
        vcpu.set_guest_debug(breakpoints=[places[1]], watchpoints=watched)
        stop = machine.run(until=places[3]).stop
        assert (stop.why, stop.exit.pc) == (Why.DEBUG, places[1])
        vcpu.set_guest_debug(breakpoints=[places[2]], watchpoints=watched)
        stop = machine.run(until=places[3]).stop
        assert (stop.why, stop.exit.pc) == (Why.DEBUG, places[2])
        assert machine.run(until=places[3]).stop.why is Why.REACHED
        assert machine.run().stop.why is Why.HALT
        assert (vcpu.debug.breakpoints, vcpu.debug.watchpoints) == ((places[2],), watched)
