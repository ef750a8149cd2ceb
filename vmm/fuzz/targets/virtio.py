# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtio devices with a driver that means them no good: registers, rings, descriptors, and what the host does.

Registers, queues and backend are Python's, as they serve a device without an engine in C. Guest memory is a piece of
Python's with a read-only part and nothing around it. What a device must hold to: no access outside of what `holds` was
asked of, no exception, a bounded number of accesses for each operation, and a byte of read-only memory never changes.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import Any

from vmm.abi import virtio as v
from vmm.abi import virtio_net
from vmm.errors import GuestMemoryError
from vmm.fuzz.taker import Taker, rows
from vmm.fuzz.target import HostTarget, Wrong, constants, files_of
from vmm.machine.virtio.blk import VirtioBlk
from vmm.machine.virtio.console import VirtioConsole
from vmm.machine.virtio.links.link import LinkDown
from vmm.machine.virtio.net import VirtioNet
from vmm.machine.virtio.net_frames import RECEIVE, TRANSMIT
from vmm.machine.virtio.rng import VirtioRng
from vmm.machine.virtio.transport import VirtioMmio

RAM, RAM_SIZE = 0x1_0000, 0x8000
ROM, ROM_SIZE = 0x2_0000, 0x1000
ENTRIES = 8
QUEUE = 0x1000
"""Bytes of RAM between the rings of two queues; buffers lie behind those of the last."""
AVAIL, USED, TABLE = 0x400, 0x800, 0xC00
BUFFERS = RAM + 4 * QUEUE
ACCESSES = 200_000
"""More than any one input needs: 256 operations on queues of 8 entries."""
OPERATIONS = 48
ROW = 12
REGISTERS = tuple(
    sorted(
        value
        for name, value in vars(v).items()
        if name.startswith("VIRTIO_MMIO_") and not name.startswith("VIRTIO_MMIO_INT_")
        if isinstance(value, int) and value < v.VIRTIO_MMIO_CONFIG
    )
)
ALIVE = (
    v.VIRTIO_CONFIG_S_ACKNOWLEDGE | v.VIRTIO_CONFIG_S_DRIVER
    | v.VIRTIO_CONFIG_S_FEATURES_OK | v.VIRTIO_CONFIG_S_DRIVER_OK
)  # fmt: skip
(SET, GET, DESCRIPTOR, OFFER, POKE, CONFIG, HOST, STATE) = range(8)


def _row(*numbers: int) -> bytes:
    return bytes(numbers).ljust(ROW, b"\0")


ALIVE_ROW = _row(1)


class Ram:
    """Guest memory; GuestMemoryError outside, and Wrong for a device that goes on and on."""

    def __init__(self) -> None:
        self.bytes = bytearray(RAM_SIZE)
        self._left = ACCESSES

    def holds(self, gpa: int, size: int, *, write: bool = False) -> bool:
        in_ram = RAM <= gpa and gpa + size <= RAM + RAM_SIZE
        return not size or in_ram or (not write and ROM <= gpa and gpa + size <= ROM + ROM_SIZE)

    def _check(self, gpa: int, size: int, write: bool) -> None:
        self._left -= 1
        if self._left < 0:
            raise Wrong(f"more than {ACCESSES} accesses to memory")
        if not self.holds(gpa, size, write=write):
            raise GuestMemoryError(f"no memslot holds {gpa:#x}")

    def read(self, gpa: int, size: int) -> bytes:
        self._check(gpa, size, False)
        return bytes(self.bytes[gpa - RAM : gpa - RAM + size]) if gpa < ROM else bytes(size)

    def write(self, gpa: int, data: bytes) -> None:
        self._check(gpa, len(data), True)
        if data:
            self.bytes[gpa - RAM : gpa - RAM + len(data)] = data


