# SPDX-License-Identifier: GPL-2.0-or-later
"""The socket of a gdb server: it listens, has one client at a time, and gives what comes one by one.

It knows framing and acknowledgements, and no packet's meaning. Whoever serves packets reads the socket itself, as no
other thread is on the way of a packet then, and the kernel bounds how long it waits: a packet costs one recv and one
send. While the guest runs nobody reads, and a thread waits for something to read. So a client that floods is read no
faster than it is served. One that takes nothing for SEND_LIMIT seconds, or asks for the same packet again and again, is
let go. Who comes while another is there is sent away by that thread; but not where that one has hung up, and his end
has not been read yet: who comes then is next.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import threading
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vmm.debug.gdb.packets import Decoder, Packet, Sign, encode
from vmm.errors import HostError, UsageError, errno_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LOOPBACK = "127.0.0.1"
SEND_LIMIT = 10.0
WAIT = 0.5  # seconds between two looks at ^C
MOST_REPEATS = 16
BACKLOG = 8
CHUNK = 0x8000
HINTS = {
    errno.ENOENT: "make the folder of the socket first",
    errno.EADDRNOTAVAIL: "an address of this machine, such as 127.0.0.1; `--gdb` alone takes a free port there",
    errno.EADDRINUSE: "another port or path; `--gdb` alone takes a free port",
    errno.EACCES: "a port from 1024 on, or a folder that you may write to",
}
CAME, GONE, INTERRUPT = "came", "gone", "interrupt"
ONCE, QUIET = select.EPOLLIN | select.EPOLLONESHOT, select.EPOLLONESHOT


def listen(where: int | str | None) -> tuple[socket.socket, str]:
    """A listening socket, and how `target remote` names it. `where`: PORT, ADDRESS:PORT, the path of a Unix socket
    (with a slash in it, or after `unix:`); None is a free port of the loopback address, as is port 0.

    Raises:
        UsageError: that is none of them.
        HostError: it cannot be listened at.
    """
    where = f"{LOOPBACK}:0" if where is None else str(where)
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
    """Of bind, or, where a name is no address, of the look for it, whose numbers are not errnos (getaddrinfo(3))."""
    if isinstance(error, OSError) and error.errno and not isinstance(error, socket.gaierror):
        number, what = error.errno, f"bind: {os.strerror(error.errno)} ({errno_name(error.errno)})"
    else:
        number, what = errno.EADDRNOTAVAIL, f"no address has that name ({getattr(error, 'strerror', None) or error})"
    return HostError(f"listening for gdb at {where}: {what}", HINTS.get(number, HINTS[errno.EADDRINUSE]))


class Wire:
    """Used by one thread at a time. `attention` is called on another one when something comes in `watched`."""

    def __init__(self, where: int | str | None, attention: Callable[[], object]) -> None:
        self._listener, self.where = listen(where)
        self._listener.setblocking(False)
        self.connected = False
        """As whoever takes has seen it: set by `take`."""
        self.acknowledges = True
        self._attention = attention
        self._client: socket.socket | None = None
        self._decoder = Decoder()
        self._inbox: deque[Packet | str] = deque()
        self._last = b""
        self._repeats = 0
        self._closed = False
        self._lock = threading.Lock()  # of who the client is
        self._epoll = select.epoll()
        self._wake, self._waker = socket.socketpair()
        self._epoll.register(self._wake.fileno(), select.EPOLLIN)
        self._epoll.register(self._listener.fileno(), ONCE)
        self._thread = threading.Thread(target=self._watch, name="gdb", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No more clients. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            self._waker.send(b"x")
        self._thread.join(SEND_LIMIT)
        self._drop()
        for each in (self._listener, self._wake, self._waker, self._epoll):
            each.close()
        if "/" in self.where and ":" not in self.where.rpartition("/")[2]:
            with contextlib.suppress(OSError):
                Path(self.where).unlink()

    def take(self, *, wait: bool = False) -> Packet | str | None:
        """The next of what came: a packet, CAME, GONE or INTERRUPT; None where nothing does, at once or in WAIT s."""
        if not self._inbox:
            self._look(wait)
        if not self._inbox:
            return None
        found = self._inbox.popleft()
        if isinstance(found, str) and found in (CAME, GONE):
            self.connected = found == CAME
        return found

    def peek(self) -> Packet | str | None:
        """What `take` would give now."""
        if not self._inbox:
            self._look(False)
        return self._inbox[0] if self._inbox else None

    @property
    def waiting(self) -> bool:
        """Has something been read that nobody has taken?"""
        return bool(self._inbox)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While the guest runs: who comes, and what the client sends, calls `attention`, once."""
        listening, client = self._client is None, self._client or self._listener
        self._epoll.modify(client.fileno(), ONCE)
        try:
            yield
        finally:
            if not listening:
                self._epoll.modify(client.fileno(), QUIET)

    def send(self, data: bytes) -> None:
        """A packet to the client; it may be gone."""
        self._last, self._repeats = encode(data), 0
        self._put(self._last)

    def hang_up(self) -> None:
        """Let the client go; GONE comes by `take`, and nothing of what it has sent."""
        self._inbox.clear()
        if self._client is not None:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)

    def _put(self, data: bytes) -> None:
        if self._client is None:
            return
        try:
            self._client.sendall(data)
        except OSError:
            with contextlib.suppress(OSError):
                self._client.shutdown(socket.SHUT_RDWR)

    def _look(self, wait: bool) -> None:
        """Read once of the client, or see who comes."""
        if self._client is not None:
            self._receive(self._client, 0 if wait else socket.MSG_DONTWAIT)
        elif select.select([self._listener], [], [], WAIT if wait else 0.0)[0]:
            self._accept()

    def _accept(self) -> None:
        try:
            fresh, _ = self._listener.accept()
        except OSError:
            return
        fresh.setblocking(True)
        for option, seconds in ((socket.SO_RCVTIMEO, WAIT), (socket.SO_SNDTIMEO, SEND_LIMIT)):
            fresh.setsockopt(socket.SOL_SOCKET, option, _timeval(seconds))
        if fresh.family != socket.AF_UNIX:
            fresh.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.acknowledges, self._decoder = True, Decoder()
        with self._lock:
            self._client = fresh
            self._epoll.register(fresh.fileno(), QUIET)
            self._epoll.modify(self._listener.fileno(), ONCE)
        self._inbox.append(CAME)

    def _receive(self, client: socket.socket, flags: int) -> None:
        try:
            data = client.recv(CHUNK, flags)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop()
            self._inbox.append(GONE)
            return
        for found in self._decoder.feed(data):
            if isinstance(found, Packet):
                if self.acknowledges:
                    self._put(b"+")
                self._inbox.append(found)
            else:
                self._sign(found)

    def _sign(self, sign: Sign) -> None:
        match sign.what:
            case "\x03":
                self._inbox.append(INTERRUPT)
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

    def _drop(self) -> None:
        with self._lock:
            client, self._client = self._client, None
            if client is not None:
                self._epoll.unregister(client.fileno())
                client.close()

    # -- the thread that waits

    def _watch(self) -> None:
        while not self._closed:
            for number, _ in self._epoll.poll():
                if number == self._wake.fileno():
                    return
                if number != self._listener.fileno() or not self._refused():
                    self._attention()

    def _refused(self) -> bool:
        """A second client is sent away, and is nothing that the guest should stand still for."""
        with self._lock:
            if self._client is None or _hung_up(self._client):
                return False
            with contextlib.suppress(OSError):
                self._listener.accept()[0].close()
            self._epoll.modify(self._listener.fileno(), ONCE)
        return True


def _hung_up(client: socket.socket) -> bool:
    """Will it send nothing more?"""
    poll = select.poll()
    poll.register(client.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def _timeval(seconds: float) -> bytes:
    """struct timeval, for setsockopt."""
    return struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
