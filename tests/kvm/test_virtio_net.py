# SPDX-License-Identifier: GPL-2.0-or-later
"""A network card in a machine: over a pair of sockets, a tap, slirp4netns and passt; and how it comes to its end."""

from __future__ import annotations

import gc
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from guest_payloads.api.virtio_net import neighbourhood
from tests.left_behind import files_before, open_files
from vmm.abi import virtio, virtio_net
from vmm.abi.x86 import PAGE
from vmm.bench import guests, net_guest
from vmm.bench.sides import Batch
from vmm.cli import main
from vmm.kvm.net_thread import NetThread
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.virtio.listener import Listener
from vmm.machine.virtio.net import VirtioNet
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.lab import Lab

PATIENCE = 20.0  # seconds
NEIGHBOUR = {"ip": 0xC0000201, "gateway": 0xC0000202}  # as the host half of virtio_net has them


def lab(name: str, **params: int) -> Lab:
    return Lab(find(name), Options(params=params, timeout=PATIENCE))


in_both = pytest.mark.parametrize("in_c", [True, False], ids=["c", "python"])


@pytest.mark.parametrize(("events", "in_c"), [(True, True), (True, False), (False, True)], ids=["c", "python", "exits"])
def test_a_card_works_by_events_and_by_exits(events, in_c):
    with neighbourhood() as (neighbour, cable), Lab(find("virtio_net"), Options(timeout=PATIENCE)).guest() as guest:
        card = neighbour.card = guest.machine.add_virtio_net(cable, mtu=1400, events=events, in_c=in_c)
        assert guest.run().stop.why is Why.EXIT_PORT
        assert (guest["echoed"], guest["buffers"], guest["up"]) == (32, 3, 1)
        assert card.mmio.counts["event" if events else "exit"] == 7
        assert (card.mmio.engine is not None) == (events and in_c)


def test_nothing_is_left():
    with Machine():  # what is opened once stays open
        pass
    files, threads = files_before(), threading.active_count()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    machine = Machine(irqchip="split")
    machine.add_virtio_net(ours)
    machine.add_virtio_net(ours, in_c=False)
    machine.add_virtio_net(None)
    machine.add_virtio_net(theirs.fileno(), events=False)
    assert threading.active_count() == threads + 5  # one in C; two for kicks, two for links
    machine.close()
    machine.close()
    ours.close()
    theirs.close()
    assert (open_files(), threading.active_count()) == (files, threads)


@pytest.mark.parametrize("listener", [NetThread, Listener])
def test_what_cannot_be_listened_to_leaves_nothing(listener, monkeypatch):
    files, threads = files_before(), threading.active_count()

    def refuse(self: object, *args: object) -> None:
        raise OSError("no")

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, Machine(irqchip="split") as machine, monkeypatch.context() as patch:
        patch.setattr(listener, "__init__", refuse)
        with pytest.raises(OSError, match="no"):
            machine.add_virtio_net(ours, in_c=listener is NetThread)
    assert (open_files(), threading.active_count()) == (files, threads)


@in_both
def test_a_machine_that_is_dropped_takes_its_threads_along(in_c):
    threads = threading.active_count()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        machine = Machine(irqchip="split")
        machine.add_virtio_net(ours, in_c=in_c)
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            del machine
            gc.collect()
        end = time.monotonic() + PATIENCE
        while threading.active_count() > threads:
            assert time.monotonic() < end
            time.sleep(0.01)


