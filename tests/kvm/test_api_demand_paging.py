# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that the host supplies, on this host, and as a library: paged."""

from __future__ import annotations

import pytest

from guest_payloads.api import demand_paging
from vmm.debug.session import Session
from vmm.errors import UsageError
from vmm.kvm import userfaultfd
from vmm.kvm.userfaultfd import NoUserfaultfd, Userfaultfd
from vmm.machine.machine import Machine
from vmm.machine.memory.on_demand import paged
from vmm.payload.catalog import find
from vmm.payload.proof.prove import Row, prove
from vmm.payload.proof.verdict import Verdict

BASE, PAGE = 0x40000000, 0x1000


@pytest.fixture
def permitted() -> None:
    try:
        Userfaultfd.open().close()
    except NoUserfaultfd as error:
        pytest.skip(str(error))


def run() -> Row:
    (row,) = prove(find("demand_paging"))
    return row


@pytest.mark.usefixtures("permitted")
def test_works():
    row = run()
    assert row.verdict is Verdict.WORKS, row.finding.reason


@pytest.mark.usefixtures("permitted")
def test_pages_that_are_not_held_back_are_broken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Userfaultfd, "register", lambda uffd, address, size: None)
    assert run().verdict is Verdict.BROKEN


@pytest.mark.usefixtures("permitted")
def test_another_page_than_was_asked_for_is_broken(monkeypatch: pytest.MonkeyPatch):
    real = demand_paging.source
    monkeypatch.setattr(demand_paging, "source", lambda page: real(page + 1))
    assert run().verdict is Verdict.BROKEN


def test_without_permission_it_is_unproven(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_arguments: object) -> int:
        raise PermissionError(1, "no")

    monkeypatch.setattr(userfaultfd, "by_device", refuse)
    monkeypatch.setattr(userfaultfd, "by_call", refuse)
    row = run()
    assert row.verdict is Verdict.UNPROVEN
    assert "userfaultfd" in row.finding.reason


@pytest.mark.usefixtures("permitted")
def test_what_a_source_raises_is_raised_at_the_end_and_the_guest_goes_on_with_zeros():
    def fail(page: int) -> bytes:
        raise ValueError(f"no page {page}")

    with Machine() as m:
        m.load("mov ebx, 0x40000000; mov rax, qword ptr [rbx]; hlt")
        with pytest.raises(ValueError, match="no page 0"), paged(m.memory, BASE, PAGE, fail):
            m.run()
        assert m.regs.rax == 0


@pytest.mark.usefixtures("permitted")
def test_half_a_page_is_refused():
    with Machine() as m:
        m.load("mov ebx, 0x40000000; mov rax, qword ptr [rbx]; hlt")
        with pytest.raises(UsageError, match="whole pages"), paged(m.memory, BASE, PAGE, lambda page: b"half"):
            m.run()


@pytest.mark.usefixtures("permitted")
def test_the_host_may_ask_too():
    with Machine() as m, paged(m.memory, BASE, 4 * PAGE, lambda page: bytes([page]) * PAGE) as slot:
        slot.supply(1, b"x" * PAGE)
        assert m.memory.read(BASE + PAGE, 2) == b"xx"
        slot.release()
        assert m.memory.read(BASE + 2 * PAGE, 2) == bytes(2)
        assert slot.asked == []


@pytest.mark.usefixtures("permitted")
def test_the_state_is_not_saved_whose_pages_nobody_could_supply_and_a_debugger_does_without():
    """Who reads such a page waits for it with the GIL, which the one who supplies it needs: it would be for ever."""
    with Machine() as m, paged(m.memory, BASE, PAGE, lambda page: bytes(PAGE)):
        m.load("hlt")
        with pytest.raises(UsageError, match="supplied on demand"):
            m.save()
        with Session(m) as session:
            assert session.step(1).why == "ended"
            with pytest.raises(UsageError):
                session.back(1)
