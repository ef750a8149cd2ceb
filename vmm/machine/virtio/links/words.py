# SPDX-License-Identifier: GPL-2.0-or-later
"""What a user says of a network: `tap:tap0,mac=...`; and what a program gives: a socket, a descriptor. No guest here.

    tap:NAME          a tap device that is there
    fd:N              an open descriptor: a tap, or a Unix socket
    stream:PATH       a Unix socket, 32 bits of length before each frame; also passt:PATH
    seqpacket:PATH    a Unix socket, a frame a message; also slirp4netns:PATH
    dgram:PATH        the same over datagrams
    none              no cable

Behind it `,mac=02:00:00:00:00:01` and `,mtu=1500`.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from vmm.abi.virtio_net import ETH_ALEN, MAX_MTU, MIN_MTU
from vmm.base.record import Record
from vmm.errors import UsageError
from vmm.machine.virtio.links import tap, unix
from vmm.machine.virtio.links.link import Link

SOCKETS = {
    "stream": "stream",
    "passt": "stream",
    "seqpacket": "seqpacket",
    "slirp4netns": "seqpacket",
    "dgram": "dgram",
}
WAYS = "tap:NAME, fd:N, passt:PATH, stream:PATH, slirp4netns:PATH, seqpacket:PATH, dgram:PATH or none"
_MULTICAST, _LOCAL = 1, 2  # of the first byte of an address


class Net(Record):
    """A network card as a user words it: what it is plugged into, and what the driver is told."""

    way: str
    where: str
    mac: bytes | None = None
    mtu: int | None = None

    def open(self) -> Link | None:
        """The link; None for `none`.

        Raises:
            UsageError: it cannot be had.
        """
        if self.way == "none":
            return None
        if self.way == "tap":
            return tap.by_name(self.where)
        if self.way == "fd":
            return of_descriptor(int(self.where))
        return unix.connect(SOCKETS[self.way], self.where)


def parse(words: str) -> Net:
    """What is said, checked; nothing is opened.

    Raises:
        UsageError: it is none of the above.
    """
    what, *options = words.split(",")
    way, _, where = what.partition(":")
    if way not in ("tap", "fd", "none", *SOCKETS) or bool(where) == (way == "none"):
        raise UsageError(f"network {words!r}: write {WAYS}")
    if way == "fd" and not (where.isascii() and where.isdecimal() and len(where) < 10):
        raise UsageError(f"network {words!r}: {where!r} is no number of a descriptor")
    given: dict[str, Any] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in ("mac", "mtu") or name in given:
            raise UsageError(f"network {words!r}: {option!r} is neither mac=ADDRESS nor mtu=BYTES, each once")
        given[name] = mac(value) if name == "mac" else _mtu(value)
    return Net(way, where, given.get("mac"), given.get("mtu"))


def _mtu(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"mtu={text}: a number of bytes")
    return check_mtu(int(text))


def check_mtu(mtu: int) -> int:
    """The value itself. UsageError: no link has such an MTU."""
    if not MIN_MTU <= mtu <= MAX_MTU:
        raise UsageError(f"an MTU of {mtu} bytes: {MIN_MTU} to {MAX_MTU}")
    return mtu


def mac(address: str | bytes) -> bytes:
    """The six bytes of `02:00:00:00:00:01`.

    Raises:
        UsageError: it is no address that a card can have.
    """
    parts = address.replace("-", ":").split(":") if isinstance(address, str) else []
    try:
        raw = bytes(int(part, 16) for part in parts if 1 <= len(part) <= 2) if parts else bytes(address)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raw = b""
    if len(raw) != ETH_ALEN or (parts and len(parts) != ETH_ALEN):
        raise UsageError(f"MAC address {address!r}: write six bytes, 02:00:00:00:00:01")
    if raw[0] & _MULTICAST or not any(raw):
        raise UsageError(f"MAC address {address!r}: that of a card has an even first byte, and is not all zero")
    return raw


def any_mac() -> bytes:
    """A random address of the locally administered kind (IEEE 802, 8.4): two machines of one network do not collide."""
    first, *rest = os.urandom(ETH_ALEN)
    return bytes([first & ~_MULTICAST | _LOCAL, *rest])


def of_descriptor(fd: int) -> Link:
    """The link over a copy of an open descriptor.

    Raises:
        UsageError: it is neither a tap nor a Unix socket.
    """
    try:
        copy = os.dup(fd)
    except (OSError, OverflowError) as error:
        raise UsageError(f"descriptor {fd} is not open") from error
    try:
        try:
            return tap.of_descriptor(copy)
        except OSError:
            sock = socket.socket(fileno=copy)
    except OSError as error:
        os.close(copy)
        raise UsageError(f"descriptor {fd} is neither a tap device nor a socket") from error
    except BaseException:
        os.close(copy)
        raise
    return unix.of_socket(sock, f"socket (descriptor {fd})")


def link_of(what: str | int | socket.socket | Link | None) -> Link | None:
    """Words, a descriptor or a socket (a copy is taken of both), or a Link itself.

    Raises:
        UsageError: it cannot be had.
    """
    if isinstance(what, str):
        return parse(what).open()
    if isinstance(what, socket.socket):
        return of_descriptor(what.fileno())
    if isinstance(what, int):
        return of_descriptor(what)
    return what
