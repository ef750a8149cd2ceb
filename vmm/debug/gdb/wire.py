# SPDX-License-Identifier: GPL-2.0-or-later
"""The socket of a gdb server: it listens, has one client at a time, and puts what comes into a bounded queue.

One thread reads; it knows framing and acknowledgements, and no packet's meaning. A client that floods is not read any
further until there is room; one that takes nothing for SEND_LIMIT seconds, or asks for the same packet again and again,
is let go.
"""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import select
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from vmm.debug.gdb.packets import Decoder, Packet, Sign, encode
from vmm.errors import HostError, UsageError, errno_name

if TYPE_CHECKING:
    from collections.abc import Callable

LOOPBACK = "127.0.0.1"
ROOM = 64  # packets that wait
SEND_LIMIT = 10.0
MOST_REPEATS = 16
TICK = 0.1
BACKLOG = 8
CHUNK = 0x8000
HINTS = {
    errno.ENOENT: "make the folder of the socket first",
    errno.EADDRNOTAVAIL: "an address of this machine, such as 127.0.0.1; `--gdb` alone takes a free port there",
    errno.EADDRINUSE: "another port or path; `--gdb` alone takes a free port",
    errno.EACCES: "a port from 1024 on, or a folder that you may write to",
}
CAME, GONE, INTERRUPT = "came", "gone", "interrupt"


def listen(where: str | None) -> tuple[socket.socket, str]:
    """A listening socket, and how `target remote` names it. `where`: PORT, ADDRESS:PORT, the path of a Unix socket
    (with a slash in it, or after `unix:`); None is a free port of the loopback address, as is port 0.

    Raises:
        UsageError: that is none of them.
        HostError: it cannot be listened at.
    """
    where = f"{LOOPBACK}:0" if where is None else where
    path = where.removeprefix("unix:")
    if path != where or "/" in where:
        return _listen_unix(path)
    host, _, digits = where.rpartition(":")
    if not (digits.isascii() and digits.isdigit() and int(digits) < 1 << 16):
        raise UsageError(
            f"--gdb {where}: give PORT (0 to 65535), ADDRESS:PORT, or the path of a Unix socket",
            hint="--gdb 127.0.0.1:1234, or --gdb ./guest.sock",
        )
    host = host.strip("[]") or LOOPBACK
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, int(digits)))
        made.listen(BACKLOG)
    except (OSError, UnicodeError) as error:
        made.close()
        raise _cannot(where, error) from error
    port = made.getsockname()[1]
    return made, f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen_unix(path: str) -> tuple[socket.socket, str]:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).is_socket() and _nobody_listens(path):
            Path(path).unlink()  # left by one that was killed
        made.bind(path)
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise _cannot(path, error) from error
    return made, path


def _nobody_listens(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _cannot(where: str, error: Exception) -> HostError:
    """Errnos above 0 are of bind; a name that is no address has none of the kernel's."""
    number = error.errno if isinstance(error, OSError) and error.errno and error.errno > 0 else 0
    what = f"bind: {os.strerror(number)} ({errno_name(number)})" if number else str(error)
    return HostError(f"listening for gdb at {where}: {what}", HINTS.get(number, HINTS[errno.EADDRINUSE]))


class Wire:
    """`inbox` holds packets, and CAME, GONE, INTERRUPT; `attention` is called, on the reading thread, after each."""

    def __init__(self, where: str | None, attention: Callable[[], object]) -> None:
        self._listener, self.where = listen(where)
        self.inbox: queue.Queue[Packet | str] = queue.Queue(ROOM)
        self.connected = False
        """As the queue's reader has seen it: set by `take`."""
        self.acknowledges = True
        self._attention = attention
        self._client: socket.socket | None = None
        self._last = b""
        self._repeats = 0
        self._lock = threading.Lock()
        self._closed = False
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._read, name="gdb", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No more clients. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._waker.send(b"x")
        self._thread.join(SEND_LIMIT)
        self._drop(self._client)
        self._listener.close()
        self._wake.close()
        self._waker.close()
        if "/" in self.where and ":" not in self.where.rpartition("/")[2]:
            with contextlib.suppress(OSError):
                Path(self.where).unlink()

    # -- the thread that serves packets

    def take(self, timeout: float | None = None) -> Packet | str | None:
        """The next of what came; None where nothing does in time."""
        try:
            found = self.inbox.get(timeout=timeout) if timeout else self.inbox.get_nowait()
        except queue.Empty:
            return None
        if isinstance(found, str) and found in (CAME, GONE):
            self.connected = found == CAME
        return found

    def send(self, data: bytes) -> None:
        """A packet to the client; it may be gone."""
        self._put(encode(data), keep=True)

    def hang_up(self) -> None:
        """Let the client go; GONE comes by the queue."""
        with self._lock:
            client = self._client
        if client is not None:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def _put(self, data: bytes, *, keep: bool = False) -> None:
        with self._lock:
            client = self._client
            if keep:
                self._last, self._repeats = data, 0
            if client is None:
                return
            try:
                client.sendall(data)
            except OSError:
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    # -- the reading thread

    def _read(self) -> None:
        decoder = Decoder()
        while not self._closed:
            client, waits = self._client, [self._listener, self._wake]
            full = self.inbox.qsize() >= ROOM - 2
            if client is not None and not full:
                waits.append(client)
            try:
                ready, _, _ = select.select(waits, [], [], TICK if full else None)
            except (OSError, ValueError):
                return
            if self._wake in ready:
                return
            if self._listener in ready and self._accept():
                decoder = Decoder()
            if client is not None and client in ready:
                self._receive(client, decoder)

    def _accept(self) -> bool:
        try:
            fresh, _ = self._listener.accept()
        except OSError:
            return False
        if self._client is not None:
            fresh.close()  # one at a time
            return False
        fresh.settimeout(SEND_LIMIT)
        if fresh.family != socket.AF_UNIX:
            fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.acknowledges = True
        with self._lock:
            self._client = fresh
        self._hand_on(CAME)
        return True

    def _receive(self, client: socket.socket, decoder: Decoder) -> None:
        try:
            data = client.recv(CHUNK)
        except TimeoutError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            self._hand_on(GONE)
            return
        for found in decoder.feed(data):
            if isinstance(found, Packet):
                if self.acknowledges:
                    self._put(b"+")
                self._hand_on(found)
            else:
                self._sign(found)

    def _sign(self, sign: Sign) -> None:
        match sign.what:
            case "\x03":
                self._hand_on(INTERRUPT)
            case "bad" if self.acknowledges:
                self._put(b"-")
            case "long":
                self._put((b"+" if self.acknowledges else b"") + encode(b"E.packet too long"))
            case "-" if self.acknowledges and self._last:
                self._repeats += 1
                if self._repeats > MOST_REPEATS:
                    self.hang_up()
                else:
                    self._put(self._last)

    def _hand_on(self, what: Packet | str) -> None:
        while not self._closed:
            try:
                self.inbox.put(what, timeout=TICK)
                break
            except queue.Full:
                self._attention()
        self._attention()

    def _drop(self, client: socket.socket | None) -> None:
        with self._lock:
            self._client = None
        if client is not None:
            client.close()
