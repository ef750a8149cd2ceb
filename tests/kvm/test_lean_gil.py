# SPDX-License-Identifier: GPL-2.0-or-later
"""The GIL while a guest runs on the lean way: kept where nobody else can want it, and given up where somebody does."""

from __future__ import annotations

import _thread
import ctypes
import threading
import time
from collections.abc import Callable

import pytest

from vmm.abi.ports import DELAY
from vmm.machine.ends import Why
from vmm.machine.machine import Machine

OUT_THEN_SPIN = bytes.fromhex("e680") + b"\xeb\xfe"  # out DELAY, al; jmp to itself
OUT_FOR_EVER = bytes.fromhex("e680 ebfc")  # L: out DELAY, al; jmp L
ROUNDS = 200
LONG = 20.0


def spins(booted: Callable[..., Machine], then: Callable[[Machine], object]) -> float:
    """Run a guest that exits once, into `then`, and never again; the seconds until somebody stops it."""
    machine = booted(OUT_THEN_SPIN)
    machine.on_port_write(DELAY, lambda value: then(machine))
    begin = time.monotonic()
    assert machine.run(timeout=LONG).stop.why is Why.STOPPED
    return time.monotonic() - begin


def take_turns(machine: Machine, heartbeats: list[int]) -> None:
    """Give up the GIL and want it again, noting how often the guest has been interrupted each time. Were the GIL kept
    while it runs, each turn would have to wait for the next heartbeat.
    """
    for _ in range(ROUNDS):
        time.sleep(0.001)
        heartbeats.append(machine.cpus[0].counts["Interrupted"])
    machine.stop()


def between_two(heartbeats: list[int]) -> bool:
    """Whether there were turns with no heartbeat in between; a few there are by chance."""
    return len(heartbeats) == ROUNDS and sum(map(int.__eq__, heartbeats, heartbeats[1:])) > ROUNDS / 4


def test_a_thread_that_a_handler_starts_has_the_gil_while_the_guest_runs(booted):
    heartbeats: list[int] = []
    spins(booted, lambda machine: _thread.start_new_thread(take_turns, (machine, heartbeats)))
    assert between_two(heartbeats)


def test_a_thread_that_was_there_before_has_it_too(booted):
    go: list[Machine] = []
    heartbeats: list[int] = []

    def wait() -> None:
        while not go:
            time.sleep(0.001)
        take_turns(go[0], heartbeats)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        spins(booted, go.append)
    finally:
        thread.join()
    assert between_two(heartbeats)


def test_a_thread_that_python_does_not_know_waits_no_longer_than_a_heartbeat(booted):
    """C may make a thread at any time, which asks for the GIL when it first calls Python."""
    libc = ctypes.CDLL(None)
    made = ctypes.c_ulong()
    kept: list[object] = []

    def start(machine: Machine) -> None:
        def come(_: int | None) -> int:
            machine.stop()
            return 0

        kept.append(ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(come))
        assert libc.pthread_create(ctypes.byref(made), None, kept[0], None) == 0

    assert spins(booted, start) < LONG / 2
    libc.pthread_join(made, None)


@pytest.mark.parametrize("cpus", [1, 2])
def test_a_handler_in_c_keeps_nobody_from_the_gil(booted, cpus):
    """It runs no bytecode, where Python would look whether another thread waits."""
    machine = booted(OUT_FOR_EVER, cpus=cpus, aps={1: 0} if cpus == 2 else {})
    machine.on_port_write(DELAY, int)
    threading.Timer(0.05, machine.stop).start()
    begin = time.monotonic()
    assert machine.run(timeout=LONG).stop.why is Why.STOPPED
    assert time.monotonic() - begin < LONG / 2
