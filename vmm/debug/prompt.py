# SPDX-License-Identifier: GPL-2.0-or-later
"""A prompt at machines that stand still, a line at a time as in pdb: what a failed test leaves open. It knows Sessions,
and no test runner. What it shares with gdb's `monitor` is gdb/monitor.py's.
"""

from __future__ import annotations

import cmd
import code
import shlex
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from vmm.debug import conditions
from vmm.debug.gdb.monitor import Monitor
from vmm.debug.session import Session
from vmm.errors import UsageError, VmmError
from vmm.machine.run.call import prepare
from vmm.machine.x86.registers import names as register_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType
    from typing import Any

    from vmm.debug.values import Stopped
    from vmm.machine.ends import Result
    from vmm.machine.machine import Machine

ROW = 16
MOST_BYTES = 1 << 16
MOVES = ("step", "over", "line", "finish", "until", "continue")
INTRO = "step, where, registers, mem, continue, ...: help lists them; ^D goes on with the tests, q ends them"
AROUND = 5  # source lines before and after the one that a vCPU is at
SHORT = {
    "s": "step", "o": "over", "n": "line", "f": "finish", "u": "until", "c": "continue", "r": "back", "w": "where",
    "regs": "registers", "x": "mem", "l": "list", "p": "print", "b": "break", "d": "delete", "m": "machine",
    "pm": "postmortem", "q": "quit", "h": "help", "?": "help", "py": "python", "EOF": "next",
}  # fmt: skip


class Open(NamedTuple):
    """A machine that may be looked at, the result of its last run if that has ended, and its post-mortem as text."""

    machine: Machine
    result: Result | None = None
    ending: str = ""


