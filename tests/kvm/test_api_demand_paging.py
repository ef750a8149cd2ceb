# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that the host supplies, on this host, and as a library: paged."""

from __future__ import annotations

import pytest

from guest_payloads.api import demand_paging
from vmm.debug.session import Session
from vmm.errors import GuestMemoryError, UsageError
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
def test_a_page_that_is_not_there_yet_is_an_error_and_no_wait_for_ever():
    """Nobody could supply it: we would wait with the GIL. Of an access over two pages, neither is touched."""
    text = "mov ebx, 0x40000000; mov rax, qword ptr [rbx + 0x1000]; hlt"
    with Machine() as m:
        m.load(text)
        with paged(m.memory, BASE, 4 * PAGE, lambda page: bytes([page]) * PAGE) as slot, Session(m) as session:
            slot.supply(1, bytes([7]) * PAGE)
            for refused in (
                lambda: m.memory.read(BASE + 2 * PAGE, 1), lambda: m.memory.read_u64(BASE + 2 * PAGE),
                lambda: m.memory.write(BASE + 2 * PAGE, b"x"), lambda: m.memory.write_u32(BASE + 2 * PAGE, 1),
                lambda: m.memory.read(BASE + 2 * PAGE - 4, 8), lambda: session.read(BASE + 2 * PAGE, 4),
            ):  # fmt: skip
                with pytest.raises(GuestMemoryError, match="the page at 0x40002000 is supplied on demand"):
                    refused()
            session.go()
            assert m.regs.rax == 0x0707070707070707
            assert m.memory.read(BASE + 2 * PAGE - 4, 4) == bytes([7]) * 4
            m.memory.write_u32(BASE + PAGE, 9)
            assert m.memory.read_u64(BASE + PAGE) == 0x0707070700000009
            assert slot.supplied == {1}
        assert m.memory.read(BASE, 3 * PAGE)[2 * PAGE :] == bytes(PAGE), "nobody holds it back any more"


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
