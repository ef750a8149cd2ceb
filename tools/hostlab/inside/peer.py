# SPDX-License-Identifier: GPL-2.0-or-later
"""The other end of a guest's network card, on a Unix socket: it answers ARP and ICMP echo, and counts. A packet of the
socket is a frame.

Sources: RFC 826 (ARP), RFC 792 (ICMP echo), RFC 1071 (the checksum).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from pathlib import Path

MAC = bytes.fromhex("020000000001")
ADDRESS = "10.0.2.2"
ARP, IP, ICMP = 0x0806, 0x0800, 1
MOST = 1 << 16


class Peer:
    """Listens at a path for one guest; used as a context manager. `counts`: frames by what they were."""

    def __init__(self, path: Path) -> None:
        self.counts: Counter[str] = Counter()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._live, name="peer", daemon=True)
        self._thread.start()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _live(self) -> None:
        with contextlib.suppress(OSError):
            guest, _ = self._listener.accept()
            with guest:
                while frame := guest.recv(MOST):
                    answer = self.answer(frame)
                    if answer:
                        guest.send(answer)

    def answer(self, frame: bytes) -> bytes | None:
        """The frame to send back, if any."""
        if len(frame) < 14:
            return None
        kind = int.from_bytes(frame[12:14], "big")
        made = {ARP: _arp, IP: _echo}.get(kind, _nothing)(frame[14:])
        self.counts["other" if made is None else "arp" if kind == ARP else "echo"] += 1
        return None if made is None else frame[6:12] + MAC + frame[12:14] + made


def _nothing(_packet: bytes) -> None:
    return None


def _arp(packet: bytes) -> bytes | None:
    if len(packet) < 28 or packet[6:8] != b"\0\1" or packet[24:28] != socket.inet_aton(ADDRESS):
        return None
    return packet[:6] + b"\0\2" + MAC + packet[24:28] + packet[8:18]


def _echo(packet: bytes) -> bytes | None:
    length = (packet[0] & 15) * 4 if packet else 0
    if len(packet) < length + 8 or packet[9] != ICMP or packet[length] != 8:
        return None
    total = struct.unpack_from(">H", packet, 2)[0]
    body = b"\0\0\0\0" + packet[length + 4 : total]
    body = body[:2] + struct.pack(">H", checksum(body)) + body[4:]
    return packet[:12] + packet[16:20] + packet[12:16] + packet[20:length] + body


def checksum(data: bytes) -> int:
    """Of the Internet: the ones' complement of the ones' complement sum of 16-bit words."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
