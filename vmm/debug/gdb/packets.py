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
INTERRUPT = 0x03


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
        found: list[Packet | Sign] = []
        for byte in data:
            if self._sum is not None:
                self._sum += bytes((byte,))
                if len(self._sum) == 2:
                    found.append(self._ended(self._sum))
            elif byte == ord("$"):
                self._inside, self._long = True, False
                self._data.clear()
            elif not self._inside:
                if byte in b"+-":
                    found.append(Sign(chr(byte)))
                elif byte == INTERRUPT:
                    found.append(Sign("\x03"))
            elif byte == ord("#"):
                self._sum = b""
            elif len(self._data) < MOST:
                self._data.append(byte)
            else:
                self._long = True
        return found

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
    if not any(byte in ESCAPED for byte in data):
        return data
    out = bytearray()
    for byte in data:
        out += bytes((ESCAPE, byte ^ 0x20)) if byte in ESCAPED else bytes((byte,))
    return bytes(out)


def encode(data: bytes) -> bytes:
    """A whole packet."""
    body = escape(data)
    return b"$" + body + b"#%02x" % (sum(body) % 256)
