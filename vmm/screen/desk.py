# SPDX-License-Identifier: GPL-2.0-or-later
"""A session and what of it is looked at: which vCPU, which memory, where the cursor is. It makes frames of both.

All of it is for the thread that runs the machine; what of it another thread may see is in `live`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from vmm.asm.disassembler import around
from vmm.base.bits import MASK64
from vmm.debug import conditions
from vmm.debug.session import Session
from vmm.debug.values import BREAKPOINT, Break, Stopped
from vmm.errors import UsageError, VmmError
from vmm.screen import look
from vmm.screen.arrange import Arrangement, arrange
from vmm.screen.commands import Names
from vmm.screen.exit_log import ExitLog
from vmm.screen.frame import Frame, panes
from vmm.screen.other_registers import others
from vmm.screen.panes.source import address_of, written_at
from vmm.screen.scene import GENERAL_ONES, BreakLook, OtherLook, Scene, StopLook

CONSOLE = 1 << 16  # bytes of the guest's console that are shown
SHOWN_STOPS = 1000


@dataclass
class View:
    """What is looked at. Expressions are evaluated anew at each stop, so that `rsp` is followed."""

    cursor: int | None = None
    line: tuple[str, int] | None = None
    top: tuple[str, int] | None = None
    memory_of: str = "rip"
    memory_moved: int = 0
    physical: bool = False
    stack_of: str = ""
    stack_moved: int = 0
    walk_of: str = "rip"
    disassembly: bool = False
    registers: str = GENERAL_ONES


@dataclass
class Then:
    """What had been by a stop: exits, and the guest's console."""

    exits: int
    console: bytes


