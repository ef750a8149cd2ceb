# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults that are injected: the program of test_faults.py, started with faults.c before libc.

    python -m tests.kvm.faults SCENARIO[,SCENARIO] ERRNO[,ERRNO]

A scenario is run once to count its calls (ioctls of KVM, mmap, eventfd, thread starts), by C and by Python alike; then
once for each call and errno, and that call fails. What came of it is a line of JSON: what was raised, and what the
process holds more than before. A run that still comes to its end has found another way.

What only the first machine of a process asks of KVM is the scenario `first`: each of its runs has a process of its own.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vmm.errors import VmmError
from vmm.kvm import memory
from vmm.kvm._kvm import lib
from vmm.machine.ends import Why
from vmm.machine.extra.split_irqchip import add_ioapic
from vmm.machine.machine import Machine

SHIM = ctypes.CDLL(None)
SHIM.faults_request.restype = ctypes.c_ulong
KVMIO = 0xAE
KINDS = ("ioctl", "mmap", "eventfd", "pthread_create")
NAMES: dict[int, str] = {}
HALTS = "start: mov al, 0x41\n out 0xe9, al\n mov eax, dword ptr [0xd0000000]\n hlt"


def _names() -> None:
    NAMES.update({0x8140AECC: "KVM_GET_SREGS2", 0x4140AECD: "KVM_SET_SREGS2"})  # which C alone knows
    for name in dir(lib):
        value = getattr(lib, name) if name.startswith("KVM_") else None
        if isinstance(value, int) and value >> 8 & 0xFF == KVMIO:
            NAMES.setdefault(value, name)


def plain() -> None:
    """A machine of one vCPU by the short way."""
    with Machine() as machine:
        machine.load("start: mov al, 0x41\n out 0xe9, al\n hlt")
        assert machine.run(5).stop.why is Why.HALT


def chips() -> None:
    """All of KVM's interrupt controllers, two vCPUs, a device of ours."""
    with Machine(cpus=2, irqchip="kernel") as machine:
        machine.load("start: hlt")
        machine.start(1, machine.program.entry)
        machine.run(0.05)


def devices() -> None:
    """Virtio devices with eventfds and threads, and an I/O APIC of ours."""
    with tempfile.NamedTemporaryFile() as disk, Machine(irqchip="split") as machine:
        disk.truncate(4096)
        add_ioapic(machine)
        machine.add_virtio_rng()
        machine.add_virtio_blk(disk.name)
        machine.load("start: hlt")
        assert machine.run(0.05).stop.why in (Why.HALT, Why.TIME_LIMIT)


def snapshots() -> None:
    """Taken, gone back to, forked."""
    with Machine() as machine:
        machine.load("start: inc dword ptr [0x40000]\n hlt")
        with machine.snapshot() as snap:
            assert machine.run(5).stop.why is Why.HALT
            machine.reset(snap)
            with machine.fork(snap) as twin:
                assert twin.run(5).stop.why is Why.HALT


def board() -> None:
    """A PC."""
    with Machine("4M", board="pc") as machine:
        machine.load("start: hlt")
        machine.run(0.02)


SCENARIOS: dict[str, Callable[[], None]] = {each.__name__: each for each in (plain, chips, devices, snapshots, board)}


def held() -> dict[str, int]:
    gc.collect()
    while memory._left:  # what a plain machine leaves is the next one's
        memory._left.pop().close()
    maps = Path("/proc/self/maps").read_text()
    return {
        "files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": threading.active_count(),
        "maps of KVM": maps.count("anon_inode:kvm"),
        "MiB mapped": _mapped(maps) >> 20,
    }


def _mapped(maps: str) -> int:
    ends = (row.split()[0].split("-") for row in maps.splitlines() if len(row.split()) == 5)  # anonymous ones
    return sum(int(end, 16) - int(begin, 16) for begin, end in ends)


def once(run: Callable[[], None], at: int, number: int) -> tuple[str, str, int]:
    """(kind of what was raised, its text, how many calls) of a run whose call `at` fails."""
    kind, text = "", ""
    SHIM.faults_begin(at, number)
    try:
        run()
    except VmmError as error:
        kind, text = type(error).__name__, error.text
    except AssertionError:
        kind, text = "another end", ""
    except BaseException as error:
        kind, text = f"not ours: {type(error).__name__}", traceback.format_exc()
    count = SHIM.faults_end()
    return kind, text, count


def name_of(at: int) -> str:
    kind = KINDS[SHIM.faults_kind(at)]
    return NAMES.get(SHIM.faults_request(at), hex(SHIM.faults_request(at))) if kind == "ioctl" else kind


def main(scenarios: list[str], numbers: list[int]) -> None:
    _names()
    said: list[str] = []
    warnings.showwarning = lambda message, *_: said.append(str(message))
    sys.unraisablehook = lambda unraisable: said.append(f"unraisable: {unraisable.exc_value!r}")
    threading.excepthook = lambda args: said.append(f"in a thread: {args.exc_value!r}")
    warnings.simplefilter("always", ResourceWarning)
    for name in scenarios:
        rows = first_runs(said, numbers) if name == "first" else runs(SCENARIOS[name], said, numbers)
        for row in rows:
            sys.stdout.write(json.dumps({"scenario": name, **row}) + "\n")
        sys.stdout.flush()


def runs(run: Callable[[], None], said: list[str], numbers: list[int]) -> Iterator[dict[str, Any]]:
    for _ in range(2):
        once(run, -1, 0)  # what is kept for ever is made
    before = held()
    for at, call in enumerate(calls_of(run)):
        for number in numbers_of(call, numbers):
            row, after = failing(run, at, number, said, before)
            yield {"at": at, "call": call, **row}
            before = {key: max(before[key], after[key]) for key in before}


def first_runs(said: list[str], numbers: list[int]) -> Iterator[dict[str, Any]]:
    for at, call in enumerate(in_a_child(lambda: calls_of(plain))):
        for number in numbers_of(call, numbers):
            row, _ = in_a_child(lambda at=at, number=number: failing(plain, at, number, said, held()))
            yield {"at": at, "call": call, **row}


def calls_of(run: Callable[[], None]) -> list[str]:
    kind, text, count = once(run, -1, 0)
    assert not kind, text
    return [name_of(at) for at in range(count)]


def numbers_of(call: str, numbers: list[int]) -> tuple[int, ...]:
    return (errno.EAGAIN,) if call == "pthread_create" else tuple(numbers)  # Python keeps no other of it


def failing(
    run: Callable[[], None], at: int, number: int, said: list[str], before: dict[str, int]
) -> tuple[dict[str, Any], dict[str, int]]:
    """What came of a run whose call `at` fails, and what the process holds then."""
    said.clear()
    kind, text, _ = once(run, at, number)
    after = held()
    more = {key: after[key] - before[key] for key in before if after[key] > before[key]}
    if more.get("MiB mapped", 0) < 2:  # an arena of malloc's
        more.pop("MiB mapped", None)
    return {"errno": errno.errorcode[number], "kind": kind, "text": text, "more": more, "said": list(said)}, after


def in_a_child(work: Callable[[], Any]) -> Any:
    """What it gives, by JSON."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        with os.fdopen(writer, "w") as file:
            json.dump(work(), file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        given = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return json.loads(given)


if __name__ == "__main__":
    main(sys.argv[1].split(","), [getattr(errno, each) for each in sys.argv[2].split(",")])
