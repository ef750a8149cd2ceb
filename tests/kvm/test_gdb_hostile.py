# SPDX-License-Identifier: GPL-2.0-or-later
"""A gdb server and clients that mean it no good: nothing they send ends it, hangs it, or makes it keep much."""

from __future__ import annotations

import errno
import random
import re
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from vmm.debug.gdb import wire
from vmm.debug.gdb.commands import MOST_MEMORY
from vmm.debug.gdb.packets import MOST, encode
from vmm.debug.gdb.server import GdbServer
from vmm.errors import HostError, UsageError
from vmm.machine.ends import Result, Why
from vmm.machine.machine import Machine

PATIENCE = 60.0
WORDS = b"""g G p P m M X x H T Z0, Z1, Z2, z0, z4, vCont; vCont qXfer:features:read:target.xml: qXfer:threads:read::
qXfer:exec-file:read:1: qXfer: qRcmd, qSupported: qThreadExtraInfo, vFile:open: vFile:pread: vFile:fstat: Hg Hc ? ! R
QStartNoAckMode D s S05 A B t b i vRun; vAttach; vKillx""".split()
TAILS = b"""0 1 ffffffffffffffff -1 0,0 0,ffffffff ffffffffffffffff,ffffffffffffffff 20000,4 0,fffffffffffffffff : ; , =
20000,4:00 zz 0=00 ffff=00 s:7f c:-1;s:2 r0,ffffffffffffffff:1 68656c70 7068797320307830 6d73722030 1,1,1,1 1,-1,-1
\x00\xff}\x03""".split()
TAILS.append(b"")


class Held:
    """A machine with an endless guest on a thread, its server, and a client's socket."""

    def __init__(self, folder: Path) -> None:
        self.machine = Machine()
        self.machine.load("start: inc eax\n jmp start\n")
        self.server: GdbServer = self.machine.serve_gdb(str(folder / "s"), wait=True)
        self.results: list[Result] = []
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.results.append(self.machine.run())
        except BaseException as error:
            self.errors.append(error)

    def client(self) -> socket.socket:
        end = time.monotonic() + PATIENCE
        while True:
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            made.settimeout(PATIENCE)
            try:
                made.connect(self.server.where)
                return made
            except BlockingIOError:  # others wait to be accepted
                made.close()
                assert time.monotonic() < end, "the server accepts nobody any more"
                time.sleep(0.05)

    def proper(self) -> socket.socket:
        """A client that is heard: the server still serves."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            client = self.client()
            try:
                if ask(client, b"qC", 3.0).startswith(b"QC"):
                    return client
            except OSError:
                pass
            client.close()
            time.sleep(0.05)
        raise AssertionError("the server serves nobody any more")


def ask(client: socket.socket, data: bytes, patience: float = PATIENCE) -> bytes:
    """The answer to a packet; acknowledgements and what was sent before are passed over."""
    client.settimeout(patience)
    client.sendall(encode(data))
    got = b""
    while got.count(b"#") < 1 or len(got.rpartition(b"#")[2]) < 2:
        piece = client.recv(65536)
        if not piece:
            raise OSError("closed")
        got += piece
    client.sendall(b"+")
    return got.partition(b"$")[2].partition(b"#")[0]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    made = Held(tmp_path)
    yield made
    if made.thread.is_alive():
        client = made.proper()
        client.sendall(encode(b"k"))
        made.thread.join(PATIENCE)
        client.close()
    assert not made.thread.is_alive()
    assert made.errors == []
    assert made.results[0].stop.why is Why.STOPPED
    assert "ended by the debugger" in made.results[0].stop.text
    made.machine.close()


@pytest.mark.parametrize("seed", range(6))
def test_random_packets(held: Held, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(4):
        client = held.client()
        try:
            for _ in range(60):
                data = rng.choice(WORDS) + rng.choice(TAILS)
                if rng.random() < 0.2:
                    data += rng.randbytes(rng.randrange(40))
                raw = encode(data)
                if rng.random() < 0.2:
                    raw = raw[: rng.randrange(len(raw))] + rng.randbytes(3)
                client.sendall(raw + rng.choice((b"", b"+", b"-", b"\x03")))
        except OSError:
            pass
        client.close()
    held.proper().close()


def test_every_malformed_packet_has_an_answer(held: Held) -> None:
    client = held.proper()
    for word in WORDS:
        for tail in TAILS:
            data = word + tail
            if data[:1] in (b"D", b"s", b"S", b"k", b"c", b"C") or data.startswith((b"vCont", b"vKill")):
                continue  # these let it go on, or end it
            if re.fullmatch(rb"R[0-9a-f]+", data):
                continue  # has no answer: the guest begins anew
            reply = ask(client, data)
            assert len(reply) <= MOST
    assert ask(client, b"qC").startswith(b"QC")
    client.close()


def test_huge_lengths_give_no_more_than_a_packet_and_keep_nothing(held: Held) -> None:
    client = held.proper()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(ask(client, b"m0,ffffffff")) <= MOST
    assert ask(client, b"M20000,ffffffff:00") == b"E01"
    assert ask(client, b"Z2,20000,ffffffff")[:1] == b"E"
    client.sendall(b"$" + b"m" * (8 << 20) + b"#00")
    client.close()
    held.proper().close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10  # KiB


def test_a_read_gives_no_more_than_a_packet_holds(held: Held) -> None:
    """Where memory goes on for longer than that."""
    client = held.proper()
    assert len(ask(client, b"m20000,ffffffff")) == 2 * MOST_MEMORY
    assert MOST_MEMORY < len(ask(client, b"x20000,ffffffff")) <= 2 * MOST_MEMORY  # with its escapes
    client.close()


@pytest.mark.parametrize(
    "number", [b"0x20000", b" 20000", b"20000 ", b"2_0000", b"+20000", b"-1", b"0" * 12 + b"20000", b"2000g", b""]
)
def test_a_number_is_hexadecimal_digits_and_nothing_else(held: Held, number: bytes) -> None:
    client = held.proper()
    assert len(ask(client, b"m20000,4")) == 8
    assert ask(client, b"m%s,4" % number) == b"E01"
    client.close()


def test_what_a_client_has_set_goes_with_it(held: Held) -> None:
    """It has hung up without a word: the next one's guest stops at none of it."""
    client = held.proper()
    session = held.server.session
    assert session is not None
    assert ask(client, b"Z0,20000,1") == ask(client, b"Z2,30000,4") == b"OK"
    ask(client, b"qRcmd," + b"break start".hex().encode())
    assert len(session.breaks) == 3
    client.close()
    client = held.proper()
    assert session.breaks == []
    client.close()


