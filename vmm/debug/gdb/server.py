# SPDX-License-Identifier: GPL-2.0-or-later
"""A gdb server: the front end of a Session for each machine that runs, with one client at a time.

It serves packets on the thread of Machine.run while the machine stands still; while it runs, whatever comes from the
client interrupts it (wire.py). It decides who goes on and when; a packet's meaning is commands.py's.

A client of `target extended-remote` stays when its guest is gone: killed by it, or ended. What `run` then starts is the
whole payload, by whoever began it (`anew`); or, where a script began the run and could not do so, this run from its
snapshot.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vmm.debug.gdb.commands import Commands, Going
from vmm.debug.gdb.packets import Packet
from vmm.debug.gdb.wire import CAME, GONE, INTERRUPT, Wire
from vmm.debug.session import Session
from vmm.debug.values import BREAKPOINT, FAULT, INTERRUPTED, PLAIN_STEP, STEP, WATCHPOINT, Stopped
from vmm.errors import VmmError

if TYPE_CHECKING:
    from vmm.asm.program import Program
    from vmm.machine.machine import Machine

SIGINT, SIGTRAP, SIGSEGV, SIGSTOP = 2, 5, 11, 17  # as gdb numbers them


class GdbServer:
    """Listens as soon as it is made; `where` is what `target remote` needs. `say` tells a person one line. `again`:
    whoever made it asks `anew` when all runs have ended.

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
        again: bool = False,
    ) -> None:
        self.wait, self._limit, self._say, self._can_begin = wait, limit, say, again
        self.session: Session | None = None
        self._running = False
        self._going: Going | None = None
        self._free = False  # no client, and the time limit of this run counts
        self._killed = False
        self._extended = False  # the client stays without a guest
        self._dead = False  # it does so now
        self._anew: Going | None = None  # what asked to begin all runs once more
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

    def anew(self, status: int = 0) -> bool:
        """All runs have ended, with this exit status: does a client want them once more? One of `target
        extended-remote` is waited for, until it says so or goes."""
        if self._stays():
            self._end(status)
            self._dies(f"W{status & 0xFF:02x}", "it has ended")
            while self._stays():
                self._take(wait=True)
        if self._anew is None:
            return False
        self._killed = False
        self._say("gdb: the guest is started anew")
        return True

    def _stays(self) -> bool:
        """Is there a client that outlives its guest, and wants neither to start nor to end it?"""
        return self._extended and self._wire.connected and not self._killed

    def close(self, status: int = 0) -> None:
        """The client is told that all is over, with this exit status."""
        self._end(status)
        self._wire.close()

    def _end(self, status: int) -> None:
        """To a client that waits for a stop."""
        if not self._wire.connected:
            return
        if self._going is not None:
            self._flush()
            self._wire.send(b"X09" if self._killed else b"W%02x" % (status & 0xFF))
        elif self._anew is not None:
            self._wire.send(b"E.the guest could not be started anew")
        self._going = self._anew = None

    def _dies(self, told: str, why: str) -> None:
        """There is no guest any more, for a client that stays."""
        self._dead, self._going, self._told = True, None, told
        self._say(f"gdb: {why}; `run` in gdb starts it anew, and gdb's end is the end")

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
        if self._anew is not None:
            self._begins(session, self._anew)
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
            if self._dead:
                self._killed = True
                return False
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
            self._extended = self._dead = False
            if self.session is not None:
                self.session.limit_from_now(self._limit)
            self._told = "T05"
            self._commands.came()
        if isinstance(found, Packet):
            self._answer(found)
        return found is not None

    def _answer(self, packet: Packet) -> None:
        session = self.session
        if packet.data == b"?":
            stands = session is not None and not self._dead and self._told.startswith("T05")
            self._wire.send(self._stop(session) if stands and session else (self._told or "T05").encode())
            return
        if packet.data == b"QStartNoAckMode":
            self._wire.acknowledges = False
        try:
            if session is None or self._dead:
                reply: bytes | Going | None = self._commands.without_guest(packet.data)
            else:
                reply = self._commands.serve(session, packet.data)
            if isinstance(reply, Going) and reply.what in ("anew", "restart"):
                self._start(session, reply)
                return
        except VmmError as error:
            if packet.data.startswith(b"vRun"):
                self._say(f"gdb: {error.text}")  # gdb has words of its own for a `run` that fails
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

    def _start(self, session: Session | None, going: Going) -> None:
        """Begin anew: the guest that there is, if there is one, ends. UsageError: it cannot be done here."""
        if self._can_begin:
            self._anew, self._killed = going, True
            if session is not None:
                self._commands.gone(session)
        elif session is not None:
            self._commands.restart(session)
            self._commands.gone(session)
            self._begins(session, going)

    def _begins(self, session: Session, going: Going) -> None:
        """This run is what a client has wanted anew: it knows none of its guest's threads yet, and has set nothing."""
        self._anew, self._dead, self._going = None, False, None
        self._commands.came()
        session.limit_from_now(self._limit)
        self._told = self._reply(session, None, asked=True)
        if going.what == "anew":
            self._wire.send(self._told.encode())

    def _go_on(self, session: Session | None, going: Going) -> None:
        match going.what:
            case "extended":
                self._extended = True
                self._wire.send(b"OK")
            case "kill" if self._extended and going.reply:
                self._wire.send(going.reply)
                if session is not None:
                    self._commands.gone(session)
                if not self._dead:
                    self._dies("X09", "it is killed")
            case "kill":
                self._killed = True
                if going.reply:
                    self._wire.send(going.reply)
                self._going = None if going.reply else going
            case "detach":
                self._wire.send(b"OK")
                self._wire.connected = False
                self._wire.hang_up()
                if session is not None:
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
            elif stopped.why == FAULT or (stopped.why == STEP and stopped.text != PLAIN_STEP):
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
