# SPDX-License-Identifier: GPL-2.0-or-later
"""Framing of the gdb remote protocol: bytes to packets and back. Pure: it reads no socket and knows no packet's
meaning.

Source: the gdb manual, E.1 (overview: `$data#checksum`, escapes, acknowledgements) and E.7 (binary data).
"""

from __future__ import annotations

from dataclasses import dataclass

MOST = 0x4000
"""Bytes of one packet's data, PacketSize in our answer to qSupported."""
ESCAPE, ESCAPED = 0x7D, b"#$}*"


@dataclass(frozen=True)
class Packet:
    """One packet's data, its escapes undone."""

    data: bytes


@dataclass(frozen=True)
class Sign:
    """A byte outside of packets: "+" and "-" acknowledge, "\\x03" interrupts; "bad" is a packet with a wrong checksum,
    "long" one of more than MOST bytes, of which nothing is kept."""

    what: str


class Decoder:
    """Takes bytes as they come and gives packets and signs in order. It keeps no more than one packet."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._inside = False
        self._long = False
        self._sum: bytes | None = None

    def feed(self, data: bytes) -> list[Packet | Sign]:
        """What these bytes complete."""
        if not self._inside and data[:1] == b"$" and 0 < data.find(b"#") == len(data) - 3 <= MOST and self._sum is None:
            self._begin()  # one packet, and whole: as nearly all of them come
            self._more(data[1:-3])
            return [self._ended(data[-2:])]
        found: list[Packet | Sign] = []
        at = 0
        while at < len(data):
            if self._sum is not None:
                self._sum += data[at : at + 1]
                at += 1
                if len(self._sum) == 2:
                    found.append(self._ended(self._sum))
            elif self._inside:
                end = data.find(b"#", at)
                self._more(data[at:end] if end >= 0 else data[at:])
                at = end + 1 if end >= 0 else len(data)
                if end >= 0:
                    self._sum = b""
            else:
                byte, at = data[at], at + 1
                if byte == ord("$"):
                    self._begin()
                elif byte in b"+-\x03":
                    found.append(Sign(chr(byte)))
        return found

    def _begin(self) -> None:
        self._inside, self._long = True, False
        self._data.clear()

    def _more(self, piece: bytes) -> None:
        """Of a packet's data; a `$` in it begins another packet."""
        if b"$" in piece:
            self._begin()
            piece = piece.rpartition(b"$")[2]
        room = MOST - len(self._data)
        self._long = self._long or len(piece) > room
        self._data += piece[:room]

    def _ended(self, digits: bytes) -> Packet | Sign:
        self._inside, self._sum = False, None
        data = bytes(self._data)
        self._data.clear()
        if self._long:
            return Sign("long")
        try:
            right = int(digits, 16) == sum(data) % 256
        except ValueError:
            right = False
        return Packet(unescape(data)) if right else Sign("bad")


def unescape(data: bytes) -> bytes:
    """Undo `}` before a byte that was sent with bit 5 turned round."""
    if ESCAPE not in data:
        return data
    out, escaped = bytearray(), False
    for byte in data:
        if escaped:
            out.append(byte ^ 0x20)
        elif byte != ESCAPE:
            out.append(byte)
        escaped = byte == ESCAPE and not escaped
    return bytes(out)


def escape(data: bytes) -> bytes:
    """What may stand in a packet, of any bytes."""
    if len(data.translate(None, ESCAPED)) == len(data):
        return data
    out = bytearray()
    for byte in data:
        out += bytes((ESCAPE, byte ^ 0x20)) if byte in ESCAPED else bytes((byte,))
    return bytes(out)


def encode(data: bytes) -> bytes:
    """A whole packet."""
    body = escape(data)
    return b"$" + body + b"#%02x" % (sum(body) % 256)
