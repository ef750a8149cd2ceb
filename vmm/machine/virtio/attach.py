# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtio devices for a machine: `m.add_virtio_rng()`, `m.add_virtio_console()`, `m.add_virtio_blk(path)`.

Each takes the next place of region `virtio_mmio`, a page with its registers, and with it an interrupt. Where KVM can, a
kick costs no exit (ioeventfd) and is served by a thread of the device's own, and an interrupt is an irqfd; else the
vCPU's thread serves the kick at its exit, and the interrupt is an ioctl. A driver cannot tell one from the other.
"""

from __future__ import annotations

from vmm.base.light import Generic, TypeVar
from vmm.base.record import Record
from vmm.errors import HostError, UsageError
from vmm.machine.devices.sink import OutputLimit, Sink
from vmm.machine.ends import Stop, Why
from vmm.machine.memory import layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from pathlib import Path

    from vmm.kvm.disk_thread import DiskThread
    from vmm.kvm.net_thread import NetThread
    from vmm.kvm.vm import Vm
    from vmm.machine.boards.board import Board, VirtioPlace
    from vmm.machine.bus.platform import Platform
    from vmm.machine.memory.slots import GuestMemory
    from vmm.machine.run.all_cpus import AllCpus
    from vmm.machine.run.lean import LeanLane
    from vmm.machine.virtio.blk import VirtioBlk
    from vmm.machine.virtio.console import VirtioConsole
    from vmm.machine.virtio.interrupts import Interrupts
    from vmm.machine.virtio.links.link import Link
    from vmm.machine.virtio.listener import Listener
    from vmm.machine.virtio.net import VirtioNet
    from vmm.machine.virtio.rng import VirtioRng
    from vmm.machine.virtio.service import Service
    from vmm.machine.virtio.transport import Backend, VirtioMmio

    Interrupt = Callable[[], object] | None
    AnyService = Service | DiskThread | NetThread

PLACE = 0x1000
FIRST_VECTOR = 0x40
NOTIFY_SIZE = 4

BackendT = TypeVar("BackendT", bound="Backend")
BackendT_co = TypeVar("BackendT_co", bound="Backend", covariant=True)


class Attached(Record, Generic[BackendT_co]):
    """A device in its place: `base` is where its registers begin, `vector` what its MSI has (irqchip=split).

    `device` is the backend (a console's `send`, a disk's `flushes`), `mmio` the transport (`status`, `trouble`,
    `counts`). `events`: kicks and interrupts pass through eventfds.
    """

    device: BackendT_co
    mmio: VirtioMmio
    base: int
    vector: int
    events: bool
    service: AnyService | None


class VirtioSlots:
    """Part of a machine: its virtio devices. Attach them before the run; they go with the machine."""

    vm: Vm
    platform: Platform
    memory: GuestMemory
    sink: Sink
    irqchip: str
    board: Board
    irq_line: Callable[[int, bool], object]
    all_cpus: AllCpus
    lane: LeanLane
    _virtio: tuple[Attached[Backend], ...] = ()
    _virtio_interrupts: Interrupts | None = None
    _listeners: tuple[Listener, ...] = ()

    def add_virtio_rng(
        self, source: Callable[[int], bytes] | None = None, *, vector: int | None = None, events: bool | None = None
    ) -> Attached[VirtioRng]:
        """A source of random bytes: source(n) gives n of them (default: the host kernel's).

        `vector` is that of its interrupt with irqchip=split (default: 0x40, 0x41, ... by place); with irqchip=kernel
        it has pin 16, 17, ... of the IOAPIC. `events` False does without ioeventfd and irqfd.

        Raises:
            UsageError: no place is left.
            HostError: the host gives no eventfd or thread for it, or the machine has been closed.
        """
        from vmm.machine.virtio.rng import VirtioRng

        return self._attach(VirtioRng(source) if source else VirtioRng(), vector, events)

    def add_virtio_console(
        self,
        output: Callable[[bytes], object] | None = None,
        *,
        cols: int = 80,
        rows: int = 25,
        vector: int | None = None,
        events: bool | None = None,
    ) -> Attached[VirtioConsole]:
        """A console: `output` gets what the guest writes (default: the machine's console), `device.send(data)` is its
        input; `cols` and `rows` are its size in characters. Otherwise as `add_virtio_rng`.
        """
        from vmm.machine.virtio.console import VirtioConsole

        device = VirtioConsole(output or self.sink.write, cols=cols, rows=rows)
        attached = self._attach(device, vector, events)
        device.wake, device.changed = attached.mmio.wake, attached.mmio.config_changed
        return attached

    def add_virtio_blk(
        self,
        path: str | Path,
        *,
        readonly: bool = False,
        vector: int | None = None,
        events: bool | None = None,
        in_c: bool = True,
    ) -> Attached[VirtioBlk]:
        """A disk over a regular file, in whole sectors of 512 bytes. Otherwise as `add_virtio_rng`.

        With `events` its requests are served in C, from kick to interrupt; `in_c` False serves them in Python.

        Raises:
            UsageError: the file cannot be opened so.
        """
        from vmm.machine.virtio.blk import VirtioBlk

        device = VirtioBlk(path, readonly=readonly)
        if not in_c:
            return self._attach(device, vector, events)
        return self._attach(device, vector, events, lambda mmio, interrupt: self._disk_in_c(device, mmio, interrupt))

    @property
    def virtio_places(self) -> tuple[VirtioPlace, ...]:
        """What a board's tables say of each device that has an interrupt line, in order. Such a device can be told to
        Linux by `virtio_mmio.device=SIZE@BASE:GSI`, too.
        """
        from vmm.machine.boards.board import VirtioPlace

        lines = self._virtio_interrupts.lines if self._virtio_interrupts else ()
        return tuple(VirtioPlace(each.base, PLACE, gsi) for each, gsi in zip(self._virtio, lines, strict=False))

    def add_virtio_net(
        self,
        link: str | int | socket.socket | Link | None,
        *,
        mac: str | bytes | None = None,
        mtu: int | None = None,
        vector: int | None = None,
        events: bool | None = None,
        in_c: bool = True,
    ) -> Attached[VirtioNet]:
        """A network card, plugged into `link`: words ("tap:tap0", "passt:/run/passt.socket"; docs/virtio.md has all), a
        descriptor of a tap or of a Unix socket, a socket (a copy is taken of both), or None: no cable.

        `mac` is "02:00:00:00:00:01" or six bytes (default: a random one), `mtu` what the driver is told, in bytes.
        `device.counts` has frames and bytes, `device.set_link(False)` pulls the cable. Otherwise as `add_virtio_rng`.

        With `events` frames are carried in C, between the queues and the link's descriptor; `in_c` False carries them
        in Python, which is also how a Link of your own is served.

        Raises:
            UsageError: the link cannot be had, there is no such address or MTU.
        """
        from vmm.machine.virtio.links import words
        from vmm.machine.virtio.listener import Listener
        from vmm.machine.virtio.net import VirtioNet

        if isinstance(link, str):
            said = words.parse(link)
            mac, mtu = mac or said.mac, mtu or said.mtu
        address = words.any_mac() if mac is None else words.mac(mac)
        if mtu is not None:
            words.check_mtu(mtu)
        device = VirtioNet(words.link_of(link), address, mtu=mtu)
        serve = (lambda mmio, interrupt: self._net_in_c(device, mmio, interrupt)) if in_c else None
        attached = self._attach(device, vector, events, serve)
        device.changed = attached.mmio.config_changed
        if device.link is not None and attached.mmio.engine is None:
            listener = Listener(device.name, device.frames, attached.mmio.wake, self._virtio_failed)
            device.frames.poke = listener.poke
            self._listeners = (*self._listeners, listener)
        return attached

    # -- wiring

    def _attach(
        self,
        device: BackendT,
        vector: int | None,
        events: bool | None,
        serve: Callable[[VirtioMmio, Interrupt], AnyService] | None = None,
    ) -> Attached[BackendT]:
        """`serve` makes what waits for kicks, with `events`; by default it is a thread of Python's."""
        from vmm.abi.virtio import VIRTIO_MMIO_INTERRUPT_STATUS
        from vmm.machine.virtio.dma import Dma
        from vmm.machine.virtio.interrupts import Interrupts
        from vmm.machine.virtio.transport import VirtioMmio

        place, region = len(self._virtio), layout.REGIONS["virtio_mmio"]
        base = region.base + place * PLACE
        vector = FIRST_VECTOR + place if vector is None else vector
        try:
            if self.vm.closed:
                raise HostError(f"adding {device.name}: this machine has been closed")
            events = self._has_events() if events is None else events
            if base >= region.end:
                raise UsageError(f"adding {device.name}: all {region.size // PLACE} places for virtio are taken")
            if self._virtio_interrupts is None:
                lines = self.board.device_lines(self.irqchip)
                self._virtio_interrupts = Interrupts(self.vm, self.irqchip, lines, self.irq_line)
            interrupt = self._virtio_interrupts.line(vector, events=events)
            mmio = VirtioMmio(device, Dma(self.memory), interrupt)
            self.platform.mmio.claim(base, PLACE, mmio)
            service = self._serve(mmio, base, lambda: (serve or self._in_python)(mmio, interrupt)) if events else None
            self.lane.finish.serve_acked(base + VIRTIO_MMIO_INTERRUPT_STATUS, mmio.acked)
        except BaseException:
            device.close()
            raise
        attached = Attached(device, mmio, base, vector, events, service)
        self._virtio = (*self._virtio, attached)
        return attached

    def _has_events(self) -> bool:
        return all(self.vm.check_extension(name) for name in ("IOEVENTFD", "IRQFD"))

    def _serve(self, mmio: VirtioMmio, base: int, make: Callable[[], AnyService]) -> AnyService:
        """Who waits for the device's kicks. KVM matches the queue's number in what is written to QUEUE_NOTIFY."""
        try:
            service = make()
        except BaseException:
            self.platform.mmio.release(mmio)
            raise
        try:
            self._bind(service, base)
        except BaseException:
            service.close()
            self.platform.mmio.release(mmio)
            raise
        return service

    def _in_python(self, mmio: VirtioMmio, _interrupt: Interrupt) -> Service:
        from vmm.machine.virtio.service import Service

        return Service(mmio.name, len(mmio.queues), lambda i: mmio.kick(i, "event"), self._virtio_failed)

    def _disk_in_c(self, device: VirtioBlk, mmio: VirtioMmio, interrupt: Interrupt) -> AnyService:
        from vmm.kvm.disk_thread import DiskThread
        from vmm.machine.virtio.disk_engine import DiskEngine, setup_of

        irq = _eventfd_of(interrupt)
        if irq is None:
            return self._in_python(mmio, interrupt)
        thread = DiskThread(mmio.name, setup_of(device, irq), mmio.acked, self._virtio_failed)
        mmio.engine = DiskEngine(device, thread, self.memory)
        return thread

    def _net_in_c(self, device: VirtioNet, mmio: VirtioMmio, interrupt: Interrupt) -> AnyService:
        from vmm.kvm.net_thread import NetThread
        from vmm.machine.virtio.net import CONTROL
        from vmm.machine.virtio.net_engine import NetEngine, setup_of

        irq = _eventfd_of(interrupt)
        setup = setup_of(device.link, -1 if irq is None else irq)
        if irq is None or setup is None:
            return self._in_python(mmio, interrupt)
        thread = NetThread(mmio.name, setup, mmio.acked, self._virtio_failed)
        mmio.engine = NetEngine(device, thread, self.memory)
        thread.changed, thread.command = mmio.config_changed, lambda: mmio.kick(CONTROL, "event")
        return thread

    def _bind(self, service: AnyService, base: int, *, deassign: bool = False) -> None:
        from vmm.abi.virtio import VIRTIO_MMIO_QUEUE_NOTIFY

        for number, fd in enumerate(service.events):
            address = base + VIRTIO_MMIO_QUEUE_NOTIFY
            self.vm.ioeventfd(fd, address, NOTIFY_SIZE, datamatch=number, deassign=deassign)

    def _virtio_failed(self, error: BaseException) -> None:
        """What a device's thread raised ends the run, as it would on a vCPU's thread."""
        if isinstance(error, OutputLimit):
            stop = Stop(Why.OUTPUT_LIMIT, error.text)
        else:
            stop = Stop(Why.INTERRUPTED, f"a virtio device failed: {type(error).__name__}: {error}")
        self.all_cpus.end(None, stop)

    def _close_virtio(self) -> None:
        """End the devices' threads and give back what they hold, while the VM is still there. Idempotent.

        Raises:
            HostError: KVM refused one of the calls, the first of them; all is closed all the same.
        """
        for listener in self._listeners:  # first: they wait for descriptors that the devices close
            listener.close()
        self._listeners = ()
        refused: list[HostError] = []
        for each in self._virtio:
            each.mmio.close()
            if each.service is not None:
                try:
                    if not self.vm.inherited and not each.service.ended:
                        self._bind(each.service, each.base, deassign=True)
                except HostError as error:
                    refused.append(error)
                finally:
                    each.service.close()
        self._virtio = ()
        if self._virtio_interrupts is not None:
            try:
                self._virtio_interrupts.close()
            except HostError as error:
                refused.append(error)
        if refused:
            raise refused[0]


def _eventfd_of(interrupt: Interrupt) -> int | None:
    """That of a device's interrupt, -1 if it has no interrupt. None: C, which can raise one by an eventfd alone, cannot
    raise it: a line of controllers that are ours.
    """
    from vmm.machine.virtio.interrupts import Irqfd

    if interrupt is None:
        return -1
    return interrupt.fd if isinstance(interrupt, Irqfd) else None
