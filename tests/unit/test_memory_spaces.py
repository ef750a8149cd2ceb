# SPDX-License-Identifier: GPL-2.0-or-later
"""Memslots where KVM has a second address space, for SMM: every change is made in both, or in none. The VM is a record
of calls, so that both kinds of KVM are tested on any host.
"""

import pytest

from vmm.errors import KvmCallError
from vmm.kvm import dirty
from vmm.machine.extra.dirty_pages import DirtyLog
from vmm.machine.memory.slots import GuestMemory

PAGE = 4096
SMM = 1 << 16


class Vm:
    """KVM_SET_USER_MEMORY_REGION as a table: slot -> (gpa, size, log_dirty). `refused` are slots it does not take."""

    def __init__(self, spaces: int) -> None:
        self.spaces, self.slots, self.refused = spaces, {}, set()

    def address_spaces(self):
        return self.spaces

    def set_user_memory_region(self, slot, gpa, mapping, *, offset=0, size=0, readonly=False, log_dirty=False):
        if mapping is None:
            del self.slots[slot]
        elif slot in self.refused:
            raise KvmCallError("KVM_SET_USER_MEMORY_REGION", 22, "setting a memslot")
        else:
            self.slots[slot] = (gpa, size, log_dirty)


@pytest.mark.parametrize("spaces", [0, 1])
def test_one_space_has_one_slot(spaces):
    vm = Vm(spaces)
    memory = GuestMemory(vm)
    assert memory.add(0, PAGE).numbers == (0,)
    assert set(vm.slots) == {0}


def test_every_change_is_made_in_both_spaces():
    vm = Vm(2)
    memory = GuestMemory(vm)
    first, second = memory.add(0, PAGE), memory.add(PAGE, 2 * PAGE)
    assert vm.slots == {number: row for base in (0, SMM) for number, row in (
        (base, (0, PAGE, False)), (base + 1, (PAGE, 2 * PAGE, False)))}  # fmt: skip
    second = memory.log_dirty(memory.move(second, 4 * PAGE), True)
    assert vm.slots[1] == vm.slots[SMM + 1] == (4 * PAGE, 2 * PAGE, True)
    second = memory.resize(second, PAGE)
    assert vm.slots[1] == vm.slots[SMM + 1] == (4 * PAGE, PAGE, True)
    memory.remove(first)
    assert set(vm.slots) == {1, SMM + 1}


def test_what_one_space_refuses_is_in_none():
    vm = Vm(2)
    memory = GuestMemory(vm)
    slot = memory.add(0, PAGE)
    vm.refused = {SMM, SMM + 1}
    with pytest.raises(KvmCallError):
        memory.add(PAGE, PAGE)
    with pytest.raises(KvmCallError):
        memory.move(slot, 8 * PAGE)
    assert vm.slots == {0: (0, PAGE, False), SMM: (0, PAGE, False)}
    assert memory.slots == (slot,)


def test_the_dirty_log_is_that_of_both(monkeypatch):
    logs = {0: {1, 2}, SMM: {2, 3}}
    cleared = []
    monkeypatch.setattr(dirty, "get_dirty_log", lambda vm, slot, pages: logs[slot])
    monkeypatch.setattr(dirty, "clear_dirty_log", lambda vm, slot, pages, first, count: cleared.append((slot, pages)))
    vm = Vm(2)
    log = DirtyLog(vm, GuestMemory(vm).add(0, 4 * PAGE, log_dirty=True))
    assert log.read() == {1, 2, 3}
    log.clear({2})
    assert cleared == [(0, {2}), (SMM, {2})]
