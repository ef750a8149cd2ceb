# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtio network card whose frames C carries (_net.c): a thread between queues and link, without Python in between.

It knows what C has to know of a card, and whom to ask for what C leaves: a command of the driver, a link that is gone.
What all devices in C have in common is dataplane.py's.
"""

from __future__ import annotations

import os

from vmm.base.record import Record
from vmm.errors import errno_name, exhausted
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.dataplane import OURS, Plane, PlaneThread, eventfds, raw, told, too_long

TYPE_CHECKING = False
if TYPE_CHECKING:
    import weakref
    from collections.abc import Callable
    from typing import Any

    from vmm.kvm.words import Acked

TAP: int = lib.VMM_NET_TAP
BARE_TAP: int = lib.VMM_NET_BARE_TAP
SEQPACKET: int = lib.VMM_NET_SEQPACKET
DATAGRAM: int = lib.VMM_NET_DATAGRAM
STREAM: int = lib.VMM_NET_STREAM
ADDRESSES: int = lib.VMM_NET_ADDRESSES
MODES: int = lib.VMM_NET_MODES
COUNTS = (
    "rx_frames", "rx_bytes", "tx_frames", "tx_bytes", "rx_dropped", "tx_dropped", "rx_filtered", "rx_waits", "tx_waits",
)  # fmt: skip
QUEUES = 3


class NetSetup(Record):
    """A card over the descriptor `link`, which is one of `kind` (TAP, ...), called `name` in messages, and has frames
    of at most `most` bytes; `irq` is the eventfd of its interrupt (-1: it has none).
    """

    link: int
    kind: int
    irq: int
    most: int
    name: str


class Net(Plane):
    """The C of one card, without a thread. `counts` has COUNTS, too, and "turns" of the thread."""

    def __init__(self, setup: NetSetup, wake: int, kicks: tuple[int, ...], acked: Acked) -> None:
        words = ffi.new("struct vmm_net_setup *")
        words.link, words.kind, words.irq, words.most = setup.link, setup.kind, setup.irq, setup.most
        words.wake, words.kicks = wake, kicks
        words.name = setup.name.encode()[: lib.VMM_NET_NAME - 1]
        made = lib.vmm_net_new(words, acked.c)
        if not made:
            raise exhausted("a network card", "epoll_create", ffi.errno)
        super().__init__(made, lib.vmm_net_free, lib.vmm_net_plane, acked)
        self._wake = wake
        self._gone = ""
        self._dropped = ""

    # -- queues

    def begin(self, number: int, queue: Any, *, mergeable: bool) -> None:
        """Serve queue `number`, an object with the attributes of QUEUE, from its next kick on."""
        if lib.vmm_net_begin(self.c, number, raw(queue), mergeable):
            raise too_long(queue.size)

    def end(self, number: int, queue: Any) -> None:
        """Serve nothing of it any more; `queue` is as it was left, after the frame that was under way."""
        told(queue, lambda ring: lib.vmm_net_end(self.c, number, ring))

    def settle(self, number: int, queue: Any) -> None:
        """As after a kick, on this thread, and let `queue` be as it is then."""
        told(queue, lambda ring: lib.vmm_net_settle(self.c, number, ring))

    def kick(self) -> None:
        """Look at both queues."""
        os.eventfd_write(self._wake, OURS)

    def stop(self) -> None:
        lib.vmm_net_stop(self.c)

    # -- the card

    def started(self) -> None:
        """The driver is up: from here on frames are taken from the link."""
        lib.vmm_net_started(self.c)

    def reset(self) -> None:
        """Forget a packet that waited, and what was wanted of the link."""
        lib.vmm_net_reset(self.c)

    def restored(self, waiting: bytes) -> None:
        """A state was put back: this packet waits for a buffer, and what is in the queues has no kick any more."""
        lib.vmm_net_restored(self.c, waiting, len(waiting))

    def waiting(self) -> bytes:
        """The packet that waits for a buffer; empty if none does."""
        packet = ffi.new("char[]", 1 << 17)
        return bytes(ffi.buffer(packet, lib.vmm_net_waiting(self.c, packet)))

    def set_filter(
        self, mac: bytes, modes: list[int], unicast: frozenset[bytes] | None, multicast: frozenset[bytes] | None
    ) -> None:
        """Which frames the driver wants: VIRTIO_NET_CTRL_RX_* of `modes`, and addresses; None is all of that kind."""
        passing = ffi.new("struct vmm_net_filter *")
        passing.mac, passing.modes = mac, modes
        passing.every_unicast, passing.every_multicast = unicast is None, multicast is None
        for known, name in ((unicast, "unicast"), (multicast, "multicast")):
            rows = sorted(known or ())
            setattr(passing, name, len(rows))
            table = getattr(passing, f"{name}s")
            for i, address in enumerate(rows):
                table[i] = address
        lib.vmm_net_set_filter(self.c, passing)

    def set_pulled(self, pulled: bool) -> None:
        """Is the cable pulled?"""
        lib.vmm_net_set_pulled(self.c, pulled)

    def lose(self, why: str) -> None:
        """The link is no more."""
        lib.vmm_net_lose(self.c, why.encode())

    @property
    def gone(self) -> str:
        """Why the link is no more; empty while it is there."""
        if self.c is not None and not self._gone:
            said = ffi.new("struct vmm_net_said *")
            if lib.vmm_net_gone(self.c, said):
                self._gone = _words(said)
        return self._gone

    @property
    def drop_reason(self) -> str:
        """Why a frame was lost last."""
        if self.c is not None:
            said = ffi.new("struct vmm_net_said *")
            lib.vmm_net_dropped(self.c, said)
            self._dropped = _words(said)
        return self._dropped

    @property
    def wants(self) -> tuple[bool, bool, bool]:
        """Of the link: input, room; and whether it has more that had its turn."""
        bits = lib.vmm_net_wants(self.c) if self.c is not None else 0
        return bool(bits & 1), bool(bits & 2), bool(bits & 4)

    def _counted(self) -> dict[str, int]:
        found = ffi.new("struct vmm_net_counts *")
        lib.vmm_net_counted(self.c, found)
        return super()._counted() | {name: getattr(found, name) for name in (*COUNTS, "turns")}

    def close(self) -> None:
        if self.c is not None:
            self._gone, self._dropped = self.gone, self.drop_reason
        super().close()


def _words(said: Any) -> str:
    text, error = ffi.string(said.text).decode(errors="replace"), said.error
    return f"{text}: {os.strerror(error)} ({errno_name(error)})" if error else text


class NetThread(PlaneThread):
    """The thread that serves a Net. `command()` is called when the driver has kicked its control queue, `changed()`
    when the link is gone; both on the thread.
    """

    net: Net

    def __init__(self, name: str, setup: NetSetup, acked: Acked, failed: Callable[[BaseException], object]) -> None:
        """The link's descriptor is copied."""
        self.command: Callable[[], object] = _nothing
        self.changed: Callable[[], object] = _nothing
        doing = f"starting the service of {name}"
        fds = eventfds(doing, *(os.EFD_NONBLOCK,) * (QUEUES + 1))
        self._kicks = tuple(fds[:QUEUES])
        try:
            fds.append(os.dup(setup.link))
            copied = NetSetup(fds[-1], setup.kind, setup.irq, setup.most, setup.name)
            self.net = Net(copied, fds[QUEUES], self._kicks, acked)
        except BaseException as error:
            for fd in fds:
                os.close(fd)
            if isinstance(error, OSError):
                raise exhausted(doing, "dup", error.errno or 0) from error
            raise
        super().__init__(name, self.net, _live, fds, failed)

    @property
    def events(self) -> tuple[int, ...]:
        """The eventfds of kicks, of each queue."""
        return self._kicks

    def heard(self, what: int) -> bool:
        """On the thread: do what C leaves; False when it has raised."""
        try:
            if what & lib.VMM_NET_CHANGED:
                self.changed()
            if what & lib.VMM_NET_COMMAND:
                self.command()
        except BaseException as error:
            self.fail(error)
            return False
        return True


def _live(net: Net, who: weakref.ref[NetThread]) -> None:
    """While it waits it holds no service, and with that no machine: one that is dropped can go."""
    c = net.c
    while (what := lib.vmm_net_live(c)) != 0:
        service = who()
        if service is None:
            return
        if what < 0:
            service.fail(net.failed(-what))
            return
        if not service.heard(what):
            return
        del service


def _nothing() -> None:
    """Nobody is there yet."""
