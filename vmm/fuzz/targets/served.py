# SPDX-License-Identifier: GPL-2.0-or-later
"""What answers beside a machine that stands still: the hypercall service, and what a gdb client's packets mean.

Both need /dev/kvm. The machine is made once. What an input leaves in its memory and registers is put back by
`Machine.reset`; a session is made anew for each input.
"""

from __future__ import annotations

from collections.abc import Sequence

from vmm.abi import pv
from vmm.base.bits import MASK64
from vmm.debug.gdb.commands import Commands, Going
from vmm.debug.gdb.packets import Decoder, Packet, encode
from vmm.debug.session import Session
from vmm.errors import VmmError
from vmm.fuzz.taker import rows
from vmm.fuzz.target import HostTarget, Wrong, files_of
from vmm.machine.extra.hypercalls import HypercallService
from vmm.machine.machine import Machine

GUEST = "start: mov rax, 5\nagain: inc rax\n cmp rax, 40\n jb again\n hlt\n"
PACKETS = b"""qSupported:swbreak+ ? g m20000,10 Z0,20003,1 vCont;c vCont;s:1 p10 c qXfer:features:read:target.xml:0,40
qRcmd,68656c70 P0=0100000000000000 M20000,1:90 X20000,1:a vFile:open:2f,0,0 Hg1 T1 Z2,20000,8 z0,20003,1 qfThreadInfo"""
CALLS = tuple(each.nr for each in pv.HYPERCALLS)


class Hypercalls(HostTarget):
    """A row is a call: its number, privilege, and four arguments of which each is a small number, an address or any."""

    name = "hypercalls"
    row = 34
    most = 8 * row
    files = files_of("vmm.machine.extra.hypercalls")

    def __init__(self) -> None:
        super().__init__()
        self._machine = Machine("2M", irqchip="split")
        self._machine.load(GUEST)
        self._service = HypercallService(self._machine)
        self._snapshot = self._machine.snapshot()

    def seeds(self) -> Sequence[bytes]:
        arguments = b"".join(value.to_bytes(8, "little") for value in (0x1000, 1, 0x10, 0))
        return tuple(bytes((index, 0)) + arguments for index in range(len(CALLS)))

    def play(self, data: bytes) -> None:
        machine = self._machine
        service = self._service
        try:
            for taker in rows(data, self.row, 8):
                which, how = taker.number(), taker.number()
                service.enforce = bool(how & 4)
                nr = CALLS[which % len(CALLS)] if which < 0xF0 else which
                arguments = tuple(taker.number(8) for _ in range(4))
                answer = service.serve(machine.cpus[0], nr, arguments, cpl=how & 3)
                if not -(1 << 63) <= answer <= MASK64:
                    raise Wrong(f"hypercall {nr} answered {answer:#x}")
                if how & 3 and answer != -pv.KVM_EPERM:
                    raise Wrong(f"hypercall {nr} from ring {how & 3} answered {answer}")
        finally:
            machine.reset(self._snapshot)
            service.served.clear()
            service.private.clear()
            service.ranges.clear()

    def close(self) -> None:
        self._snapshot.close()
        self._machine.close()


class Gdb(HostTarget):
    """The bytes of a client: framing, then each packet's meaning, where the guest may run for a moment."""

    name = "gdb"
    most = 512
    files = files_of(*(f"vmm.debug.gdb.{name}" for name in (
        "packets", "commands", "agent", "registers", "regions", "monitor", "pages", "remote_file", "target_xml"
    )))  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._machine = Machine("2M")
        self._machine.timeout = 0.2
        self._machine.load(GUEST)
        self._snapshot = self._machine.snapshot()

    def seeds(self) -> Sequence[bytes]:
        packets = PACKETS.split()
        return (*(encode(each) for each in packets), b"".join(map(encode, packets[:6])))

    def words(self) -> Sequence[bytes]:
        return (*super().words(), b"$", b"#", b",", b":", b";", *(each for each in self.seeds() if len(each) < 40))

    def play(self, data: bytes) -> None:
        session = Session(self._machine, limit=0.2, history=0)
        commands = Commands(lambda text: None)
        try:
            session.keep_interrupts = session.brief = True
            session.begin()
            commands.begin(session)
            for found in _packets(data):
                if self._answer(session, commands, found):
                    return
        finally:
            session.close()
            self._machine.reset(self._snapshot)

    def _answer(self, session: Session, commands: Commands, packet: bytes) -> bool:
        """As the server does it; True where the run is over."""
        try:
            reply = commands.serve(session, packet)
            commands.console()
            if isinstance(reply, Going) and reply.what == "go":
                reply.run(session)
            elif isinstance(reply, Going):
                return True
        except (VmmError, ValueError, IndexError, KeyError, OverflowError):
            return False  # the client is told
        return session.ended

    def close(self) -> None:
        self._snapshot.close()
        self._machine.close()


def _packets(data: bytes) -> list[bytes]:
    """Those that these bytes are; a mutated one gets the sum that it needs."""
    decoder, found = Decoder(), []
    for each in data.split(b"$")[1:]:
        body = each.rpartition(b"#")[0] or each
        framed = b"$" + body + b"#%02x" % (sum(body) % 256)
        found += [one.data for one in decoder.feed(framed) if isinstance(one, Packet)]
    return found[:16]
