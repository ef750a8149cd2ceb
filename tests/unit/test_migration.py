# SPDX-License-Identifier: GPL-2.0-or-later
"""MSR_KVM_MIGRATION_CONTROL by exits as values: what it takes, what it refuses, what it reads."""

from __future__ import annotations

import pytest

from vmm.kvm.exits import ReadMsr, WriteMsr
from vmm.machine.bus.platform import Platform
from vmm.machine.extra.migration_control import (
    UNKNOWN,
    MigrationControl,
    exit_as_unknown,
    exit_by_filter,
    number,
)
from vmm.machine.run.handed_over import FILTERED
from vmm.machine.run.handle import handle


@pytest.mark.parametrize("reason", [FILTERED, UNKNOWN])
def test_it_reads_what_was_written_and_refuses_reserved_bits(reason):
    platform = Platform()
    control = MigrationControl(platform)

    def read():
        return handle(ReadMsr(number(), reason), platform).reply

    def write(value):
        return handle(WriteMsr(number(), value, reason), platform).reply

    assert (read(), control.ready) == (1, True)
    assert (write(0), read(), control.ready) == (0, 0, False)
    for bad in (2, 3, 1 << 63):
        assert (write(bad), read()) == (None, 0), "refused, and nothing changes"
    assert (write(1), read(), control.ready) == (0, 1, True)


def test_an_encrypted_guest_starts_unready():
    platform = Platform()
    MigrationControl(platform, ready=False)
    assert handle(ReadMsr(number(), FILTERED), platform).reply == 0


def test_the_two_ways_out_of_kvm():
    class Vm:
        def __init__(self):
            self.caps, self.filters, self.needed = [], [], set()

        def require(self, name, what):
            self.needed.add(name)

        def enable_bits(self, *args):
            self.caps.append(args)

        def deny_msrs(self, reads, writes):
            self.filters.append((reads, writes))

    vm = Vm()
    exit_by_filter(vm)
    assert set(vm.caps) == {("X86_USER_SPACE_MSR", 4)}
    assert vm.filters == [([0x4B564D08], ()), ((), [0x4B564D08])], "reads, then writes"
    assert vm.needed == {"X86_USER_SPACE_MSR", "X86_MSR_FILTER"}
    vm = Vm()
    exit_as_unknown(vm)
    assert (vm.caps, vm.filters) == ([("X86_USER_SPACE_MSR", 2)], [])