@dataclass
class Desk:
    """`describe_end` gives the lines of a guest that has ended, with its post-mortem; `name` is what is debugged."""

    session: Session
    name: str
    describe_end: Callable[[Session, Stopped], list[str]]
    arrangement: Arrangement = field(default_factory=lambda: arrange(80, 24, "registers"))
    view: View = field(default_factory=View)
    go_on: bool = False
    """The guest's run has ended, and whoever began it is to have the result."""

    def __post_init__(self) -> None:
        self.log = ExitLog(self.session.machine, self.session.ours)
        self._before: look.Before = {}
        self._now: look.Before = {}
        self._others: dict[tuple[int, str], dict[str, str]] = {}
        self._others_before: dict[tuple[int, str], dict[str, str]] = {}
        self._then: dict[int, Then] = {}
        self._console = b""
        self._printed = self.session.machine.sink.length
        self._ended: list[str] = []
        self.at = 0

    def begins(self) -> None:
        """A run begins; nothing of it has run."""
        self._then.clear()
        self._now = {}
        self.mark(self.session.stops[-1])

    def close(self) -> None:
        """Let the machine go."""
        self.log.close()

    @property
    def console(self) -> bytes:
        """What the guest has written up to the present moment, which may be one that was gone back to."""
        return (self._console + self.session.machine.sink.since(self._printed))[-CONSOLE:]

    def mark(self, stopped: Stopped) -> None:
        """The machine stands still at a stop. Keeps what the next one is compared with."""
        machine = self.session.machine
        self._before = self._now
        self._now = {cpu.index: (cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()) for cpu in machine.cpus}
        self._others_before = self._others
        self._others = {}
        self.at = stopped.number
        self._then[self.at] = Then(self.log.count, self.console)
        self._ended = self.describe_end(self.session, stopped) if stopped.ended else []
        self.look_here()
        self.view.stack_moved = 0

    def went_back(self, stopped: Stopped) -> None:
        """The machine is as it was at an earlier stop: so are the exits and the console."""
        then = self._then.get(stopped.number)
        if then is not None:
            self.log.cut(then.exits)
            self._console, self._printed = then.console, self.session.machine.sink.length
        self.mark(stopped)
        for number in [each for each in self._then if each > stopped.number]:
            del self._then[number]

    # -- the cursor

    def look_here(self) -> None:
        """The cursor is where the vCPU is."""
        self.view.cursor = self.view.line = None

    def look_at(self, address: int) -> None:
        """The cursor is at this address."""
        self.view.cursor, self.view.line = address, None

    def move_cursor(self, rows: int) -> None:
        """Down by so many lines of the file, or so many instructions."""
        scene = self.scene()
        written = written_at(scene)
        if written is not None and not scene.disassembly and (lines := scene.files(written.file)):
            number = max(1, min(written.line + rows, len(lines)))
            self.view.line = (written.file, number)
            self.view.cursor = address_of(scene, written.file, number)
            return
        at = scene.cursor if scene.cursor is not None else scene.cpu.address
        count = abs(rows) + 1
        found = [each.address for each in around(scene.read, at, program=scene.program, before=count, after=count,
                                                 bits=scene.cpu.bits)]  # fmt: skip
        if at in found:
            self.look_at(found[max(0, min(found.index(at) + rows, len(found) - 1))])

    @property
    def cursor_at(self) -> int:
        """The address that the cursor means: of a line without code, that of the next one with some.

        Raises:
            UsageError: there is none.
        """
        view = self.view
        if view.cursor is not None:
            return view.cursor
        return self.session.address(f"{view.line[0]}:{view.line[1]}") if view.line else self.session.where().address

    # -- values

    def value(self, text: str) -> int:
        """What an expression is: registers, labels, numbers, memory.

        Raises:
            UsageError, GuestMemoryError: it is none, or cannot be had.
        """
        return conditions.evaluate(conditions.parse(text), self.session)

    def place(self, text: str) -> int:
        """A label, an address, FILE:LINE, or a line of the file that is shown; else an expression, such as rip + 4."""
        plain = text.strip()
        if plain.isdecimal():
            file = self.file()
            if file:
                return self.session.address(f"{file}:{plain}")
        try:
            return self.session.address(plain)
        except UsageError as error:
            if ":" in plain:
                raise
            try:
                return self.value(plain) & MASK64
            except VmmError:
                raise error from None

    def file(self) -> str:
        if self.view.line is not None:
            return self.view.line[0]
        at = self.view.cursor if self.view.cursor is not None else self.session.where().address
        found = self.session.program.source(at) if self.session.program else None
        return found.file if found is not None else ""

    def break_at(self, address: int) -> Break | None:
        """The breakpoint that is there."""
        return next((each for each in self.session.breaks if each.kind == BREAKPOINT and each.address == address), None)

    # -- frames

    def scene(self) -> Scene:
        """What the panes show."""
        session, view = self.session, self.view
        machine = session.machine
        cpu = machine.cpus[session.vcpu]
        cpus = tuple(look.cpu_look(machine, each, self._before) for each in machine.cpus)
        read = look.reader(machine, cpu)
        return Scene(
            cpus,
            vcpu=session.vcpu,
            program=session.program,
            read=read,
            read_physical=look.physical_reader(machine),
            walk=look.walker(machine, cpu),
            place=look.placer(machine),
            breaks=tuple(_break_look(each) for each in session.breaks),
            stops=tuple(self._stops()),
            exits=self.log.rows,
            devices=look.device_looks(machine),
            console=self.console.decode("utf-8", "replace"),
            ended=tuple(self._ended),
            cursor=view.cursor,
            line=view.line,
            top=view.top,
            memory_at=self._followed(view.memory_of) + view.memory_moved & MASK64,
            memory_of=view.memory_of if not view.memory_moved else f"{view.memory_of} {view.memory_moved:+#x}",
            physical=view.physical,
            stack_at=self._stack_at(),
            walk_at=self._followed(view.walk_of) if view.walk_of else None,
            walk_of=view.walk_of,
            disassembly=view.disassembly,
            registers=view.registers,
            others=self._other_registers(),
            files=look.file_lines,
        )

    def _other_registers(self) -> tuple[OtherLook, ...]:
        """What is looked at beside the general ones; marked where it was looked at at the stop before, too."""
        session, kind = self.session, self.view.registers
        if kind == GENERAL_ONES:
            return ()
        found = others(session.machine, session.machine.cpus[session.vcpu], kind)
        key = session.vcpu, kind
        self._others[key] = {each.name: each.value for each in found}
        old = self._others_before.get(key, {})
        return tuple(replace(each, changed=old.get(each.name, each.value) != each.value) for each in found)

    def _stack_at(self) -> int | None:
        view = self.view
        if not view.stack_of and not view.stack_moved:
            return None
        return self._followed(view.stack_of or "rsp") + view.stack_moved & MASK64

    def _followed(self, text: str) -> int:
        try:
            return self.value(text) & MASK64
        except VmmError:
            return 0

    def _stops(self) -> list[StopLook]:
        shown = self.session.stops[-SHOWN_STOPS:]
        return [StopLook(each.number, each.why, _said(each), _where(each), each.number == self.at) for each in shown]

    def frame(self) -> Frame:
        """The present moment, as text."""
        scene, session = self.scene(), self.session
        cpu, stopped = scene.cpu, self.stopped
        several = f"vCPU {session.vcpu} " if len(scene.cpus) > 1 else ""
        struck = stopped.breakpoint
        why = "until" if struck is not None and struck.temporary else stopped.why
        number = f" {struck.number}" if struck is not None and not struck.temporary else ""
        names = Names(
            tuple(session.symbols),
            self._files(),
            tuple(each.number for each in session.breaks),
            tuple(each.number for each in session.stops),
            len(scene.cpus),
        )
        state = f"{why}{number}: {several}at {cpu.where or hex(cpu.address)}, {cpu.mode}"
        made = panes(scene, self.arrangement)
        written, first = written_at(scene), made["source"].lines[0].click if made["source"].lines else None
        if written is not None and first is not None and first.what == "line":
            self.view.top = written.file, first.value
        return Frame(self.name, state, made, names, ended=stopped.ended)

    @property
    def stopped(self) -> Stopped:
        """The stop that the machine is at."""
        return self.session.stops[-1]

    def _files(self) -> tuple[str, ...]:
        rows = self.session.program.written if self.session.program else ()
        return tuple(dict.fromkeys(f"{each.file.rpartition('/')[2]}:" for each in rows if each.line))


def _said(stopped: Stopped) -> str:
    """What its kind does not say."""
    return "" if stopped.text in (stopped.why, f"a {stopped.why}") else stopped.text


def _where(stopped: Stopped) -> str:
    where = stopped.where
    at = f"{where.symbol}+{where.offset:#x}" if where.offset else where.symbol or f"{where.address:#x}"
    return f"{at} {where.file.rpartition('/')[2]}:{where.line}" if where.file else at


def _break_look(each: Break) -> BreakLook:
    at = each.address if each.kind == BREAKPOINT else None
    when = f" if {each.when}" if isinstance(each.when, str) else ""
    return BreakLook(each.number, f"{each.what}{when}", at, each.hits, each.kind)
