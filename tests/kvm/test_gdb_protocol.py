# SPDX-License-Identifier: GPL-2.0-or-later
"""The gdb server by packets, without a gdb: what a client sees on every host, an emulated one too."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kvm.gdb_client import PATIENCE, Client
from tests.left_behind import files_before, open_files
from vmm.errors import HostError, UsageError
from vmm.machine.ends import Result, Why
from vmm.machine.machine import Machine

every_host = pytest.mark.every_host
DATA = 0x10_0000
GUEST = f"""
start:
    mov   ecx, 3
    mov   edi, {DATA:#x}
again:
    inc   eax
    mov   dword ptr [rdi], eax
    out   0x80, al
    dec   ecx
    jnz   again
spin:
    cmp   dword ptr [rdi + 8], 0x600d
    jne   spin
    mov   al, 0x10
    out   0xf4, al
    hlt
other:
    inc   r8
    jmp   other
"""
RAX, RCX, RIP = 0, 2, 16  # as gdb numbers them


class Served:
    """A machine of two vCPUs on a thread, with its server."""

    def __init__(self, folder: Path) -> None:
        self.machine = Machine(cpus=2)
        program = self.machine.load(GUEST)
        self.machine.start(1, "other")
        self.at = program.symbols
        server = self.machine.serve_gdb(str(folder / "s"))
        self.results: list[Result] = []
        self.thread = threading.Thread(target=lambda: self.results.append(self.machine.run()), daemon=True)
        self.thread.start()
        self.where = server.where

    def client(self) -> Client:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(PATIENCE)
        made.connect(self.where)
        return Client(made)

    def ended(self) -> Result:
        self.thread.join(PATIENCE)
        assert self.results, "the run has not ended"
        return self.results[0]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(tmp_path)
    yield made
    if made.thread.is_alive():
        with made.client() as client:
            client.send(b"k")
            made.thread.join(PATIENCE)
    made.machine.close()
    assert made.results


@every_host
@pytest.mark.on_demand
def test_break_step_watch_write_interrupt_detach_and_kill(served: Served) -> None:
    """One after the other, as a person would: an emulated host starts one machine for it."""
    with served.client() as client:
        assert client.ask(b"?").startswith(b"T05thread:1;")
        again = served.at["again"]
        assert client.ask(b"Z0,%x,1" % again) == b"OK"
        assert client.stop(b"vCont;c").startswith(b"T05thread:1;swbreak:;")
        assert client.register(RIP) == again
        assert client.stop(b"vCont;s:1").startswith(b"T05thread:1;")
        assert (client.register(RAX), client.register(RCX)) == (1, 3)
        assert client.ask(b"m%x,4" % DATA) == b"00000000"
        assert client.stop(b"vCont;s:1").startswith(b"T05thread:1;")
        assert client.ask(b"m%x,4" % DATA) == b"01000000"
        assert client.ask(b"z0,%x,1" % again) == b"OK"

        assert client.ask(b"Z2,%x,4" % DATA) == b"OK"
        assert client.stop(b"vCont;c:1").startswith(b"T05thread:1;watch:%x;" % DATA)
        assert client.ask(b"m%x,4" % DATA) == b"02000000"
        assert client.ask(b"z2,%x,4" % DATA) == b"OK"

        assert client.ask(b"P%x=%s" % (RAX, (41).to_bytes(8, "little").hex().encode())) == b"OK"
        client.go(b"vCont;c")
        time.sleep(0.3)
        assert client.interrupted().startswith(b"T02thread:")
        assert client.ask(b"m%x,4" % DATA) == b"2a000000"
        assert served.at["spin"] <= client.register(RIP, 1) < served.at["other"] <= client.register(RIP, 2)
        before = client.register(RIP, 1)
        client.stop(b"vCont;s:2")
        client.stop(b"vCont;s:2")
        assert client.register(RIP, 1) == before

        assert client.ask(b"M%x,4:0d600000" % (DATA + 16)) == b"OK"  # not yet where it looks
        assert client.ask(b"D") == b"OK"
    time.sleep(0.2)
    with served.client() as client:
        assert b"thread:" in client.ask(b"?")
        assert served.at["spin"] <= client.register(RIP, 1) < served.at["other"]
        assert client.ask(b"M%x,4:0d600000" % (DATA + 8)) == b"OK"
        client.go(b"vCont;c:1")
        result = served.ended()
    assert (result.stop.why, result.stop.code) == (Why.EXIT_PORT, 0x10)


def test_of_a_machine_that_is_closed_runs_or_has_a_debugger_nothing_is_served() -> None:
    before = files_before()
    with Machine() as machine:
        machine.load("start: out 0x80, al\n hlt")
        said: list[str] = []

        def serve(_value: int) -> None:
            try:
                machine.serve_gdb()
            except UsageError as error:
                said.append(error.text)

        machine.on_port_write(0x80, serve)
        machine.run()
        assert said == ["serve_gdb(): the machine is running; do it before or after run()"]
        assert machine.serve_gdb(0, wait=False).where.startswith("127.0.0.1:")
        with pytest.raises(UsageError, match="has a debugger already"):
            machine.serve_gdb()
    with pytest.raises(HostError, match=r"serve_gdb\(\): this machine has been closed"):
        machine.serve_gdb()
    assert open_files() == before


@pytest.mark.parametrize("comes", [False, True])
def test_whose_time_limit_counts(tmp_path: Path, comes: bool) -> None:
    """Without a client that of run(), which is the machine's own where none was given; with one that of the server."""
    from vmm.debug.gdb.server import GdbServer

    with Machine() as machine:
        machine.timeout = 0.3 if comes else 60.0
        machine.load("start: jmp start")
        server = GdbServer(str(tmp_path / "s"), wait=comes, limit=1.5 if comes else None)
        try:
            server.attach(machine)
            results: list[Result] = []
            thread = threading.Thread(target=lambda: results.append(machine.run(None if comes else 0.2)), daemon=True)
            thread.start()
            if comes:
                made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                made.settimeout(PATIENCE)
                made.connect(server.where)
                with Client(made) as client:
                    client.go(b"vCont;c")
                    thread.join(PATIENCE)
            thread.join(PATIENCE)
        finally:
            server.close()
    assert results
    assert results[0].stop.why is Why.TIME_LIMIT
    assert (1.5 if comes else 0.2) <= results[0].wall < 30


def test_a_client_that_goes_makes_room_for_one_that_comes_at_once(served: Served) -> None:
    """However the one before has ended: while the guest stands still, while it runs, with much that nobody has read."""
    for last in (b"qC", b"vCont;c", b"g") * 4:
        with served.client() as client:
            assert client.ask(b"qC").startswith(b"QC")
            for _ in range(100 if last == b"g" else 1):
                client.send(last)
        with served.client() as client:
            assert client.ask(b"?")[:3] in (b"T05", b"T02")  # 2: it was running


def test_a_scripts_guest_is_restarted_by_the_snapshot_of_its_runs_begin(served: Served) -> None:
    """vRun after vKill, and R; with no guest there is nothing to look at, and who goes then leaves none."""
    begin = b"%x" % served.at["start"]
    with served.client() as client:
        assert client.ask(b"!") == b"OK"
        for how in (b"vRun;", b"R0", b"vRun;"):
            assert client.ask(b"Z0,%x,1" % served.at["again"]) == b"OK"
            assert client.stop(b"vCont;c").startswith(b"T05thread:1;swbreak:;")
            assert client.ask(b"M%x,4:0d600000" % (DATA + 8)) == b"OK"
            if how == b"R0":
                client.send(how)  # without an answer
                assert client.ask(b"?").startswith(b"T05thread:1;")
            else:
                assert client.ask(b"vKill;1") == b"OK"
                assert client.ask(b"?") == b"X09"
                for each in (b"g", b"m%x,4" % DATA, b"vCont;c", b"qXfer:threads:read::0,fff", b"s", b"Z0,20000,1"):
                    assert client.ask(each) == b"E.there is no guest: `run` starts it"
                assert client.ask(b"qfThreadInfo") == b"l"
                assert client.ask(b"vRun;;61").startswith(b"E.this server has one guest")
                assert client.stop(how).startswith(b"T05thread:1;")
            assert b"%x" % client.register(RIP) == begin
            assert client.ask(b"m%x,4" % (DATA + 8)) == b"00000000"
        client.go(b"vCont;c:1")
        time.sleep(0.1)
        assert client.interrupted().startswith(b"T02thread:1"), "a breakpoint of before stops nobody"
        assert client.ask(b"vKill;1") == b"OK"
    result = served.ended()
    assert (result.stop.why, result.stop.text) == (Why.STOPPED, "ended by the debugger")
