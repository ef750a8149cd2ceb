# SPDX-License-Identifier: GPL-2.0-or-later
"""Coalesced writes on this host, and as a library: Machine.coalesce_writes."""

from __future__ import annotations

import sys

import pytest

from vmm.kvm.vm import Vm
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.run.lean import LeanLane
from vmm.payload.catalog import find
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict

MMIO = 0xD0700000
WRITE_THREE = "mov ebx, 0xd0700000\nmov byte ptr [rbx], 1\nmov byte ptr [rbx], 2\nmov byte ptr [rbx], 3\n"


def verdicts() -> dict[str, Verdict]:
    return {row.name: row.verdict for row in prove(find("coalesced"))}


def test_works():
    assert set(verdicts().values()) == {Verdict.WORKS}


def test_without_the_zones_every_write_exits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Vm, "register_coalesced_mmio", lambda vm, *arguments, **options: None)
    monkeypatch.setattr(Vm, "unregister_coalesced_mmio", lambda vm, *arguments, **options: None)
    assert set(verdicts().values()) == {Verdict.BROKEN}


def test_a_ring_that_nobody_drains_is_broken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LeanLane, "share", lambda lane, ring: None)
    assert set(verdicts().values()) == {Verdict.BROKEN}


@pytest.mark.parametrize("fast", [True, False])
def test_writes_come_before_the_exit_that_follows_them(fast):
    seen: list[object] = []
    with Machine(fast=fast) as m:
        m.on_mmio_write(MMIO, seen.append)
        m.on_port_write(0x80, lambda value: seen.append(f"port {value}"))
        m.coalesce_writes(MMIO, 1)
        m.load(WRITE_THREE + "mov al, 9\nout 0x80, al\nmov byte ptr [rbx], 4\nhlt")
        result = m.run()
    assert seen == [1, 2, 3, "port 9", 4]
    assert result.exits["MmioWrite"] == 0


@pytest.mark.parametrize("fast", [True, False])
def test_a_guest_that_never_exits_is_heard_within_a_heartbeat(fast):
    seen: list[int] = []
    with Machine(fast=fast) as m:

        def note(value: int) -> None:
            seen.append(value)
            if value == 3:
                m.stop()

        m.on_mmio_write(MMIO, note)
        m.coalesce_writes(MMIO, 1)
        m.load(WRITE_THREE + "again:\npause\njmp again")
        assert m.run(timeout=5).stop.why is Why.STOPPED
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("fast", [True, False])
def test_the_console_and_a_device_may_share_the_ring(fast):
    seen: list[int] = []
    with Machine(fast=fast) as m:
        m.on_mmio_write(MMIO, seen.append)
        m.coalesce_console()
        m.coalesce_writes(MMIO, 1)
        m.load("mov ebx, 0xd0700000\nmov ecx, 300\nagain:\nmov al, 0x41\nout 0xe9, al\nmov byte ptr [rbx], cl\n"
               "dec ecx\njnz again\nhlt")  # fmt: skip
        result = m.run()
    assert result.console == b"A" * 300
    assert result.unclaimed == 0  # nothing was taken for a write that is none, where the ring begins anew
    assert seen == [n & 0xFF for n in range(300, 0, -1)]
    assert result.exits["PortOut"] + result.exits["MmioWrite"] < 30


def test_what_a_device_raises_ends_the_run():
    with Machine() as m:

        def fail(value: int) -> None:
            raise ValueError(f"no {value}")

        m.on_mmio_write(MMIO, fail)
        m.coalesce_writes(MMIO, 1)
        m.load(WRITE_THREE + "hlt")
        with pytest.raises(ValueError, match="no 1"):
            m.run()


@pytest.mark.parametrize("fast", [True, False])
def test_what_a_device_raises_takes_no_other_write_with_it(fast):
    """The write whose handler raised is done; those behind it come in the next run, each once."""
    seen: list[int] = []
    with Machine(fast=fast) as m:

        def fail(value: int) -> None:
            seen.append(value)
            if value == 2:
                raise ValueError("no 2")

        m.on_mmio_write(MMIO, fail)
        m.on_port_write(0x80, lambda value: None)
        m.coalesce_writes(MMIO, 1)
        m.load("mov al, 0\nout 0x80, al\n" + WRITE_THREE + "out 0x80, al\nmov byte ptr [rbx], 4\nhlt")
        with pytest.raises(ValueError, match="no 2"):
            m.run()
        assert seen == [1, 2]
        m.run()
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize("fast", [True, False])
def test_who_takes_over_in_the_middle_has_the_very_next_write(fast):
    first: list[int] = []
    second: list[int] = []
    with Machine(fast=fast) as m:

        def once(value: int) -> None:
            first.append(value)
            m.platform.mmio.release(MMIO)
            m.on_mmio_write(MMIO, second.append)

        m.on_mmio_write(MMIO, once)
        m.coalesce_writes(MMIO, 1)
        m.load(WRITE_THREE + "hlt")
        m.run()
    assert (first, second) == ([1], [2, 3])


@pytest.mark.parametrize("fast", [True, False])
def test_every_width_and_a_place_that_two_share(fast):
    """A write across the edge of two claims is theirs byte by byte, and one of nobody counts as such."""
    seen: list[tuple[int, int, int]] = []

    class Device:
        name = "wide"

        def read(self, offset: int, size: int) -> int:
            return 0

        def write(self, offset: int, size: int, value: int) -> None:
            seen.append((offset, size, value))

    with Machine(fast=fast) as m:
        m.platform.mmio.claim(MMIO, 4, Device())
        m.platform.mmio.claim(MMIO + 4, 8, Device())
        m.coalesce_writes(MMIO, 0x20)
        m.load("mov ebx, 0xd0700000\nmov rax, 0x1122334455667788\nmov [rbx], al\nmov [rbx], ax\nmov [rbx], eax\n"
               "mov [rbx + 4], rax\nmov [rbx + 3], ax\nmov [rbx + 0x10], al\nmov [rbx], al\nhlt")  # fmt: skip
        result = m.run()
    assert seen == [(0, 1, 0x88), (0, 2, 0x7788), (0, 4, 0x55667788), (0, 8, 0x1122334455667788),
                    (3, 1, 0x88), (0, 1, 0x77), (0, 1, 0x88)]  # fmt: skip
    assert result.unclaimed == 1
    assert result.exits["MmioWrite"] == 0


def test_collected_writes_cost_no_bytecode_but_their_handlers():
    calls: list[object] = []
    with Machine() as m:
        m.on_mmio_write(MMIO, int)  # in C: no frame at all
        m.on_port_write(0x80, int)
        m.coalesce_writes(MMIO, 1)
        writes = "mov byte ptr [rbx], 1\n" * 100
        m.load(f"mov ebx, 0xd0700000\nmov ecx, 40\nagain:\n{writes}out 0x80, al\ndec ecx\njnz again\nhlt")
        sys.setprofile(lambda frame, event, arg: calls.append(frame) if event in ("call", "c_call") else None)
        try:
            assert m.run().exits["MmioWrite"] == 0
        finally:
            sys.setprofile(None)
    assert len(calls) < 4000  # of 4000 writes; the 40 exits between them and heartbeats make some
