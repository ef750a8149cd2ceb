# SPDX-License-Identifier: GPL-2.0-or-later
"""A link over a tap device that the user has made: opened by its name, or given as an open descriptor.

It configures nothing: no device is made, no address, no state changed. Where the tap carries a virtio_net_hdr, the
host's kernel completes checksums and segments for the guest (Documentation/networking/tuntap.rst; drivers/net/tun.c).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct

from vmm.abi import tun, virtio
from vmm.abi import virtio_net as net
from vmm.errors import UsageError, os_reason
from vmm.machine.virtio.links.link import HDR, MOST_FRAME, NO_HDR, LinkDown, Refused

_IFREQ = struct.Struct(f"{tun.IFNAMSIZ}sH{tun.IFREQ_SIZE - tun.IFNAMSIZ - 2}x")
_INT = struct.Struct("i")
MAKE = "make one that you may use: `ip tuntap add NAME mode tap user $USER`, `ip link set NAME up`"
# What a driver takes of the host, and the tap's word for it.
TAKEN = (
    (net.VIRTIO_NET_F_GUEST_CSUM, tun.TUN_F_CSUM),
    (net.VIRTIO_NET_F_GUEST_TSO4, tun.TUN_F_TSO4),
    (net.VIRTIO_NET_F_GUEST_TSO6, tun.TUN_F_TSO6),
    (net.VIRTIO_NET_F_GUEST_ECN, tun.TUN_F_TSO_ECN),
)
# What the kernel does with packets that it is given needs no word: it looks at each header.
GIVEN = (
    net.VIRTIO_NET_F_CSUM, net.VIRTIO_NET_F_HOST_TSO4, net.VIRTIO_NET_F_HOST_TSO6, net.VIRTIO_NET_F_HOST_ECN,
)  # fmt: skip
OFFLOADS = virtio.feature(*GIVEN, *(feature for feature, _ in TAKEN), net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS)
# Of one packet: the device is down, or the kernel finds the packet's header wrong. The next may pass.
_OF_A_PACKET = frozenset({errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.ENOMEM, errno.ENOBUFS})


class TapLink:
    """A tap by its descriptor, which is its own from here on. With `vnet` each frame has a header of 12 bytes."""

    def __init__(self, fd: int, name: str, *, vnet: bool) -> None:
        self.name, self._fd, self.has_header = f"tap {name}", fd, vnet
        self.offloads = OFFLOADS if vnet else 0

    def fileno(self) -> int:
        return self._fd

    def receive(self) -> bytes | None:
        try:
            data = os.read(self._fd, HDR + MOST_FRAME)
        except BlockingIOError:
            return None
        except OSError as error:  # EBADFD: the device was deleted
            raise LinkDown(f"{self.name}: receiving: {os_reason(error)}") from error
        return data if self.has_header else NO_HDR + data

    def send(self, packet: bytes) -> bool:
        if not self.has_header and packet[:2] != b"\0\0":
            raise Refused("a header that asks for an offload, which was not offered")
        try:
            os.write(self._fd, packet if self.has_header else memoryview(packet)[HDR:])
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _OF_A_PACKET:
                raise Refused(f"{self.name}: sending: {os_reason(error)}") from error
            raise LinkDown(f"{self.name}: sending: {os_reason(error)}") from error
        return True

    def flush(self) -> bool:
        return True

    def offload(self, features: int) -> None:
        """From here on the host may give what the driver takes, and nothing more."""
        if self.has_header and self._fd >= 0:
            word = sum(bit for feature, bit in TAKEN if features >> feature & 1)
            # Segmentation goes with checksums, and ECN with segmentation: the kernel refuses one without the other.
            if not word & tun.TUN_F_CSUM:
                word = 0
            if not word & (tun.TUN_F_TSO4 | tun.TUN_F_TSO6):
                word &= ~tun.TUN_F_TSO_ECN
            try:
                fcntl.ioctl(self._fd, tun.TUNSETOFFLOAD, word)
            except OSError as error:
                raise LinkDown(f"{self.name}: TUNSETOFFLOAD {word:#x}: {os_reason(error)}") from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def by_name(name: str) -> TapLink:
    """The tap device of that name, which must be there.

    Raises:
        UsageError: there is none, it is no tap, somebody else uses it, or this user may not.
    """
    doing = f"opening tap {name}"
    raw = name.encode()
    if not raw or len(raw) >= tun.IFNAMSIZ:
        raise UsageError(f"{doing}: an interface has a name of 1 to {tun.IFNAMSIZ - 1} bytes")
    try:
        socket.if_nametoindex(name)  # TUNSETIFF would make what is not there
    except (OSError, ValueError) as error:
        raise UsageError(f"{doing}: this host has no such interface", MAKE) from error
    fd = -1
    try:
        fd = os.open(tun.TUN_DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        fcntl.ioctl(fd, tun.TUNSETIFF, _IFREQ.pack(raw, tun.IFF_TAP | tun.IFF_NO_PI | tun.IFF_VNET_HDR))
        _set_header_size(fd)
    except OSError as error:
        if fd >= 0:
            os.close(fd)
        raise UsageError(f"{doing}: {os_reason(error)}", HINTS.get(error.errno or 0, "")) from error
    return TapLink(fd, name, vnet=True)


HINTS = {
    errno.EINVAL: f"it is no tap device of one queue; {MAKE}",
    errno.EBUSY: "another process has it open; end that, or take another tap",
    errno.EPERM: f"it belongs to another user; {MAKE}",
    errno.EACCES: f"opening {tun.TUN_DEVICE} needs permission to read and write it",
    errno.ENOENT: f"there is no {tun.TUN_DEVICE}: the kernel's module tun is not loaded",
}


def of_descriptor(fd: int) -> TapLink:
    """The tap behind an open descriptor, which is its own from here on, and does not wait from here on (O_NONBLOCK).

    It must have been opened with IFF_NO_PI; that cannot be checked, for TUNGETIFF has IFF_NOFILTER at the same bit.

    Raises:
        UsageError: it is a tun.
        OSError: it is no tap at all.
    """
    raw, flags = _IFREQ.unpack(fcntl.ioctl(fd, tun.TUNGETIFF, bytes(_IFREQ.size)))
    name = raw.rstrip(b"\0").decode("utf-8", "replace")
    if not flags & tun.IFF_TAP:
        raise UsageError(f"descriptor {fd}: {name} is a tun, which carries no Ethernet frames", "open it with IFF_TAP")
    os.set_blocking(fd, False)
    vnet = bool(flags & tun.IFF_VNET_HDR)
    if vnet:
        _set_header_size(fd)
    return TapLink(fd, name, vnet=vnet)


def _set_header_size(fd: int) -> None:
    fcntl.ioctl(fd, tun.TUNSETVNETHDRSZ, _INT.pack(HDR))
    fcntl.ioctl(fd, tun.TUNSETOFFLOAD, 0)  # until a driver takes some