@in_both
def test_closing_under_a_running_guest_ends_it(in_c):
    """The guest waits for an answer that never comes; another thread closes the machine."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, lab("virtio_net").guest() as guest:
        guest.machine.add_virtio_net(ours, mtu=1400, in_c=in_c)

        def close() -> None:
            theirs.recv(2000)  # it has asked for its neighbour
            guest.machine.close()

        closer = threading.Thread(target=close)
        closer.start()
        guest.machine.run(PATIENCE)
        closer.join(PATIENCE)
        assert not closer.is_alive()


def test_a_link_that_fails_inside_ends_the_run(monkeypatch):
    from vmm.machine.virtio.links.unix import PacketLink

    def broken(self: PacketLink) -> bytes | None:
        raise ValueError("no such frame")

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, lab("virtio_net").guest() as guest:
        guest.machine.add_virtio_net(ours, mtu=1400, in_c=False)
        monkeypatch.setattr(PacketLink, "receive", broken)
        theirs.send(bytes(60))
        stop = guest.run().stop
        assert stop.why is Why.INTERRUPTED
        assert "no such frame" in stop.text


@in_both
def test_a_neighbour_that_goes_is_a_cable_that_is_pulled_and_the_guest_runs_on(in_c):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, lab("virtio_net").guest() as guest:
        card = guest.machine.add_virtio_net(ours, mtu=1400, in_c=in_c)

        def go() -> None:
            theirs.recv(2000)
            theirs.close()

        threading.Thread(target=go).start()
        result = guest.run(1.0)
        assert result.stop.why is Why.TIME_LIMIT  # it waits for an answer
        assert "has closed it" in card.device.gone
        assert not card.device.link_up


def test_what_the_host_takes_from_the_thread_ends_the_run():
    """An eventfd that is gone: the run says of what."""
    with neighbourhood() as (neighbour, cable), lab("virtio_net").guest() as guest:
        card = neighbour.card = guest.machine.add_virtio_net(cable, mtu=1400)
        null = os.open("/dev/null", os.O_RDONLY)
        interrupt = card.mmio._interrupt
        assert interrupt is not None
        kept = os.dup(interrupt.fd)
        os.dup2(null, interrupt.fd)  # not for writing: EBADF
        stop = guest.run().stop
        os.dup2(kept, interrupt.fd)
        os.close(kept)
        os.close(null)
        assert stop.why is Why.INTERRUPTED
        assert "raising an interrupt: write to an eventfd: Bad file descriptor (EBADF)" in stop.text


def test_a_command_that_fails_inside_ends_the_run(monkeypatch):
    """What Python raises on the thread of C."""
    with neighbourhood() as (neighbour, cable), lab("virtio_net").guest() as guest:
        neighbour.card = guest.machine.add_virtio_net(cable, mtu=1400)
        monkeypatch.setattr(VirtioNet, "_command", lambda self, *args: 1 // 0)
        stop = guest.run().stop
        assert stop.why is Why.INTERRUPTED
        assert "ZeroDivisionError" in stop.text


class Echo(Batch):
    """The guest of the bench, and an echo at the other end of its cable."""

    def __init__(self, size: int, depth: int, count: int, **options: bool) -> None:
        super().__init__(net_guest.echoed_frames(size, depth, count), irqchip="split")
        ours, self.cable = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with ours:
            self.card = self.machine.add_virtio_net(ours, vector=guests.VECTOR, **options)
        self.machine.memory.write(net_guest.BASE, struct.pack("<2Q", self.card.base, PAGE))
        self._thread = threading.Thread(target=self._echo, daemon=True)
        self._thread.start()

    def _echo(self) -> None:
        try:
            while frame := self.cable.recv(1 << 16):
                self.cable.send(frame)
        except OSError:  # the card has gone
            pass

    def end(self) -> None:
        self.close()
        self.cable.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self.cable.close()


@in_both
@pytest.mark.parametrize(("size", "depth"), [(60, 1), (1514, 8)], ids=["one under way", "eight under way"])
def test_no_python_runs_for_a_packet(size, depth, in_c):
    """Whatever Python runs of the device, on any thread, while hundreds of packets go both ways."""
    seen: Counter[str] = Counter()

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and "virtio" in frame.f_code.co_filename:
            seen[frame.f_code.co_qualname] += 1

    threading.setprofile(note)  # for threads that begin from here on: the card's
    try:
        echo = Echo(size, depth, 100, in_c=in_c)
    finally:
        threading.setprofile(None)
    echo.measure(1)
    before = echo.card.device.counts["tx_frames"]
    seen.clear()
    sys.setprofile(note)
    try:
        echo.measure(3)
    finally:
        sys.setprofile(None)
    found = sum(seen.values())
    counts = echo.card.device.counts
    assert counts["tx_frames"] - before >= 300
    assert (counts["rx_dropped"], counts["tx_dropped"], echo.card.mmio.trouble) == (0, 0, "")
    assert (found < 20) == in_c, seen
    echo.end()


@in_both
def test_states_and_looks_while_packets_fly(in_c):
    """Memory is told anew, filters are set, the state is looked at, counts are read: nothing is lost."""
    echo = Echo(200, 8, 50, in_c=in_c)
    ended = threading.Event()
    card = echo.card

    def disturb() -> None:
        while not ended.is_set():
            for told in echo.machine.memory.changed:
                told()
            card.device.carrier.filter_changed()
            card.mmio.get_state()
            assert card.device.counts["rx_frames"] >= 0

    other = threading.Thread(target=disturb)
    other.start()
    try:
        assert len(echo.measure(5)) == 5
    finally:
        ended.set()
        other.join()
    assert card.mmio.trouble == ""
    echo.end()


@in_both
@pytest.mark.parametrize("how", ["close", "reset", "hang up"])
def test_an_end_while_packets_fly(how, in_c):
    """Nothing is touched after it, and nobody waits: the guest's frames are on the way in both directions."""
    echo = Echo(1514, 8, 1 << 30, in_c=in_c)
    card = echo.card
    runner = threading.Thread(target=lambda: echo.machine.run(PATIENCE))
    runner.start()
    try:
        end = time.monotonic() + PATIENCE
        while card.device.counts["rx_frames"] < 50:
            assert time.monotonic() < end, "no frames"
            time.sleep(0.001)
        if how == "hang up":
            echo.cable.shutdown(socket.SHUT_RDWR)
        elif how == "reset":
            card.mmio.write(virtio.VIRTIO_MMIO_STATUS, 4, 0)
            rings = [echo.machine.memory.read(net_guest.DATA + 0x1000 * queue + 0x800, 0x400) for queue in (0, 1)]
            counts = card.device.counts["rx_frames"]
            time.sleep(0.05)
            assert card.device.counts["rx_frames"] == counts
            after = [echo.machine.memory.read(net_guest.DATA + 0x1000 * queue + 0x800, 0x400) for queue in (0, 1)]
            assert after == rings
    finally:
        echo.end()
        runner.join(PATIENCE)
    assert not runner.is_alive()
    assert card.mmio.trouble == ""