class VirtioTarget(HostTarget):
    """`backend()` makes the device; the first row of an input says whether an honest driver has set it up."""

    row = ROW
    most = OPERATIONS * ROW
    modules: tuple[str, ...] = ()
    common = ("vmm.machine.virtio.transport", "vmm.machine.virtio.queue", "vmm.machine.virtio.chain")

    def __init__(self) -> None:
        self.files = files_of(*self.common, *self.modules)
        super().__init__()

    def words(self) -> Sequence[bytes]:
        return (*constants(self.files), *(struct.pack("<I", each) for each in (RAM, ROM, BUFFERS)))

    def seeds(self) -> Sequence[bytes]:
        """Set up, and one request: a buffer to read and one to write, or only one of them."""
        both = self._request(0, (16, 0), (64, v.VRING_DESC_F_WRITE))
        return (ALIVE_ROW + both, ALIVE_ROW + self._request(0, (64, v.VRING_DESC_F_WRITE)),
                ALIVE_ROW + self._request(1, (40, 0)), _row(0) + _row(SET, 0x1C))  # fmt: skip

    @staticmethod
    def _request(queue: int, *buffers: tuple[int, int]) -> bytes:
        made = b""
        for index, (size, flags) in enumerate(buffers):
            more = v.VRING_DESC_F_NEXT if index + 1 < len(buffers) else 0
            fields = struct.pack("<BBHHB", 0x10 + index, 0, size, flags | more, index + 1)
            made += _row(DESCRIPTOR | queue << 4, index, *fields)
        return made + _row(OFFER | queue << 4, 0, 1)

    def backend(self) -> Any:
        """A new device of this kind."""
        raise NotImplementedError

    def host(self, mmio: VirtioMmio, device: Any, taker: Taker) -> None:
        """Something that its host does."""

    def play(self, data: bytes) -> None:
        ram, backend = Ram(), self.backend()
        try:
            mmio = VirtioMmio(backend, ram)
            if hasattr(backend, "wake"):
                backend.wake = mmio.wake
            if hasattr(backend, "changed"):
                backend.changed = mmio.config_changed
            mode = data[0] if data else 0
            if mode & 1:
                set_up(mmio, ~mode & 0x7E)
            offered = [0] * 4
            for taker in rows(data[ROW:], ROW, OPERATIONS):
                self._operation(mmio, ram, offered, taker)
        finally:
            backend.close()

    def _operation(self, mmio: VirtioMmio, ram: Ram, offered: list[int], taker: Taker) -> None:
        which = taker.number()
        queue = which >> 4 & 3
        at = RAM + QUEUE * queue
        match which & 7:
            case 0:
                mmio.write(REGISTERS[taker.number() % len(REGISTERS)], 4, taker.number(4))
            case 1:
                value = mmio.read(taker.number(2) & 0xFFF, size := 1 << (which >> 4 & 3))
                if not 0 <= value < 1 << 8 * size:
                    raise Wrong(f"a read of {size} bytes gave {value:#x}")
            case 2:
                index = taker.number() % (2 * ENTRIES)
                address = BUFFERS + 0x100 * taker.number() + taker.number()
                size, flags = taker.number(2), taker.number(2)
                row = struct.pack("<QIHH", address, size, flags, taker.number())
                table = at if index < ENTRIES else at + TABLE - 16 * ENTRIES
                ram.bytes[table - RAM + 16 * index : table - RAM + 16 * index + 16] = row
            case 3:
                head, count = taker.number(), taker.number() % 16
                ring = at + AVAIL - RAM + 4
                for step in range(count):
                    place = ring + 2 * ((offered[queue] + step) % ENTRIES)
                    ram.bytes[place : place + 2] = ((head + step) & 0xFFFF).to_bytes(2, "little")
                offered[queue] = (offered[queue] + count) & 0xFFFF
                ram.bytes[ring - 2 : ring] = offered[queue].to_bytes(2, "little")
                mmio.write(v.VIRTIO_MMIO_QUEUE_NOTIFY, 4, queue)
            case 4:
                place, piece = taker.number(2) % (RAM_SIZE - 32), taker.rest(taker.number() & 0x1F)
                ram.bytes[place : place + len(piece)] = piece
            case 5:
                size = 1 << queue
                mmio.write(v.VIRTIO_MMIO_CONFIG + taker.number(), size, taker.number(size))
            case 6:
                self.host(mmio, mmio.backend, taker)
            case _:
                mmio.set_state(mmio.get_state())
                mmio.resume()


def set_up(mmio: VirtioMmio, without: int = 0) -> None:
    """As an honest driver does it; `without` leaves out some of the features below 2**7."""
    mmio.write(v.VIRTIO_MMIO_STATUS, 4, v.VIRTIO_CONFIG_S_ACKNOWLEDGE | v.VIRTIO_CONFIG_S_DRIVER)
    for half in (0, 1):
        mmio.write(v.VIRTIO_MMIO_DRIVER_FEATURES_SEL, 4, half)
        accepted = mmio.features >> 32 * half & 0xFFFFFFFF
        mmio.write(v.VIRTIO_MMIO_DRIVER_FEATURES, 4, accepted if half else accepted & ~without)
    mmio.write(v.VIRTIO_MMIO_STATUS, 4, ALIVE & ~v.VIRTIO_CONFIG_S_DRIVER_OK)
    for index in range(len(mmio.queues)):
        at = RAM + QUEUE * index
        mmio.write(v.VIRTIO_MMIO_QUEUE_SEL, 4, index)
        mmio.write(v.VIRTIO_MMIO_QUEUE_NUM, 4, ENTRIES)
        for register, area in ((v.VIRTIO_MMIO_QUEUE_DESC_LOW, 0), (v.VIRTIO_MMIO_QUEUE_AVAIL_LOW, AVAIL),
                               (v.VIRTIO_MMIO_QUEUE_USED_LOW, USED)):  # fmt: skip
            mmio.write(register, 4, at + area)
        mmio.write(v.VIRTIO_MMIO_QUEUE_READY, 4, 1)
    mmio.write(v.VIRTIO_MMIO_STATUS, 4, ALIVE)


class Rng(VirtioTarget):
    name = "virtio-rng"
    modules = ("vmm.machine.virtio.rng",)

    def backend(self) -> VirtioRng:
        return VirtioRng(lambda count: b"\x5a" * count)