def test_a_flood_without_reading_and_a_half_closed_socket(held: Held) -> None:
    client = held.client()
    client.settimeout(2.0)
    with pytest.raises(OSError, match=r"."):
        _for_ever(client, encode(b"m0,1000") * 200)  # never reads: it fills up, or is let go
    client.close()
    half = held.proper()
    half.shutdown(socket.SHUT_WR)
    held.proper().close()
    half.close()


def test_a_flood_while_the_guest_runs(held: Held) -> None:
    client = held.proper()
    client.sendall(encode(b"c") + b"\x03" * 100_000 + encode(b"?"))
    assert ask(client, b"qC")
    client.close()


def test_one_client_at_a_time(held: Held) -> None:
    first = held.proper()
    second = held.client()
    assert second.recv(100) == b""
    assert ask(first, b"qC").startswith(b"QC")
    first.close()
    second.close()


def test_a_client_that_asks_for_the_same_packet_for_ever_is_let_go(held: Held) -> None:
    client = held.proper()
    client.sendall(encode(b"g"))
    got = piece = b"$"
    while piece:
        try:
            client.sendall(b"-")
            piece = client.recv(1 << 20)
        except OSError:
            break
        got += piece
    sent = Counter(re.findall(rb"\$([^#]+)#", got))
    assert 1 < max(sent.values()) <= wire.MOST_REPEATS + 1
    client.close()


def _for_ever(client: socket.socket, data: bytes) -> None:
    while True:
        client.sendall(data)


@pytest.mark.parametrize("where", ["", "x", "1:2:x", "70000", "-1", "127.0.0.1:", ":x", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(where: str) -> None:
    with pytest.raises(UsageError, match="--gdb"):
        wire.listen(where)


def test_a_name_that_is_no_address_is_told_as_one() -> None:
    with pytest.raises(HostError, match=r"at 999\.1\.1\.1:1: no address has that name") as caught:
        wire.listen("999.1.1.1:1")
    assert caught.value.hint == wire.HINTS[errno.EADDRNOTAVAIL]


def test_only_loopback_unless_told_otherwise() -> None:
    for where in (None, "0", ":0"):
        listener, shown = wire.listen(where)
        assert listener.getsockname()[0] == "127.0.0.1"
        assert shown == f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(HostError, match="listening for gdb"):
            wire.listen(shown)[0].close()
        listener.close()


def test_a_path_where_somebody_listens_is_not_taken_over_and_one_left_behind_is(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    listener, _ = wire.listen(path)
    with pytest.raises(HostError, match="listening for gdb"):
        wire.listen(path)
    listener.close()
    wire.listen(path)[0].close()
    file = tmp_path / "file"
    file.write_text("mine", encoding="utf-8")
    with pytest.raises(HostError, match="listening for gdb"):
        wire.listen(str(file))
    assert file.read_text(encoding="utf-8") == "mine"