class Prompt(cmd.Cmd):
    """The loop. `quitting` says that no further test is to run."""

    prompt = "(pyvmm) "

    def __init__(self, opened: Sequence[Open], names: dict[str, Any]) -> None:
        """`names` are what Python sees at this prompt, beside `m`, `s` and `machines`."""
        super().__init__()
        self.opened, self.given = list(opened), names
        self.quitting = False
        self._sessions: dict[int, Session] = {}
        self._ours: list[Session] = []
        self._monitor = Monitor()
        self._choose(len(opened) - 1)

    def _choose(self, number: int) -> None:
        self.number = number
        machine, result, _ = self.opened[number]
        if number not in self._sessions:
            if isinstance(machine.holder, Session):
                self._sessions[number] = machine.holder  # the test's own, or that of a gdb server
                return
            made = self._sessions[number] = Session(machine)
            self._ours.append(made)
            made.keep_interrupts = True
            if result is not None:
                made.stand_at_end(result)

    @property
    def session(self) -> Session:
        """Of the machine that is looked at."""
        return self._sessions[self.number]

    def close(self) -> None:
        """The machines are as they were left, and belong to the test again."""
        for each in self._ours:
            each.close()

    # -- the loop

    def onecmd(self, line: str) -> bool:
        """One line; an error is said in one line, too, and ends nothing."""
        word, _, rest = line.strip().partition(" ")
        if line.lstrip().startswith("!"):
            word, rest = "python", line.lstrip()[1:]
        if word == "EOF":
            self.say("")
        try:
            return bool(super().onecmd(f"{SHORT.get(word, word)} {rest}".strip()))
        except VmmError as error:
            self.say(error.text + (f"; try: {error.hint}" if error.hint else ""))
        except (ValueError, IndexError) as error:
            self.say(f"{word}: {error}; `help {SHORT.get(word, word)}` says what it takes")
        except KeyboardInterrupt:
            self.say("interrupted")
        return False

    def default(self, line: str) -> None:
        """What this prompt does not know, gdb's `monitor` may."""
        self._monitor.serve(self.session, line, self.session.vcpu)
        for text in self._monitor.printed():
            self.say(text.rstrip("\n").replace("monitor command", "command").replace("`monitor help`", "`help`"))

    def cmdloop(self, intro: Any = None) -> None:
        """Until the next test is asked for, or none; ^C at the prompt is a new line."""
        while True:
            try:
                super().cmdloop(intro)
            except KeyboardInterrupt:
                self.say("")
                intro = ""
                continue
            return

    def say(self, text: str) -> None:
        """What a guest wrote is made safe to show."""
        shown = (each if each.isprintable() or each in "\n\t" else ascii(each)[1:-1] for each in text)
        self.stdout.write("".join(shown) + "\n")
        self.stdout.flush()

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """^C stops the guest, and not the tests."""

        def stop(_number: int, _frame: FrameType | None) -> None:
            self.session.interrupt()

        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _went(self, run: Callable[[], Stopped], doing: str = "") -> None:
        try:
            with self._interruptible():
                if doing:
                    self.say(doing)
                stopped = run()
        except VmmError:
            raise
        except Exception as error:  # whatever a callback of the test's raises
            self.say(f"a callback raised {type(error).__name__}: {error}")
            self.do_where("")
            return
        self.say(str(stopped))
        changed = [f"{name} {old:#x} -> {new:#x}" for name, (old, new) in stopped.changed.items() if name != "rip"]
        if changed:
            self.say("  " + ", ".join(changed))

    def emptyline(self) -> bool:
        """Once more, of what makes the guest go."""
        return self.onecmd(self.lastcmd) if self.lastcmd.partition(" ")[0] in MOVES else False

    def completenames(self, text: str, *ignored: Any) -> list[str]:
        """Of all commands."""
        return [each for each in self._commands() if each.startswith(text)]

    def completedefault(self, text: str, *ignored: Any) -> list[str]:
        """Labels and registers."""
        return [each for each in (*self.session.symbols, *register_names()) if each.startswith(text)]

    # -- what runs the guest

    def do_step(self, rest: str) -> None:
        """step [N]: N instructions, one without a number"""
        count = int(rest or "1", 0)
        self._went(lambda: self.session.step(count))

    def do_over(self, _rest: str) -> None:
        """over: one instruction, a call as a whole"""
        self._went(self.session.step_over)

    def do_line(self, _rest: str) -> None:
        """line: to the next line of the source"""
        self._went(self.session.step_line)

    def do_finish(self, _rest: str) -> None:
        """finish: until the function returns"""
        self._went(self.session.finish)

    def do_until(self, rest: str) -> None:
        """until WHERE: to a label, an address, FILE:LINE"""
        self._went(lambda: self.session.until(rest))

    def do_continue(self, _rest: str) -> None:
        """continue: until something stops the guest; ^C does. On with the tests goes `next`"""
        self._went(self.session.go, "it runs; ^C stops it")

    def do_back(self, rest: str) -> None:
        """back [N]: to the stop before, or to stop N"""
        self.say(f"{self.session.back(int(rest or '-1', 0))}")

    def do_call(self, rest: str) -> None:
        """call FUNCTION [ARGUMENT ...]: as Machine.call, to its first instruction: step, or continue, from there"""
        function, *words = shlex.split(rest)
        at = self.session.address(function)
        prepare(self.opened[self.number].machine, at, [self._value(each) for each in words])
        self._anew()

    def do_restart(self, _rest: str) -> None:
        """restart: the program is loaded again, and stands at its begin; other memory stays as it is"""
        machine = self.opened[self.number].machine
        if machine.program is None or not machine.program.code or machine.board.name != "own":
            raise UsageError("restart: there is no program of pyvmm's own to load again")
        machine.load(machine.program)
        self._anew()

    def _anew(self) -> None:
        self.session.begin()
        self.do_where("")

    # -- looking

    def do_where(self, _rest: str) -> None:
        """where: each vCPU's place, with its source line"""
        self.default("where")

    def do_list(self, _rest: str) -> None:
        """list: the source around the place"""
        session = self.session
        here, program = session.where(), session.program
        rows = program.written if program else ()
        text = {each.line: each.text for each in rows if each.file == here.file and each.line}
        if not here.file or not text:
            self.do_dis("")
            return
        numbers = sorted(text)
        at = numbers.index(here.line)
        for number in numbers[max(0, at - AROUND) : at + AROUND + 1]:
            self.say(f"{'->' if number == here.line else '  '} {number:>4}  {text[number].rstrip()}")

    def do_dis(self, rest: str) -> None:
        """dis [WHERE]: eight instructions from there on"""
        for each in self.session.disassemble(rest or None):
            self.say(f"{each.address:#10x}  {each.bytes.hex(' '):30}  {each.text}")

    def do_registers(self, _rest: str) -> None:
        """registers: rax to r15, rip, rflags; `print cr3` and `set` know all names"""
        rows = [f"{name:>7} {value:016x}" for name, value in self.session.registers().items()]
        for at in range(0, len(rows), 3):
            self.say("  ".join(rows[at : at + 3]))

    def do_mem(self, rest: str) -> None:
        """mem WHERE [BYTES]: guest-virtual memory; `phys` shows guest-physical"""
        where, *size = rest.split()
        at = self._value(where) if where in register_names() else self.session.address(where)
        data = self.session.read(at, min(max(int(size[0], 0) if size else 4 * ROW, 1), MOST_BYTES))
        for offset in range(0, len(data), ROW):
            row = data[offset : offset + ROW]
            text = "".join(chr(each) if 0x20 <= each < 0x7F else "." for each in row)
            self.say(f"{at + offset:#012x}  {row.hex(' '):47}  {text}")

    def do_print(self, rest: str) -> None:
        """print EXPRESSION: registers, labels, [memory]: rax + 8, [counter], u8[rsp + 4]"""
        value = self._value(rest)
        program = self.session.program
        label = (program.symbolize(value) if program else None) or ""
        self.say(f"{value:#x} ({value})  {label}".rstrip())

    def _value(self, text: str) -> int:
        return conditions.evaluate(conditions.parse(text), self.session)

    def do_stops(self, _rest: str) -> None:
        """stops: all so far; `back N` goes to one"""
        for each in self.session.stops or ():
            self.say(str(each))
        if not self.session.stops:
            self.say("none yet")

    def do_console(self, _rest: str) -> None:
        """console: what the guest has written"""
        self.say(self.opened[self.number].machine.sink.data.decode("utf-8", "replace") or "nothing")

    def do_postmortem(self, _rest: str) -> None:
        """postmortem: how the test's run ended"""
        self.say(self.opened[self.number].ending or "its last run did not crash")

    # -- changing

    def do_set(self, rest: str) -> None:
        """set REGISTER VALUE, set WHERE BYTES: an expression, or bytes as hexadecimal digits"""
        target, value = rest.split(None, 1)
        if target.lower() in register_names():
            self.session.set_register(target.lower(), self._value(value))
            self.do_print(target.lower())
        else:
            data = bytes.fromhex(value.replace("0x", ""))
            self.session.write(target, data)
            self.say(f"{len(data)} bytes at {self.session.address(target):#x}")

    # -- this prompt

    def do_machine(self, rest: str) -> None:
        """machine [N]: the machines of this test, or look at machine N"""
        if rest:
            number = int(rest, 0) - 1
            if not 0 <= number < len(self.opened):
                raise UsageError(f"machine {rest}: there are 1 to {len(self.opened)}")
            self._choose(number)
        for number in range(len(self.opened)):
            result = self.opened[number].result
            ended = result.stop.text if result is not None else "has not ended a run"
            self.say(f"{'*' if number == self.number else ' '} machine {number + 1}: {ended}")
        self.do_where("")

    def do_vcpu(self, rest: str) -> None:
        """vcpu N: the one that is meant from now on"""
        number = int(rest, 0)
        self.session.where(number)
        self.session.vcpu = number
        self.do_where("")

    def do_python(self, rest: str) -> None:
        """python, or !CODE: Python with m (the machine), s (its Session), machines, and the test's own names"""
        opened = [each.machine for each in self.opened]
        names = {**self.given, "m": opened[self.number], "s": self.session, "machines": opened}
        console = code.InteractiveConsole(names)
        if rest:
            console.push(rest)
        else:
            console.interact("m, s, machines and the test's own names; ^D comes back", exitmsg="")
        self.given.update({name: value for name, value in names.items() if name not in ("m", "s", "machines")})

    def _commands(self) -> dict[str, str]:
        """What each takes and does."""
        others = {name: text for name, text in self._monitor.commands.items() if name not in ("help", "reset")}
        found = {name: f"{name} {text}" if text[0].isupper() else f"{name}: {text}" for name, text in others.items()}
        own = [name for name in self.get_names() if name.startswith("do_")]
        return dict(sorted({**found, **{name[3:]: getattr(self, name).__doc__ for name in own}}.items()))

    def do_help(self, rest: str) -> None:
        """help [COMMAND]: this list"""
        wanted, commands = SHORT.get(rest, rest), self._commands()
        if wanted and wanted not in commands:
            raise UsageError(f"there is no command {rest!r}", hint="help")
        short = {whole: each for each, whole in SHORT.items() if each.isalpha() and each != "EOF"}
        for name, text in commands.items():
            if not wanted or name == wanted:
                self.say(f"{short.get(name, ''):4} {text}")

    def do_next(self, _rest: str) -> bool:
        """next, or ^D: on with the tests; the machines go as after any test"""
        return True

    def do_quit(self, _rest: str) -> bool:
        """quit: no more tests"""
        self.quitting = True
        return True


def prompt(opened: Sequence[Open], names: dict[str, Any]) -> bool:
    """Serve lines until there is no more input; the last of these machines is looked at first. True: no more tests."""
    made = Prompt(opened, names)
    try:
        made.default("where")
        made.cmdloop(INTRO)
        return made.quitting
    finally:
        made.close()
