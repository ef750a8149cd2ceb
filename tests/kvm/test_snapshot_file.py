# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots in files and machines that move: what comes out is what went in, and all else is refused in one line."""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kvm.test_snapshot import differences, state
from tests.left_behind import files_before, open_files
from vmm import Machine
from vmm.errors import HostError, UsageError
from vmm.machine import frozen, migration
from vmm.machine.ends import Why
from vmm.machine.snapshot_file import HEAD, MAGIC

pytestmark = pytest.mark.kvm

COUNTS = """
start:  mov rbx, 0x1234
again:  inc qword ptr [0x400000]
        in al, 0x77
        cmp al, 1
        jne again
        mov rcx, [0x400000]
        hlt
"""
ANSWER = 0  # of port 0x77: 1 ends it
GOES_ON = """
from vmm import Machine
import sys
with Machine.load_snapshot(sys.argv[1], lambda made: made.on_port_read(0x77, lambda: 1)) as machine:
    stop = machine.run(10).stop
    print(stop.why, machine.regs.rbx, machine.regs.rcx, sorted(machine.program.symbols))
"""
RECEIVES = """
import socket, struct, sys
from vmm import Machine
from vmm.machine import migration
connection = socket.socket(fileno=int(sys.argv[1]))
machine = migration.receive(Machine, connection, lambda made: made.on_port_read(0x77, lambda: 1))
stop = machine.run(10).stop
connection.sendall(struct.pack("<QQ", machine.regs.rbx, machine.regs.rcx) + stop.why.encode())
machine.close()
"""


def counting(**options: object) -> Machine:
    machine = Machine(memory="6M", **options)  # type: ignore[arg-type]
    machine.load(COUNTS)
    machine.on_port_read(0x77, lambda: ANSWER)
    machine.run(exit_limit=3)
    return machine


@pytest.fixture
def saved(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "state"
    with counting() as machine, machine.snapshot() as snap:
        machine.save_snapshot(snap, path)
        yield path


@pytest.mark.every_host
def test_it_starts_in_another_process(saved: Path) -> None:
    done = subprocess.run([sys.executable, "-c", GOES_ON, str(saved)], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["halt", str(0x1234), "4", "['again',", "'start']"], done.stderr


def test_the_state_is_that_of_the_snapshot(tmp_path: Path) -> None:
    with counting(irqchip="kernel") as machine:
        before, memory = state(machine), machine.memory.read(0, machine.memory.size)
        with machine.snapshot() as snap:
            written = machine.save_snapshot(snap, tmp_path / "state")
        assert written == (tmp_path / "state").stat().st_size < 1 << 20  # of 6 MiB, what is not zero
        with Machine.load_snapshot(tmp_path / "state") as twin:
            assert differences(before, state(twin)) == []
            assert twin.memory.read(0, twin.memory.size) == memory
            assert twin.irqchip == "kernel"


def test_any_damaged_byte_is_refused(saved: Path, tmp_path: Path) -> None:
    whole, damaged = saved.read_bytes(), tmp_path / "damaged"
    chosen = random.Random(17)
    places = [*range(HEAD.size), *chosen.sample(range(HEAD.size, len(whole)), 150), *range(len(whole) - 32, len(whole))]
    before = files_before()
    for place in places:
        one = bytearray(whole)
        one[place] ^= 1 << chosen.randrange(8)
        damaged.write_bytes(one)
        with pytest.raises(UsageError, match=r"damaged|version|no snapshot") as caught:
            Machine.load_snapshot(damaged)
        assert "\n" not in caught.value.text
    for length in (0, 1, HEAD.size, len(whole) // 2, len(whole) - 1):
        damaged.write_bytes(whole[:length])
        with pytest.raises(UsageError, match=r"damaged|no snapshot"):
            Machine.load_snapshot(damaged)
    damaged.write_bytes(whole + b"\0")
    with pytest.raises(UsageError, match="damaged"):
        Machine.load_snapshot(damaged)
    assert open_files() == before
    with pytest.raises(HostError, match="No such file"):
        Machine.load_snapshot(tmp_path / "none")


def rewritten(path: Path, change: object) -> None:
    """The same file with another text, and the sum of that."""
    import hashlib

    whole = path.read_bytes()[:-32]
    _, version, length = HEAD.unpack(whole[: HEAD.size])
    value = frozen.value_of(whole[HEAD.size : HEAD.size + length], "it")
    value = change(value)  # type: ignore[operator]
    text = repr(value).encode()
    made = HEAD.pack(MAGIC, version, len(text)) + text + whole[HEAD.size + length :]
    path.write_bytes(made + hashlib.sha256(made).digest())


def other_capability(value: dict) -> dict:
    value["host"]["capabilities"]["XSAVE2"] = 12345
    return value


def other_cpuid(value: dict) -> dict:
    value["cpuid"][0][1, 0] = (1, 2, 3, 4)
    return value


def other_msrs(value: dict) -> dict:
    value["host"]["msrs"].append(0x12345)
    return value


def counts_beyond(value: dict) -> dict:
    part = value["parts"]["vcpu 0 msrs"]
    value["parts"]["vcpu 0 msrs"] = b"\xff\xff\xff\x7f" + part[4:]
    return value


def no_memory(value: dict) -> dict:
    value["slots"] = [(0, 4097)]
    return value


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_capability, "another host: KVM_CAP_XSAVE2 is 12345 there"),
        (other_cpuid, "another host: CPUID 0x1.0 of vCPU 0 is 00000001 00000002 00000003 00000004 there"),
        (other_msrs, "another host: KVM lists the MSR .* there alone"),
        (counts_beyond, "counts beyond its bytes"),
        (no_memory, "nothing that pyvmm wrote"),
        (lambda value: {}, "nothing that pyvmm wrote"),
        (lambda value: [1], "nothing that pyvmm wrote"),
        (lambda value: value | {"parts": {}}, "no vcpu 0 regs there"),
        (lambda value: value | {"devices": {"disk at port 0x1": 5}}, "this one has no disk"),
    ],
)
def test_what_does_not_fit_is_refused(saved: Path, change: object, says: str) -> None:
    before = files_before()
    rewritten(saved, change)
    with pytest.raises(UsageError, match=says) as caught:
        Machine.load_snapshot(saved)
    assert "\n" not in caught.value.text
    assert open_files() == before


