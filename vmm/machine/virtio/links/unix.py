# SPDX-License-Identifier: GPL-2.0-or-later
"""Links over Unix sockets: a stream with a length before each frame, and sockets that keep frames apart by themselves.

Stream: 32 bits, big endian, then the frame; so do passt (`--socket`) and QEMU's `-netdev stream`. A seqpacket or a
datagram socket carries a frame a message; so does slirp4netns (`--target-type=bess`).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import deque

from vmm.errors import UsageError, os_reason
from vmm.machine.virtio.links.link import HDR, MOST_FRAME, NO_HDR, LinkDown, Refused

CHUNK = 1 << 18  # bytes asked for at once: what waits in a stream is taken with few calls
_LENGTH = struct.Struct(">I")
_PACKETS = {socket.SOCK_SEQPACKET: "seqpacket", socket.SOCK_DGRAM: "datagram"}
KINDS = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET, "dgram": socket.SOCK_DGRAM}


class SocketLink:
    """What both kinds have in common. Calls never wait, whatever the socket's own flags say."""

    offloads = 0

    def __init__(self, sock: socket.socket, name: str) -> None:
        self.name, self._socket = name, sock

    def fileno(self) -> int:
        return self._socket.fileno()

    def flush(self) -> bool:
        return True

    def offload(self, features: int) -> None:
        """Nothing is offered."""

    def close(self) -> None:
        self._socket.close()

    def _down(self, doing: str, error: OSError) -> LinkDown:
        return LinkDown(f"{self.name}: {doing}: {os_reason(error)}")

    @staticmethod
    def _frame(packet: bytes) -> memoryview:
        """The frame of a packet whose header asks for nothing. Refused: it does."""
        if packet[:2] != b"\0\0":
            raise Refused("a header that asks for an offload, which was not offered")
        return memoryview(packet)[HDR:]


class PacketLink(SocketLink):
    """A seqpacket or datagram socket: a message is a frame."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        super().__init__(sock, name)
        self.ends = sock.type == socket.SOCK_SEQPACKET  # an empty message is the end; a datagram socket has none

    def receive(self) -> bytes | None:
        try:
            frame = self._socket.recv(MOST_FRAME + 1, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._down("receiving", error) from error
        if not frame and self.ends:
            raise LinkDown(f"{self.name}: the other end has closed it")
        return NO_HDR + frame

    def send(self, packet: bytes) -> bool:
        frame = self._frame(packet)
        try:
            self._socket.send(frame, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _TOO_LONG:
                raise Refused(f"{self.name} does not take {len(frame)} bytes in a message") from error
            raise self._down("sending", error) from error
        return True


_TOO_LONG = frozenset({errno.EMSGSIZE})


class StreamLink(SocketLink):
    """A stream: 32 bits of length, big endian, before each frame."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        super().__init__(sock, name)
        self._in = bytearray()  # the beginning of a frame
        self._frames: deque[bytes] = deque()
        self._out = b""  # what is left of a frame that was sent in part
        self._end: LinkDown | None = None

    def receive(self) -> bytes | None:
        if not self._frames and self._end is None:
            self._take()
        if self._frames:
            return self._frames.popleft()
        if self._end is not None:
            raise self._end
        return None

    def _take(self) -> None:
        """Read once, and cut what is there into frames."""
        try:
            data = self._socket.recv(CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as error:
            raise self._down("receiving", error) from error
        if not data:
            left = f", in the middle of a frame ({len(self._in)} bytes of it)" if self._in else ""
            raise LinkDown(f"{self.name}: the other end has closed it{left}")
        self._in += data
        at, end = 0, len(self._in)
        while end - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._in, at)
            if size > MOST_FRAME:  # nobody can say where the next one begins
                self._end = LinkDown(f"{self.name}: a frame of {size} bytes is announced; {MOST_FRAME} is the most")
                break
            if end - at < _LENGTH.size + size:
                break
            at += _LENGTH.size
            self._frames.append(NO_HDR + self._in[at : at + size])
            at += size
        del self._in[:at]

    def send(self, packet: bytes) -> bool:
        frame = self._frame(packet)
        if not self.flush():
            return False
        try:
            sent = self._socket.sendmsg((_LENGTH.pack(len(frame)), frame), (), _SEND)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._down("sending", error) from error
        if sent < _LENGTH.size + len(frame):
            self._out = (_LENGTH.pack(len(frame)) + frame)[sent:]
        return True

    def flush(self) -> bool:
        if self._out:
            try:
                self._out = self._out[self._socket.send(self._out, _SEND) :]
            except BlockingIOError:
                return False
            except OSError as error:
                raise self._down("sending", error) from error
        return not self._out


_SEND = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


def connect(kind: str, path: str) -> StreamLink | PacketLink:
    """A link to whoever listens at `path`; `kind` is "stream", "seqpacket" or "dgram".

    Raises:
        UsageError: nobody does, or not so.
    """
    name = f"{kind} socket {path}"
    sock = socket.socket(socket.AF_UNIX, KINDS[kind] | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(CONNECT_SECONDS)
        if kind == "dgram":
            sock.bind("")  # a name of the kernel's choice, in the abstract namespace: the other end can answer
        sock.connect(path)
        sock.settimeout(None)
    except OSError as error:
        sock.close()
        said = os_reason(error)
        hint = HINTS.get(type(error), "") or (ANOTHER_KIND if error.errno == PROTOTYPE else "")
        raise UsageError(f"connecting to {name}: {said}", hint) from error
    except (ValueError, TypeError) as error:
        sock.close()
        raise UsageError(f"connecting to {name}: {error}") from error
    return of_socket(sock, name)


CONNECT_SECONDS = 5.0
PROTOTYPE = errno.EPROTOTYPE
ANOTHER_KIND = "a socket of another kind listens there: stream (passt), seqpacket (slirp4netns) or dgram"
HINTS: dict[type[BaseException], str] = {
    FileNotFoundError: "start the other end first: `passt --socket PATH`, `slirp4netns --target-type=bess PATH`",
    ConnectionRefusedError: "nobody listens there any more; start the other end again",
    PermissionError: "connecting needs write permission on the socket's file",
}


def of_socket(sock: socket.socket, name: str = "") -> StreamLink | PacketLink:
    """The link over a connected socket, which is its own from here on.

    Raises:
        UsageError: it is no Unix socket of a kind that carries frames, or not connected.
    """
    kind = _PACKETS.get(sock.type, "stream")
    name = name or f"{kind} socket (descriptor {sock.fileno()})"
    try:
        if sock.family != socket.AF_UNIX or sock.type not in KINDS.values():
            raise UsageError(f"{name}: a link goes over a Unix socket: stream, seqpacket or dgram")
        sock.getpeername()
    except OSError as error:
        sock.close()
        raise UsageError(f"{name}: {os_reason(error)}", "a link goes over a socket that is connected") from error
    except UsageError:
        sock.close()
        raise
    return StreamLink(sock, name) if sock.type == socket.SOCK_STREAM else PacketLink(sock, name)


def duplicate(fd: int) -> socket.socket:
    """A socket of our own for a descriptor. OSError: it is none."""
    copy = os.dup(fd)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise
