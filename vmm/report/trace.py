# SPDX-License-Identifier: GPL-2.0-or-later
"""A trace as text, record by record: what left the guest, where, what it was told, what it printed."""

from __future__ import annotations

import codecs

from vmm.abi.ports import EXIT, EXIT_VALUES
from vmm.abi.x86 import RFLAGS, describe_flags
from vmm.kvm.exits import Debug, Exit, Halt, Hypercall, MmioRead, PortIn, PortOut, ReadMsr, WriteMsr
from vmm.machine.ends import Resume, Stop
from vmm.observe.exit_text import PORTS, describe
from vmm.observe.left import Left
from vmm.observe.trace import End, Event, Exited, Made, Note, Record, Run, Stopped, Trace
from vmm.report.style import Style, printable

WHAT, PLACE, INSN, SOURCE = 44, 20, 32, 40  # columns of the exit, its place, its instruction and what was written there
UNFINISHED = 512  # characters of a console line that are shown before its end comes


class TraceText:
    """Lines for one trace. Console output is shown by whole lines, after the exits that brought it."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._decoders: dict[int, codecs.IncrementalDecoder] = {}
        self._pending: dict[int, str] = {}

    def lines(self, record: Record) -> list[str]:
        """The lines of one record; none for what needs no telling."""
        match record:
            case Trace():
                title = f"trace of {printable(record.payload)}" + ", every instruction" * record.step
                return [self._style("head", title) + ("  (synthetic)" if record.synthetic else "")]
            case Made():
                return [*self._flush(), self._made(record)]
            case Run():
                more = f", vCPUs {', '.join(map(str, record.active))}" if len(record.active) > 1 else ""
                return [*self._flush(), self._say(record.t, f"guest {record.guest} runs{more}")]
            case Exited():
                return [self._exited(record), *self._console(record.guest, record.console)]
            case Note() | Event():
                return [*self._flush(), self._say(record.t, record.text)]
            case Stopped():
                return [*self._flush(), *self._stopped(record)]
            case Left():
                return []  # for a page
            case End():
                dropped = f"; {record.dropped} more exits came after its size limit" if record.dropped else ""
                return [*self._flush(), self._say(record.t, f"end of the trace: {record.recorded} exits{dropped}")]

    def _made(self, made: Made) -> str:
        params = "".join(f" {name}={value:#x}" for name, value in made.params.items())
        cpus = f"{len(made.ids)} vCPU{'s' * (len(made.ids) != 1)}"
        text = f"guest {made.guest} is made: {made.payload}{params}; {cpus}, irqchip {made.irqchip}"
        return self._say(made.t, text)

    def _say(self, t: int, text: str) -> str:
        return f"{_time(t)}     {self._style('warn', '--')} {printable(text)}"

    def _exited(self, record: Exited) -> str:
        what = printable(event(record.exit, record.step)).ljust(WHAT)
        place = printable(record.at or f"{record.rip:#x}").ljust(PLACE)
        insn = printable(record.insn)
        if record.source or record.changed:
            source = self._style("dim", printable(record.source).ljust(SOURCE if record.changed else 0))
            insn = f"{insn.ljust(INSN)}  {source}  {changed_text(record.changed)}"
        line = f"{_time(record.t)} {record.cpu:>3}  {what}  {self._style('name', place)}  {insn}"
        return line.rstrip()

    def _stopped(self, record: Stopped) -> list[str]:
        by = "" if record.cpu is None else f"vCPU {record.cpu}: "
        lines = [self._say(record.t, f"{by}{record.text}")]
        stored = {name: value for name, value in record.results.items() if value is not None}
        return lines + [f"{'':16}   {printable(name)} = {value:#x}" for name, value in stored.items()]

    def _console(self, guest: int, data: bytes) -> list[str]:
        if not data:
            return []
        decoder = self._decoders.setdefault(guest, codecs.getincrementaldecoder("utf-8")("replace"))
        text = self._pending.pop(guest, "") + decoder.decode(data)
        *whole, rest = text.split("\n")
        if len(rest) > UNFINISHED:
            whole, rest = [*whole, rest], ""
        if rest:
            self._pending[guest] = rest
        return [self._printed(line) for line in whole]

    def _flush(self) -> list[str]:
        lines = [self._printed(text) for text in self._pending.values()]
        self._pending.clear()
        return lines

    def _printed(self, text: str) -> str:
        return f"{'':16}  {self._style('dim', 'console |')} {self._style('good', printable(text))}"


def changed_text(changed: tuple[tuple[str, int, int], ...]) -> str:
    """`rax 0x0 -> 0x2a, rflags 0x2 -> 0x46 (ZF|PF)`."""
    return ", ".join(
        f"{printable(name)} {before:#x} -> {now:#x}"
        + (f" ({describe_flags(now & ~RFLAGS.FIXED, RFLAGS)})" if name == "rflags" else "")
        for name, before, now in changed
    )


def event(exit: Exit, step: Resume | Stop) -> str:
    """`IN port 0x60, 1 byte -> 0x1c`: the exit, and the answer where it has one."""
    match exit:
        case Debug():
            text = "step" if exit.dr6 >> 14 & 1 else f"breakpoint at {exit.pc:#x}"
        case Hypercall(nr, args):
            text = f"HYPERCALL {nr} ({', '.join(f'{arg:#x}' for arg in args[:4])})"
        case Halt():
            text = "HLT"
        case _:
            text = describe(exit)
    if isinstance(exit, (PortIn, PortOut)) and exit.port in PORTS:
        text = text.replace(f"port {exit.port:#x}", PORTS[exit.port], 1)
    if isinstance(exit, PortOut) and exit.port == EXIT:
        verdict = EXIT_VALUES.get(int.from_bytes(exit.data, "little"))
        text += f" ({verdict})" if verdict else ""
    if isinstance(step, Resume) and step.answers:
        text += f" -> {_reply(exit, step)}"
    return text


def _reply(exit: Exit, step: Resume) -> str:
    reply = step.reply
    if reply is None:
        return "refused, #GP"
    if isinstance(reply, bytes):
        single = isinstance(exit, MmioRead) or (isinstance(exit, PortIn) and exit.count == 1)
        return f"{int.from_bytes(reply, 'little'):#x}" if single else reply[:16].hex(" ") + " ..." * (len(reply) > 16)
    if isinstance(exit, WriteMsr):
        return "accepted"
    return f"{reply:#x}" if isinstance(exit, ReadMsr) else str(reply)


def _time(t: int) -> str:
    return f"{t / 1e6:10.3f} ms"