class Console(VirtioTarget):
    """With a host that types and changes the size of its window."""

    name = "virtio-console"
    modules = ("vmm.machine.virtio.console",)

    def backend(self) -> VirtioConsole:
        return VirtioConsole(len)

    def host(self, mmio: VirtioMmio, device: VirtioConsole, taker: Taker) -> None:
        what = taker.number()
        if what & 0x80:
            device.resize(taker.number(2), taker.number(2))
        else:
            device.send(taker.rest(what))


class Blk(VirtioTarget):
    """A disk of 64 sectors in memory; bit 7 of the first byte makes it read-only."""

    name = "virtio-blk"
    modules = ("vmm.machine.virtio.blk", "vmm.machine.virtio.disk")

    def __init__(self) -> None:
        super().__init__()
        self._fd = os.memfd_create("disk")
        self._readonly = False

    def seeds(self) -> Sequence[bytes]:
        whole = (16, 0), (512, v.VRING_DESC_F_WRITE), (1, v.VRING_DESC_F_WRITE)
        ranges = (16, 0), (32, 0), (1, v.VRING_DESC_F_WRITE)
        made = []
        for kind in (v.VIRTIO_BLK_T_IN, v.VIRTIO_BLK_T_FLUSH, v.VIRTIO_BLK_T_GET_ID, v.VIRTIO_BLK_T_DISCARD,
                     v.VIRTIO_BLK_T_WRITE_ZEROES, v.VIRTIO_BLK_T_OUT):  # fmt: skip
            place = BUFFERS + 0x1000 - RAM
            head = _row(POKE, place & 0xFF, place >> 8, 4, *struct.pack("<I", kind))
            shape = (
                ranges if kind in (v.VIRTIO_BLK_T_DISCARD, v.VIRTIO_BLK_T_WRITE_ZEROES, v.VIRTIO_BLK_T_OUT) else whole
            )
            made.append(ALIVE_ROW + head + self._request(0, *shape))
        return (*made, *super().seeds())

    def play(self, data: bytes) -> None:
        os.ftruncate(self._fd, 0)
        os.ftruncate(self._fd, 64 * v.SECTOR)
        self._readonly = bool(data[:1] and data[0] & 0x80)
        super().play(data)
        if self._readonly and any(os.pread(self._fd, 64 * v.SECTOR, 0)):
            raise Wrong("a read-only disk was written")

    def backend(self) -> VirtioBlk:
        return VirtioBlk(f"/proc/self/fd/{self._fd}", readonly=self._readonly)

    def host(self, mmio: VirtioMmio, device: VirtioBlk, taker: Taker) -> None:
        """The file becomes shorter, or as long as it was."""
        os.ftruncate(self._fd, (taker.number() % 65) * v.SECTOR)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Cable:
    """A link of the fuzzer's: it takes what is sent, or not now, or never again, and gives what was put into it."""

    name = "fuzzer"
    offloads = 0

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.full = self.down = False

    def fileno(self) -> int:
        return -1

    def _look(self) -> None:
        if self.down:
            raise LinkDown("the other end has gone")

    def receive(self) -> bytes | None:
        self._look()
        return self.waiting.pop(0) if self.waiting else None

    def send(self, packet: bytes) -> bool:
        self._look()
        if len(packet) < virtio_net.NET_HDR.size:
            raise Wrong(f"a packet of {len(packet)} bytes was sent")
        return not self.full

    def flush(self) -> bool:
        self._look()
        return not self.full

    def offload(self, features: int) -> None:
        """Nothing is offloaded."""

    def close(self) -> None:
        """Nothing to give back."""


class Net(VirtioTarget):
    """With frames that arrive, and a cable that is pulled."""

    name = "virtio-net"
    modules = ("vmm.machine.virtio.net", "vmm.machine.virtio.net_frames", "vmm.machine.virtio.filter")

    def seeds(self) -> Sequence[bytes]:
        receive = self._request(0, (512, v.VRING_DESC_F_WRITE)) + _row(HOST, 60)
        control = self._request(2, (2, 0), (1, 0), (1, v.VRING_DESC_F_WRITE))
        return ALIVE_ROW + receive, ALIVE_ROW + control, ALIVE_ROW + receive + _row(STATE), *super().seeds()

    def backend(self) -> VirtioNet:
        return VirtioNet(Cable(), bytes((2, 0, 0, 0, 0, 1)), mtu=1500)

    def host(self, mmio: VirtioMmio, device: VirtioNet, taker: Taker) -> None:
        link, frames, what = device.link, device.frames, taker.number()
        assert isinstance(link, Cable)
        if what < 0x80:
            link.waiting.append(bytes(virtio_net.NET_HDR.size) + taker.rest(what))
        elif what < 0xC0:
            device.set_link(bool(what & 1))
            if what & 2:
                device.announce()
        else:
            link.full, link.down = bool(what & 1), what & 0x3E == 0x3E
        # What its listener does, at once.
        if frames.wants_input or frames.has_more:
            frames.wants_input = frames.has_more = False
            mmio.wake(RECEIVE)
        if frames.wants_room and not link.full:
            frames.wants_room = frames.blocked = False
            mmio.wake(TRANSMIT)


BACKENDS = (Rng, Console, Blk, Net)
