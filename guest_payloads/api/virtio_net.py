# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of virtio_net: the neighbour at the other end of the cable, who answers ARP requests and pings."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from vmm.abi import virtio, virtio_net
from vmm.machine.machine import Machine
from vmm.machine.virtio.attach import Attached
from vmm.machine.virtio.net import VirtioNet
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict
from vmm.payload.proof.virtio_drivers import AGREED, Driver, driver, feature_refusals, wrong

GUEST, NEIGHBOUR = bytes.fromhex("02005e100001"), bytes.fromhex("02005e100002")
SOMEBODY = bytes.fromhex("02005e1000ff")
GUEST_IP, NEIGHBOUR_IP = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))  # RFC 5737
ARP, IPV4, EXPERIMENTAL = 0x0806, 0x0800, 0x88B5  # IEEE 802: EtherTypes
ICMP, ECHO, ECHO_REPLY = 1, 8, 0
MTU = 1400
LONG = 600  # bytes in the long frame; the guest's buffers have 256
HEADER = virtio_net.NET_HDR.size + virtio_net.ETH_HLEN
BUFFERS = -(-(HEADER + LONG) // 256)
CAUSES = virtio.VIRTIO_MMIO_INT_VRING | virtio.VIRTIO_MMIO_INT_CONFIG
KICKS, INTERRUPTS = 7, 5
HEARD = ("ARP request", "echo request", "L", "P")
COUNTS = {
    "rx_frames": 3, "rx_bytes": 42 + 74 + virtio_net.ETH_HLEN + LONG, "rx_filtered": 1, "rx_dropped": 0,
    "tx_frames": 4, "tx_bytes": 42 + 74 + 60 + 60, "tx_dropped": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """`heard` is what the neighbour understood, `counts` the device's, `results` the guest's by name."""

    driver: Driver
    heard: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    results: dict[str, int | None] = field(default_factory=dict)


def checksum(data: bytes) -> int:
    """RFC 1071, over an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Neighbour:
    """Who sits at the other end: a thread that answers until the socket is closed. `heard` is what it understood."""

    def __init__(self, sock: socket.socket, data: bytes) -> None:
        self.heard: list[str] = []
        self.card: Attached[VirtioNet] | None = None
        self._socket, self._data = sock, data
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def _live(self) -> None:
        try:
            while frame := self._socket.recv(1 << 16):
                for answer in self._answers(frame):
                    self._socket.send(answer)
        except OSError:
            pass  # the card has gone: what was heard tells

    def _answers(self, frame: bytes) -> Iterator[bytes]:
        sender, (kind,), body = frame[6:12], struct.unpack(">H", frame[12:14]), frame[14:]
        head = sender + NEIGHBOUR + frame[12:14]
        if kind == ARP and body[6:8] == b"\0\1" and body[24:28] == NEIGHBOUR_IP:
            self.heard.append("ARP request")
            yield head + body[:6] + b"\0\2" + NEIGHBOUR + NEIGHBOUR_IP + body[8:18]
        elif kind == IPV4 and body[9] == ICMP and body[20] == ECHO and frame[:6] == NEIGHBOUR:
            right = not checksum(body[:20]) and not checksum(body[20:])
            self.heard.append("echo request" if right else "echo request with a wrong checksum")
            reply = bytes([ECHO_REPLY, 0, 0, 0]) + body[24:]
            reply = reply[:2] + struct.pack(">H", checksum(reply)) + reply[4:]
            yield head + body[:12] + body[16:20] + body[12:16] + reply
        elif kind == EXPERIMENTAL:
            self.heard.append(chr(body[0]))
            if body[:1] == b"L":
                yield SOMEBODY + head[6:] + bytes(46)
                yield head + self._data
            else:
                self._pull_the_cable()

    def _pull_the_cable(self) -> None:
        """And plug it in again, when the guest has lost a frame by that. How long it may take is the run's affair: a
        limit here would make an answer of a host's slowness.
        """
        assert self.card is not None
        device = self.card.device
        device.set_link(False)
        while not device.counts["tx_dropped"]:
            if self._left.wait(0.001):
                return
        device.set_link(True)

    def close(self) -> None:
        """Hang up. What was said by then has been heard."""
        self._left.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()


@contextmanager
def neighbourhood(data: bytes = bytes(LONG)) -> Iterator[tuple[Neighbour, socket.socket]]:
    """Somebody to talk to, and the guest's end of the cable."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        neighbour = Neighbour(ours, data)
        try:
            yield neighbour, theirs
        finally:
            neighbour.close()


def prove(lab: Lab) -> Finding:
    data = os.urandom(LONG)
    with neighbourhood(data) as (neighbour, cable), lab.guest() as guest:
        guest.machine.memory.write(guest.symbol("long_data"), data)
        card = neighbour.card = guest.machine.add_virtio_net(cable, mac=GUEST, mtu=MTU)
        run_to_pass(guest)
        counts = {name: card.device.counts[name] for name in COUNTS}
        return judge(Evidence(driver(guest, card), tuple(neighbour.heard), counts, dict(guest.results)))


def right_results() -> dict[str, Any]:
    """The guest's results, as they must be."""
    return {
        "mac": int.from_bytes(GUEST, "little"),
        "mtu": MTU,
        "link": virtio_net.VIRTIO_NET_S_LINK_UP,
        "neighbour": int.from_bytes(NEIGHBOUR, "little"),
        "echoed": 32,
        "command": virtio_net.VIRTIO_NET_OK,
        "buffers": BUFFERS,
        "long": HEADER + LONG,
        "intact": LONG,
        "down": 0,
        "up": virtio_net.VIRTIO_NET_S_LINK_UP,
        "causes": CAUSES,
    }


def judge(evidence: Evidence) -> Finding:
    """The neighbour was found and answered, the long frame is whole, the filter and the cable did what they are for."""
    numbers = {
        **evidence.driver.numbers,
        "the neighbour heard": list(evidence.heard),
        "frames and bytes": dict(evidence.counts),
        **{name: evidence.results.get(name) for name in right_results()},
    }
    text = _wrong(evidence)
    if text:
        return Finding(Verdict.BROKEN, text, numbers)
    sent, received = evidence.counts["tx_frames"], evidence.counts["rx_frames"]
    summary = (
        f"ARP and ping answered; {sent} frames out, {received} in, {LONG + virtio_net.ETH_HLEN} bytes in {BUFFERS} "
        "buffers, 1 filtered; cable pulled and plugged in by configuration interrupts"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)


def _wrong(evidence: Evidence) -> str:
    text = wrong(evidence.driver, virtio_net.VIRTIO_ID_NET, kicks=KICKS, interrupts=INTERRUPTS)
    if text or evidence.driver.status != AGREED:
        return text
    if evidence.heard != HEARD:
        return f"the neighbour heard {list(evidence.heard)}, and the guest said {list(HEARD)}"
    for name, want in right_results().items():
        if evidence.results.get(name) != want:
            return f"{name} is {evidence.results.get(name)}, and should be {want}"
    for name, want in COUNTS.items():
        if evidence.counts.get(name) != want:
            return f"{evidence.counts.get(name)} is the count of {name}, and should be {want}"
    return ""


def refusals(lab: Lab) -> list[Refusal]:
    """The features; the neighbour answers whoever is agreed with."""
    with neighbourhood() as (neighbour, cable):

        def attach(machine: Machine) -> None:
            neighbour.card = machine.add_virtio_net(cable, mac=GUEST, mtu=MTU)

        return feature_refusals(lab, attach, lab.param("features"))
