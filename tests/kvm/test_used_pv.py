# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest has switched on of KVM's paravirtual MSRs, read from outside."""

from __future__ import annotations

import pytest

from vmm.abi.structs import KVM_STEAL_TIME
from vmm.errors import VmmError
from vmm.machine.machine import Machine
from vmm.payload.pv_used import used

STEAL, CLOCK = 0x4B564D03, 0x4B564D01
PAGE = 0x100000


def test_nothing_is_on_before_a_guest_says_so() -> None:
    with Machine() as machine:
        assert used(machine, machine.cpus[0]) == {}


def test_what_is_on_has_its_name_and_its_page() -> None:
    with Machine(memory="4M") as machine:
        vcpu = machine.cpus[0].vcpu
        assert vcpu.set_msrs({STEAL: PAGE | 1, CLOCK: PAGE + 0x1000 | 1}) == 2
        page = KVM_STEAL_TIME.pack(steal=1234567, preempted=1)
        machine.memory.write(PAGE, page)
        assert used(machine, machine.cpus[0]) == {
            "MSR_KVM_STEAL_TIME": PAGE | 1,
            "MSR_KVM_SYSTEM_TIME_NEW": PAGE + 0x1000 | 1,
            "steal": 1234567,
            "preempted": 1,
        }


def test_a_page_that_is_no_memory_is_left_out() -> None:
    with Machine(memory="4M") as machine:
        machine.cpus[0].vcpu.set_msrs({STEAL: 0x4000_0001})
        found = used(machine, machine.cpus[0])
        with pytest.raises(VmmError):
            machine.memory.read(0x4000_0000, 64)
        assert found == {"MSR_KVM_STEAL_TIME": 0x4000_0001}
