# SPDX-License-Identifier: GPL-2.0-or-later
"""A gdb server: the front end of a Session for each machine that runs, with one client at a time.

It serves packets on the thread of Machine.run while the machine stands still; while it runs, whatever comes from the
client interrupts it (wire.py). It decides who goes on and when; a packet's meaning is commands.py's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vmm.debug.gdb.commands import Commands, Going
from vmm.debug.gdb.packets import Packet
from vmm.debug.gdb.wire import CAME, GONE, INTERRUPT, Wire
from vmm.debug.session import Session
from vmm.debug.values import BREAKPOINT, FAULT, INTERRUPTED, WATCHPOINT, Stopped
from vmm.errors import VmmError

if TYPE_CHECKING:
    from vmm.asm.program import Program
    from vmm.machine.machine import Machine

SIGINT, SIGTRAP, SIGSEGV, SIGSTOP = 2, 5, 11, 17  # as gdb numbers them


class GdbServer:
    """Listens as soon as it is made; `where` is what `target remote` needs. `say` tells a person one line.

    Raises:
        UsageError, HostError: it cannot listen there.
    """

    def __init__(
        self,
        address: int | str | None = None,
        *,
        wait: bool = False,
        limit: float | None = None,
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        self.wait, self._limit, self._say = wait, limit, say
        self.session: Session | None = None
        self._running = False
        self._going: Going | None = None
        self._free = False  # no client, and the time limit of this run counts
        self._killed = False
        self._told = ""  # the last stop reply
        self._notes: list[str] = []
        self._commands = Commands(self._note)
        self._wire = Wire(address, self._attention)
        self.where = self._wire.where
        say(f"gdb: target remote {self.where}")

    def attach(self, machine: Machine, program: Program | None = None, image: bytes | None = None) -> Session:
        """Hold every run of this machine from now on. `image` is the ELF file that the client gets as exec-file, where
        the program tells of none."""
        session = Session(machine, program, front=self.front, limit=self._limit, history=0)
        session.keep_interrupts = session.brief = True
        if image is not None:
            self._commands.image = image
        return session

    @property
    def killed(self) -> bool:
        """A client has ended a run, and with it all that follow."""
        return self._killed

    def close(self, status: int = 0) -> None:
        """The client is told that all is over, with this exit status."""
        if self._wire.connected and self._going is not None:
            self._flush()
            self._wire.send(b"X09" if self._killed else b"W%02x" % (status & 0xFF))
        self._wire.close()

    # -- one run

    def front(self, session: Session) -> None:
        """A run begins; Session.hold calls this, and is given back the machine when the run has ended."""
        self.session, self._free = session, False
        self._commands.begin(session)
        if self.wait:
            self.wait = False
            self._say(f"gdb: waiting for a client at {self.where}; ^C ends")
            while not self._wire.connected:
                self._take(wait=True)
        try:
            while not self._killed and self._turn(session):
                pass
            if self._killed and not session.ended:
                session.kill()
        finally:
            self._running = False
            self.session = None

    def _turn(self, session: Session) -> bool:
        """One thing at a time: a packet, or a stretch of the run. False: the run is over, and looked at."""
        if not self._wire.connected:
            self._alone(session)
            if self._take():
                pass
            elif session.ended:
                return False
            else:
                self._run(session, None)
        elif self._going is None:
            self._take(wait=True)
        elif session.ended:
            return False
        else:
            self._run(session, self._going)
        return True

    def _alone(self, session: Session) -> None:
        """There is no client, perhaps no more: nothing stops the guest for one, and its time limit counts."""
        self._going = None
        self._commands.gone(session)
        if not self._free:
            session.limit_from_now(session.given if session.given is not None else session.machine.timeout)
        self._free = True

    def _take(self, *, wait: bool = False) -> bool:
        """One of what the client sends, or that it comes or goes; False where nothing came."""
        found = self._wire.take(wait=wait)
        if found == CAME:
            self._going, self._free = None, False
            if self.session is not None:
                self.session.limit_from_now(self._limit)
            self._told = "T05"
            self._commands.came()
        if isinstance(found, Packet):
            self._answer(found)
        return found is not None

    def _answer(self, packet: Packet) -> None:
        session = self.session
        assert session is not None
        if packet.data == b"?":
            self._wire.send((self._told or "T05").encode() if not self._told.startswith("T05") else self._stop(session))
            return
        if packet.data == b"QStartNoAckMode":
            self._wire.acknowledges = False
        try:
            reply = self._commands.serve(session, packet.data)
        except VmmError as error:
            self._wire.send(b"E." + error.text.encode()[:500])
            return
        except (ValueError, IndexError, KeyError, OverflowError):
            reply = b"E01"
        for text in self._commands.console():
            self._wire.send(b"O" + text.encode().hex().encode())
        if isinstance(reply, Going):
            self._go_on(session, reply)
        elif reply is not None:
            self._wire.send(reply)

    def _go_on(self, session: Session, going: Going) -> None:
        match going.what:
            case "kill":
                self._killed = True
                if going.reply:
                    self._wire.send(going.reply)
                self._going = None if going.reply else going
            case "detach":
                self._wire.send(b"OK")
                self._wire.connected = False
                self._wire.hang_up()
                self._commands.gone(session)
            case _:
                self._going = going

    def _run(self, session: Session, going: Going | None) -> None:
        """Let the guest run, as the client asked (None: there is none), and tell it why it stopped."""
        self._running = True
        try:
            if self._wire.waiting:
                session.interrupt()
            with self._wire.watched():
                stopped = going.run(session) if going else session.go()
        except VmmError as error:
            if going is None:
                raise
            self._note(f"{error.text}\n")
            self._report(session, None)
            return
        finally:
            self._running = False
        if going is None:
            return
        if stopped.ended and stopped.why != FAULT:
            self._note(f"the run has ended: {stopped.text}\n")
            self._going = self._commands.on
            return
        if stopped.why == INTERRUPTED:
            if self._wire.peek() is None and self._wire.connected:
                return  # late: what came was served before this run began, and the client has asked for nothing since
            self._drain()
            if not self._wire.connected:
                return
        self._report(session, stopped)

    def _drain(self) -> None:
        """What interrupted: a ^C is done with now; anything else is served as it comes."""
        while self._wire.peek() in (INTERRUPT, GONE):
            if self._wire.take() == GONE:
                break

    def _report(self, session: Session, stopped: Stopped | None) -> None:
        self._going = None
        self._flush()
        self._told = self._reply(session, stopped)
        self._wire.send(self._told.encode())

    def _stop(self, session: Session) -> bytes:
        return self._reply(session, session.stops[-1] if session.stops else None, asked=True).encode()

    def _reply(self, session: Session, stopped: Stopped | None, *, asked: bool = False) -> str:
        """T and what is known. Where it could not be done at all (None) the signal is one that ends a client's step."""
        signal = SIGTRAP if asked else SIGSTOP
        why = ""
        if stopped is not None:
            signal = {INTERRUPTED: SIGINT, FAULT: SIGSEGV}.get(stopped.why, SIGTRAP)
            struck = stopped.breakpoint
            if struck is not None and not self._commands.has_set(struck):
                self._note_once(stopped)  # gdb would take a breakpoint that it does not know for a late one, and go on
            elif stopped.why == BREAKPOINT and struck is not None:
                why = "hwbreak:;" if struck.hardware else "swbreak:;"
            elif stopped.why == WATCHPOINT and struck is not None:
                why = f"{ {'write': 'watch', 'read': 'rwatch', 'access': 'awatch'}[struck.access] }:{struck.address:x};"
            elif stopped.why == FAULT:
                self._note_once(stopped)
        return f"T{signal:02x}thread:{session.vcpu + 1:x};{why}{self._commands.expedited(session)}"

    def _note_once(self, stopped: Stopped) -> None:
        text = f"{stopped.text}\n"
        if text not in self._notes:
            self._wire.send(b"O" + f"pyvmm: {text}".encode().hex().encode())

    def _note(self, text: str) -> None:
        """A line for the person at gdb; sent before the next stop reply."""
        self._notes.append(text)

    def _flush(self) -> None:
        notes, self._notes = self._notes[:100], []
        for text in notes:
            self._wire.send(b"O" + f"pyvmm: {text}".encode().hex().encode())

    def _attention(self) -> None:
        """On the thread of the wire: something came."""
        session = self.session
        if self._running and session is not None:
            session.interrupt()
