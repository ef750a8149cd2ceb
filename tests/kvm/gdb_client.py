# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of the gdb protocol, for tests: packets there and back, each answer waited for."""

from __future__ import annotations

import contextlib
import socket

from vmm.debug.gdb.packets import Decoder, Packet, encode

PATIENCE = 300.0  # seconds; an emulated host is slow


class Client:
    """On a socket that is connected."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire, self._decoder = wire, Decoder()
        self._waiting: list[bytes] = []
        self.said = ""
        """What the server had its client print."""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self._wire.close()

    def send(self, data: bytes) -> None:
        """A packet, with nothing waited for."""
        self._wire.sendall(encode(data))

    go = send

    def reply(self) -> bytes:
        """The next packet of the server that prints nothing; b"" where it has closed."""
        while True:
            while not self._waiting:
                data = self._wire.recv(65536)
                if not data:
                    return b""
                for each in self._decoder.feed(data):
                    if isinstance(each, Packet):
                        with contextlib.suppress(OSError):  # of one who hangs up with his last answer
                            self._wire.sendall(b"+")
                        self._waiting.append(each.data)
            found = self._waiting.pop(0)
            if found[:1] != b"O" or found == b"OK":
                return found
            self.said += bytes.fromhex(found[1:].decode()).decode()

    def ask(self, data: bytes) -> bytes:
        """The answer to a packet."""
        self.send(data)
        return self.reply()

    stop = ask

    def interrupted(self) -> bytes:
        """The stop after a ^C."""
        self._wire.sendall(b"\x03")
        return self.reply()

    def register(self, number: int, thread: int | None = None) -> int:
        """Of a thread, or the one that is selected."""
        if thread is not None:
            assert self.ask(b"Hg%x" % thread) == b"OK"
        return int.from_bytes(bytes.fromhex(self.ask(b"p%x" % number).decode()), "little")
