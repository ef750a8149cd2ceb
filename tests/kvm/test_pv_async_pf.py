# SPDX-License-Identifier: GPL-2.0-or-later
"""Asynchronous page faults on the device: the proof, its refusals, and sabotage that must not pass for a proof."""

from __future__ import annotations

import time

import pytest

from guest_payloads.pv import async_pf
from guest_payloads.pv.async_pf import CONTENT, Evidence, judge, observe
from tests.left_behind import files_before, open_files
from vmm.abi.x86 import PAGE
from vmm.errors import UsageError
from vmm.kvm import userfaultfd
from vmm.kvm.userfaultfd import NoUserfaultfd, Userfaultfd
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.held_back import held_back
from vmm.payload.proof.lab import Lab, supported
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict, broken_refusals

NAMES = ("ASYNC_PF", "ASYNC_PF_INT")


@pytest.fixture(autouse=True)
def _possible() -> None:
    if not all(supported().has(name) for name in NAMES):
        pytest.skip("this KVM offers no asynchronous page faults with interrupts")
    try:
        Userfaultfd.open().close()
    except NoUserfaultfd as error:
        pytest.skip(str(error))


def rows(*, mask: tuple[str, ...] = (), enforce: bool = False, **params: int) -> dict[str, Verdict]:
    made = prove(find("async_pf"), Options(mask=mask, params=params), enforce=enforce, refusals=False)
    return {row.name: row.verdict for row in made}


def seen(**params: int) -> Evidence:
    with Lab(find("async_pf")).guest(params=params) as guest:
        return observe(guest)


def test_both_work() -> None:
    for row in prove(find("async_pf")):
        assert row.verdict is Verdict.WORKS, row.finding.reason
        assert row.offered
        assert not broken_refusals(list(row.refusals))
        kinds = {each.kind for each in row.refusals}
        assert {"masked", "enforced", "control", "reserved", "argument"} <= kinds


def test_the_numbers_can_be_checked_by_hand() -> None:
    found = seen()
    assert found.asked == found.fetched == found.faults == found.readies == 2
    assert (found.token_a & 0xFFF, found.token_a >> 12 >= 1) == (0, True)
    assert (found.loaded_a, found.loaded_b) == CONTENT
    assert found.early == 0
    assert found.progress == found.turns == 1000


def test_progress_is_counted_while_the_page_is_missing() -> None:
    assert seen(turns=12345).progress == 12345


@pytest.mark.sabotage
def test_without_acknowledgement_the_second_never_comes() -> None:
    found = async_pf.look(Lab(find("async_pf"), Options(params={"ack": 0})))
    assert (found.held, found.readies, found.ready_b) == (1, 1, 0)
    assert found.ready_a == found.token_a
    assert found.loaded_b == CONTENT[1]  # though its page was there
    assert judge(found)["ASYNC_PF_INT"].verdict is Verdict.BROKEN


def test_a_page_that_is_there_raises_nothing() -> None:
    """The other side of the proof: it is the missing page that makes the difference."""
    with Lab(find("async_pf")).guest() as guest:
        pages = [bytes([number]) * PAGE for number in (1, 2)]
        with held_back(guest, guest.params["pages"], pages) as pager:
            pager.told |= {0, 1}
            for page in (0, 1):
                pager._fetch(page)
            guest.run()
        assert (guest["faults"], guest["loaded_a"]) == (0, 0x0101010101010101)


# Sabotage ---------------------------------------------------------------------------------------------------------


def test_without_the_userfaultfds_reply_nothing_works_and_it_ends() -> None:
    begin = time.monotonic()
    found = rows(reply=0)
    took = time.monotonic() - begin
    assert set(found.values()) == {Verdict.UNPROVEN}
    assert took < 3  # 0.45 s on an idle host; a loaded one gets its time


def test_a_vcpu_that_sleeps_for_a_page_that_never_comes_is_woken() -> None:
    """With interrupts off it can tell nobody; the pager's patience ends before the run's time limit does."""
    assert set(rows(reply=0, interrupts=0).values()) == {Verdict.UNPROVEN}


@pytest.mark.sabotage
@pytest.mark.parametrize("msr", [0x4B564D00, 0x4B564D01, 0x4B564D03, 0x4B564D0F], ids=hex)
def test_with_a_wrong_msr_nothing_works(msr: int) -> None:
    assert Verdict.WORKS not in rows(msr=msr).values()


@pytest.mark.parametrize("enforce", [False, True])
@pytest.mark.parametrize(
    ("mask", "verdicts"),
    [
        (NAMES, ("absent",)),
        (("ASYNC_PF",), ("absent", "inert")),
        (("ASYNC_PF_INT",), ("absent", "inert")),
    ],
    ids=str,
)
def test_masked(mask: tuple[str, ...], verdicts: tuple[str, ...], enforce: bool) -> None:
    assert sorted(set(rows(mask=mask, enforce=enforce).values())) == list(verdicts)


@pytest.mark.sabotage
def test_without_its_flags_it_is_no_proof() -> None:
    assert rows(control=1)["ASYNC_PF"] is Verdict.BROKEN
    assert rows(interrupts=0)["ASYNC_PF"] is Verdict.BROKEN


def test_without_permission_it_is_unproven(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(userfaultfd, "by_device", refuse)
    monkeypatch.setattr(userfaultfd, "by_call", refuse)
    for row in prove(find("async_pf")):
        assert row.verdict is Verdict.UNPROVEN
        assert "CAP_SYS_PTRACE" in row.finding.reason


# What is left behind ----------------------------------------------------------------------------------------------


def test_nothing_is_left_open() -> None:
    seen()
    before = files_before()
    seen()
    assert open_files() == before


def test_a_guest_that_breaks_while_pages_are_missing_is_closed() -> None:
    """KVM waits for its page-fault workers at the close; they must not wait for us."""
    with Lab(find("async_pf")).guest() as guest:
        pages = [bytes(PAGE)] * 2
        begin = time.monotonic()
        with held_back(guest, guest.params["pages"], pages, reply=False):
            guest.machine.on_port_write(0x80, lambda word: guest.machine.stop())
            guest.run()
    assert time.monotonic() - begin < 3
    assert guest.machine.vm.closed


def test_an_error_in_a_hook_leaves_nobody_waiting() -> None:
    with Lab(find("async_pf")).guest() as guest:
        guest.machine.on_port_write(0x80, lambda word: 1 / 0)
        with (
            pytest.raises(ZeroDivisionError),
            held_back(guest, guest.params["pages"], [bytes(PAGE)] * 2, reply=False),
        ):
            guest.run()


def test_an_error_of_the_pager_is_raised_and_the_guest_goes_on() -> None:
    with Lab(find("async_pf")).guest() as guest:
        with (
            pytest.raises(UsageError, match="whole pages"),
            held_back(guest, guest.params["pages"], [b"short"] * 2, prompt=True),
        ):
            guest.run()
        assert guest["loaded_a"] == 0


def test_offered_is_asked_of_kvm() -> None:
    assert find("async_pf").header.proves == NAMES
    assert all(Lab(find("async_pf")).offered(name) for name in NAMES)