def test_a_state_has_the_frame_that_waited():
    """A frame that found no buffer is kept with the machine, and reaches the guest that is made of it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, lab("virtio_net").guest() as guest, lab("virtio_net").guest() as other:
        card = guest.machine.add_virtio_net(ours, mac="02:00:00:00:00:01")
        copy = other.machine.add_virtio_net(None, mac="02:00:00:00:00:02")
        card.device.filter.set_mode(virtio_net.VIRTIO_NET_CTRL_RX_PROMISC, 0)
        state = pickle.loads(pickle.dumps(guest.machine.save()))
        other.machine.restore(state)
        assert copy.device.filter.mac == b"\2\0\0\0\0\1"
        assert not copy.device.filter.all


# -- the command


def pinged(capsys, link: str, *options: str) -> tuple[int, str, str]:
    status = main(["run", "ping", "--net", link, "--timeout", "20", *options])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@contextmanager
def served(path: Path, kind: int):
    """The neighbour of virtio_net behind a path, for one visitor."""
    with socket.socket(socket.AF_UNIX, kind) as listening, neighbourhood() as (_, cable):
        listening.bind(str(path))
        listening.listen()
        ended = threading.Event()

        def carry() -> None:
            """From the visitor to the neighbour, and back."""
            visitor, _ = listening.accept()
            with visitor:
                cable.settimeout(0.05)
                visitor.settimeout(0.05)
                while not ended.is_set():
                    for source, sink in ((visitor, cable), (cable, visitor)):
                        try:
                            if frame := source.recv(1 << 16):
                                sink.send(frame)
                        except TimeoutError:
                            pass
                        except OSError:
                            return

        thread = threading.Thread(target=carry, daemon=True)
        thread.start()
        yield
        ended.set()
        thread.join(PATIENCE)


def test_run_with_a_socket(tmp_path, capsys):
    with served(tmp_path / "s", socket.SOCK_SEQPACKET):
        words = [item for name, value in NEIGHBOUR.items() for item in ("--param", f"{name}={value}")]
        status, out, err = pinged(capsys, f"seqpacket:{tmp_path}/s,mac=02:00:00:00:00:01", *words)
    assert (status, err) == (0, "")
    assert "answers  3" in out


def test_run_without_a_cable_is_skipped_and_says_so(capsys):
    assert pinged(capsys, "none")[0] == 77


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("bridge:br0", "write tap:NAME"),
        ("tap:nosuchtap0", "no such interface"),
        ("passt:/nowhere/socket", "passt --socket PATH"),
        ("fd:999", "descriptor 999 is not open"),
        ("none,mtu=1", "68 to 65535"),
    ],
)
def test_links_that_cannot_be_are_one_line(link, said, capsys):
    status, out, err = pinged(capsys, link)
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_a_proof_has_a_network_of_its_own(capsys):
    status = main(["run", "virtio_net", "--net", "none"])
    assert status == 2
    assert "virtio_net makes its machines itself" in capsys.readouterr().err


def test_several_cards(capsys):
    """The first is the header's, each other one a card more: the guest sees the first."""
    status = main(["run", "ping", "--net", "none", "--net", "none,mac=02:00:00:00:00:01"])
    assert status == 77
    assert "link     0" in capsys.readouterr().out
    with Lab(find("ping"), Options(nets=("none", "none,mac=02:00:00:00:00:01"))).guest() as guest:
        assert guest.devices["virtio_net2"].device.mac == b"\2\0\0\0\0\1"