def test_nothing_in_a_file_is_run(saved: Path) -> None:
    """A text that is no literal is no text of ours, whatever it calls."""
    with pytest.raises(UsageError, match="nothing that pyvmm wrote"):
        frozen.value_of(b"__import__('os').system('false')", "it")
    with pytest.raises(UsageError, match="nothing that pyvmm wrote"):
        frozen.value_of(b"[" * 100_000, "it")


def test_what_no_file_can_hold(tmp_path: Path) -> None:
    class Odd:
        name = "odd"

        def get_state(self) -> object:
            return object()

        def set_state(self, state: object) -> None: ...

        def read(self, offset: int, size: int) -> int:
            return 0

        def write(self, offset: int, size: int, value: int) -> None: ...

    with Machine() as machine:
        machine.platform.ports.claim(0x90, 1, Odd())
        machine.load("hlt")
        with machine.snapshot() as snap, pytest.raises(UsageError, match="odd at port 0x90"):
            machine.save_snapshot(snap, tmp_path / "state")
        assert list(tmp_path.iterdir()) == []
    with counting() as machine, machine.snapshot() as snap, pytest.raises(HostError, match="saving a snapshot"):
        machine.save_snapshot(snap, tmp_path / "no" / "folder")


@pytest.mark.every_host
def test_a_machine_moves_while_it_runs() -> None:
    here, there = socket.socketpair()
    with here, counting() as machine:
        child = subprocess.Popen([sys.executable, "-c", RECEIVES, str(there.fileno())], pass_fds=[there.fileno()])
        there.close()
        report = migration.send(machine, here, enough=0, rounds=4, timeout=60)
        answer = here.recv(64)
        assert child.wait(60) == 0
        rbx, rcx = struct.unpack("<QQ", answer[:16])
        assert (rbx, answer[16:]) == (0x1234, b"halt")
        assert rcx - machine.memory.read_u64(0x400000) in (0, 1)
        assert rcx > 3  # it ran on while it was sent
        assert len(report.pages) >= 2
        assert report.pages[0] >= max(report.pages[1:])
        assert report.downtime < 30


def both(machine: Machine, receive: object) -> tuple[list[BaseException], list[BaseException]]:
    """Send to a thread that receives: what either raised."""
    ends = socket.socketpair()
    raised: list[BaseException] = []

    def other() -> None:
        try:
            receive(ends[1])  # type: ignore[operator]
        except BaseException as error:
            raised.append(error)
        finally:
            ends[1].close()

    thread = threading.Thread(target=other)
    thread.start()
    mine: list[BaseException] = []
    try:
        migration.send(machine, ends[0], timeout=20)
    except BaseException as error:
        mine.append(error)
    finally:
        ends[0].close()
        thread.join()
    return mine, raised


def test_one_that_is_not_taken_runs_on_here(monkeypatch: pytest.MonkeyPatch) -> None:
    with counting() as machine:
        mine, theirs = both(machine, lambda end: migration.receive(Machine, end, cpus=2))
        assert "the other end says: this state is of a machine with 1 vCPUs" in str(mine[0])
        assert "1 vCPUs" in str(theirs[0])
        monkeypatch.setattr(sys.modules[__name__], "ANSWER", 1)
        assert machine.run(10).stop.why is Why.HALT


def test_an_end_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    with counting() as machine:
        (error,), _ = both(machine, lambda end: end.recv(10))
        assert isinstance(error, HostError)
        monkeypatch.setattr(sys.modules[__name__], "ANSWER", 1)
        assert machine.run(10).stop.why is Why.HALT
        ends = socket.socketpair()
        ends[0].sendall(b"H\x05\0\0\0hello" + b"P" * 100)
        with ends[0], ends[1], pytest.raises(UsageError, match="nothing that pyvmm"):
            migration.receive(Machine, ends[1])


def test_a_machine_with_snapshots_does_not_move() -> None:
    ends = socket.socketpair()
    with ends[0], ends[1], counting() as machine, machine.snapshot(), pytest.raises(UsageError, match="dirty log"):
        migration.send(machine, ends[0])