# -- what others wrote


def ping_by(
    *words: str, inside: tuple[str, ...] = (), count: int = 3, **options: str
) -> subprocess.CompletedProcess[str]:
    """`pyvmm run ping` as a process of its own."""
    command = [
        *inside,
        sys.executable,
        "-m",
        "vmm",
        "run",
        "ping",
        *words,
        "--param",
        f"count={count}",
        "--timeout",
        "20",
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@contextmanager
def started(command: list[str], path: Path):
    """A program that listens at `path`; skipped where it ends before it does."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        end = time.monotonic() + PATIENCE
        while not path.exists():
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                said = process.communicate()[0].strip().splitlines()
                pytest.skip(f"{command[0]} does not run here: {said[-1] if said else 'it says nothing'}")
            time.sleep(0.02)
        time.sleep(0.1)  # from the name to listening
        yield process
    finally:
        process.kill()
        process.communicate()


def test_slirp4netns_answers_a_ping(tmp_path):
    """`--target-type=bess`: a seqpacket socket, a frame a message."""
    if not shutil.which("slirp4netns"):
        pytest.skip("slirp4netns is not installed")
    path = tmp_path / "bess"
    with started(["slirp4netns", "--target-type=bess", str(path)], path):
        done = ping_by("--net", f"slirp4netns:{path}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "answers  3" in done.stdout


def test_passt_says_where_the_gateway_is(tmp_path_factory):
    """A stream with lengths. Whether a ping is let through is the host's choice, so none is sent."""
    if not shutil.which("passt"):
        pytest.skip("passt is not installed")
    folder = Path(f"/tmp/pyvmm-passt-{os.getpid()}")  # where the user nobody may make a socket, with a short name
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    path = folder / "s"
    command = [
        "passt", "--foreground", "--stderr", "--ipv4-only", "--one-off", "--socket", str(path),
        "--address", "10.0.2.100", "--netmask", "255.255.255.0", "--gateway", "10.0.2.2",
    ]  # fmt: skip
    try:
        with started(command, path):
            done = ping_by("--net", f"passt:{path}", count=0)
    finally:
        shutil.rmtree(folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert "found    0x" in done.stdout


TAP = """
import fcntl, os, socket, struct, subprocess, sys
tap, ifreq = os.open("/dev/net/tun", os.O_RDWR), struct.Struct("16sH22x")
fcntl.ioctl(tap, 0x400454ca, ifreq.pack(b"tap0", 0x1002))         # TUNSETIFF, IFF_TAP | IFF_NO_PI
fcntl.ioctl(tap, 0x400454cb, 1)                                   # TUNSETPERSIST
os.close(tap)
control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
address = struct.pack("16sHH4s16x", b"tap0", socket.AF_INET, 0, bytes((10, 0, 2, 2)))
fcntl.ioctl(control, 0x8916, address)                             # SIOCSIFADDR
fcntl.ioctl(control, 0x8914, ifreq.pack(b"tap0", 0x43))           # SIOCSIFFLAGS, up
"""


def in_a_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """A script in a network namespace of its own, where it may make a tap device; skipped where none can be had."""
    if not shutil.which("unshare"):
        pytest.skip("unshare is not installed")
    command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c"]
    probe = subprocess.run([*command, TAP], capture_output=True, text=True, timeout=60, check=False)
    if probe.returncode:
        pytest.skip(f"no tap device in a namespace of one's own: {probe.stderr.strip().splitlines()[-1]}")
    return subprocess.run([*command, TAP + script], capture_output=True, text=True, timeout=100, check=False)


def test_the_hosts_own_kernel_answers_over_a_tap():
    """Its ARP and its ICMP; no checksum of the card's is right by chance."""
    done = in_a_namespace("""
command = [sys.executable, "-m", "vmm", "run", "ping", "--net", "tap:tap0", "--timeout", "20"]
sys.exit(subprocess.run(command).returncode)
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert "answers  3" in done.stdout


def test_a_tap_that_is_given_open_and_one_without_a_header():
    done = in_a_namespace("""
for flags in (0x1002, 0x5002):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, 0x400454ca, ifreq.pack(b"tap0", flags))
    command = [sys.executable, "-m", "vmm", "run", "ping", "--net", f"fd:{tap}", "--timeout", "20"]
    subprocess.run(command, pass_fds=[tap], check=True)
    os.close(tap)
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("answers  3") == 2


def test_what_a_tap_says_no_to():
    """No interface yet, a tun, an interface that is no tap, one that is in use; a tap that is down, or deleted."""
    done = in_a_namespace("""
from vmm.errors import UsageError
from vmm.machine.virtio.links import tap as taps, words
from vmm.machine.virtio.links.link import LinkDown, Refused

def refused(what):
    try:
        words.link_of(what)
    except UsageError as error:
        print(error.one_line)

fd = os.open("/dev/net/tun", os.O_RDWR)
refused(fd)
fcntl.ioctl(fd, 0x400454ca, ifreq.pack(b"tun0", 0x1001))
refused(fd)
refused("tap:lo")
link = words.link_of("tap:tap0")
refused("tap:tap0")
packet = bytes(12) + b"\\xff" * 6 + bytes(54)
assert link.send(packet)
assert link.receive() is None or True
try:
    link.send(b"\\1\\0\\0\\0\\0\\0\\xff\\xff\\xff\\xff\\0\\0" + packet[12:])  # a checksum outside of the frame
except Refused as error:
    print("refused:", error)
link.offload(taps.OFFLOADS)
link.offload(1 << 7)  # segmentation without checksums, which the kernel would refuse
link.offload(0)
fcntl.ioctl(control, 0x8914, ifreq.pack(b"tap0", 0x42))           # down
try:
    link.send(packet)
except Refused as error:
    print("refused:", error)
netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
index = socket.if_nametoindex("tap0")
netlink.send(struct.pack("IHHIIBxHiII", 32, 17, 5, 1, 0, 0, 0, index, 0, 0))  # RTM_DELLINK
netlink.recv(1000)
for call in (link.receive, lambda: link.send(packet)):
    try:
        call()
    except LinkDown as error:
        print("down:", error)
""")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert "neither a tap device nor a socket" in lines[0]
    assert "carries no Ethernet frames" in lines[1]
    assert "tap lo: Invalid argument (EINVAL)" in lines[2]
    assert "Device or resource busy (EBUSY)" in lines[3]
    assert [line.partition(":")[0] for line in lines[4:]] == ["refused", "refused", "down", "down"]
