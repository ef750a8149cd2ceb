# SPDX-License-Identifier: GPL-2.0-or-later
"""`monitor ...` in gdb: what a machine has that the protocol has no word for. Each command prints lines."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from vmm.abi.msrs import find as find_msr
from vmm.abi.msrs import msr_name
from vmm.errors import UsageError, VmmError
from vmm.machine.memory.layout import describe
from vmm.machine.x86 import page_walk
from vmm.machine.x86.registers import names
from vmm.observe.postmortem import place

if TYPE_CHECKING:
    from vmm.debug.session import Session
    from vmm.machine.context import Context

ROW = 16
MOST_BYTES = 4096


class Monitor:
    """Serves the commands, and keeps the machine as it was when its run began, for `reset`."""

    def __init__(self) -> None:
        self._out: list[str] = []
        self._begin: Context | None = None
        self._whose: object = None
        self._commands: dict[str, tuple[str, Callable[[Session, list[str], int], Iterator[str]]]] = {
            "help": ("this list", self._help),
            "where": ("where each vCPU is, with its source line", _where),
            "vcpus": ("what each vCPU does", _vcpus),
            "exits": ("how many exits of each kind this run has had, and the last ten of the vCPU", _exits),
            "devices": ("who answers at which ports and MMIO addresses", _devices),
            "map": ("guest-physical memory: memslots, and what pyvmm's map has there", _map),
            "translate": ("ADDRESS: its page walk by the vCPU's tables; $rsp is an address, too", _translate),
            "phys": ("ADDRESS [BYTES]: guest-physical memory; $cr3 is an address, too", _phys),
            "phys-write": ("ADDRESS HEX: write guest-physical memory", _phys_write),
            "msr": ("NAME|NUMBER [VALUE]: read or set an MSR of the vCPU", _msr),
            "can": ("what this host cannot do for a debugger", _can),
            "break": (
                "PLACE [if CONDITION]: stop there, the condition looked at here: rax == 3 and [counter] > 10",
                _break,
            ),
            "watch": ("PLACE [BYTES] [if CONDITION]: stop when it is written", _watch),
            "catch": ("port|mmio|msr|exit WHAT [if CONDITION]: stop at an exit before it is served", _catch),
            "breaks": ("what the two commands above have set", _breaks),
            "delete": ("NUMBER: take it back", _delete),
            "reset": ("the machine as it was when this run began", self._reset),
        }

    @property
    def commands(self) -> dict[str, str]:
        """What each takes and does, by name."""
        return {name: what for name, (what, _) in self._commands.items()}

    def begin(self, session: Session) -> None:
        """A run begins."""
        self._whose = session
        try:
            self._begin = session.machine.save()
        except VmmError:
            self._begin = None

    def gone(self, session: Session) -> None:
        """No client: what it has set here stops nobody."""
        session.breaks.clear()

    def printed(self) -> list[str]:
        """What there is to show, once."""
        out, self._out = self._out, []
        return out

    def serve(self, session: Session, line: str, vcpu: int) -> None:
        """One command; its errors are printed, too."""
        try:
            words = shlex.split(line)
        except ValueError as error:
            self._out.append(f"{error}\n")
            return
        name, *rest = words or ["help"]
        found = [each for each in self._commands if each == name] or [
            each for each in self._commands if each.startswith(name)
        ]
        if len(found) != 1:
            self._out.append(f"no monitor command is called {name!r}; `monitor help` has the list\n")
            return
        try:
            for text in self._commands[found[0]][1](session, rest, vcpu):
                self._out.append(f"{text}\n")
        except VmmError as error:
            self._out.append(f"{error.text}\n")
        except (ValueError, IndexError, OverflowError):
            self._out.append(f"{found[0]} {self._commands[found[0]][0]}\n")

    def _help(self, session: Session, words: list[str], vcpu: int) -> Iterator[str]:
        for name, (what, _) in self._commands.items():
            yield f"{name:11} {what}"

    def restart(self, session: Session) -> None:
        """The machine as it was when this run began. UsageError: nothing was kept of that."""
        if self._begin is None or self._whose is not session:
            raise UsageError("nothing was kept of the begin of this run")
        session.restart(self._begin)

    def _reset(self, session: Session, words: list[str], vcpu: int) -> Iterator[str]:
        self.restart(session)
        yield "the machine is as it was when this run began; tell gdb by `maintenance flush register-cache`"


def _where(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    for cpu in session.machine.cpus:
        yield f"{'*' if cpu.index == vcpu else ' '} vCPU {cpu.index}: {session.where(cpu.index)}"


def _vcpus(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    machine = session.machine
    for cpu in machine.cpus:
        state = "halted for good" if cpu.index in session.halted else cpu.state if machine.irqchip != "none" else ""
        yield f"{'*' if cpu.index == vcpu else ' '} vCPU {cpu.index} (APIC id {cpu.vcpu.id}) {state}".rstrip()


def _exits(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    from vmm.observe.exit_text import describe as described
    from vmm.observe.exit_text import named

    counts: Counter[str] = Counter()
    for cpu in session.machine.cpus:
        counts.update(cpu.counts)
    yield from (f"{name:16} {count}" for name, count in sorted(counts.items()))
    if not counts:
        yield "no exit yet"
    yield from (f"  {named(exit, described(exit))}" for exit in session.machine.cpus[vcpu].recent)


def _devices(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    from vmm.observe.tracer import claims

    rows: dict[tuple[str, int, int, str], str] = {}
    for claim in claims(session.machine.platform):
        key = claim.space, claim.base, claim.size, claim.name
        rows[key] = rows.get(key, "") + claim.way
    for (space, base, size, name), way in sorted(rows.items()):
        yield f"{space:5} {base:#x} to {base + size - 1:#x}  {way:3} {name}"


def _map(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    from vmm.machine.memory.layout import MAP

    for slot in session.machine.memory.slots:
        rights = " read-only" if slot.readonly else ""
        yield f"memslot {slot.slot}: {slot.gpa:#x} to {slot.gpa + slot.size - 1:#x}{rights}"
    if session.machine.board.name == "own":
        for region in MAP:
            yield f"  {region.base:#x} to {region.end - 1:#x}  {region.name}: {region.what}"


def _translate(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    machine = session.machine
    walk = session.walk(_place(session, words[0], vcpu), vcpu=vcpu)
    yield from page_walk.render(walk, lambda gpa: place(machine, gpa))


def _phys(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    register, size = _register(session, words[0], vcpu), int(words[1], 0) if len(words) > 1 else 4 * ROW
    address = int(words[0], 0) if register is None else register
    data = session.machine.memory.read(address, min(max(size, 1), MOST_BYTES))
    for at in range(0, len(data), ROW):
        row = data[at : at + ROW]
        text = "".join(chr(each) if 32 <= each < 127 else "." for each in row)
        yield f"{address + at:#012x}  {row.hex(' '):47}  {text}"


def _phys_write(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    address, data = int(words[0], 0), bytes.fromhex("".join(words[1:]))
    if not data:
        raise ValueError
    session.machine.memory.write(address, data)
    yield f"{len(data)} bytes at {address:#x}, {describe(address)}"


def _msr(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    row = find_msr(words[0])
    index = row.number if row else int(words[0], 0)
    if not 0 <= index < 1 << 32:
        raise ValueError
    kernel = session.machine.cpus[vcpu].vcpu
    if len(words) > 1 and kernel.set_msrs({index: int(words[1], 0)}) != 1:
        raise UsageError(f"KVM does not set MSR {index:#x} to {words[1]}")
    found = kernel.get_msrs([index])
    if index not in found:
        raise UsageError(f"KVM does not read MSR {index:#x}")
    yield f"{msr_name(index)} ({index:#x}) = {found[index]:#x}"


def _can(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    yield from session.can.missing or ["this host can all of it: steps, breakpoints and watchpoints, in ring 0 and 3"]


def _condition(words: list[str]) -> tuple[list[str], str | None]:
    if "if" not in words:
        return words, None
    at = words.index("if")
    return words[:at], " ".join(words[at + 1 :])


def _break(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    words, when = _condition(words)
    yield str(session.break_at(_place(session, words[0], vcpu), when=when))


def _watch(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    words, when = _condition(words)
    made = session.watch(_place(session, words[0], vcpu), int(words[1], 0) if len(words) > 1 else 8, when=when)
    yield str(made)
    yield from session.doubts(made)


def _catch(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    words, when = _condition(words)
    kind, what = words[0], words[1]
    if kind == "exit":
        yield str(session.catch(exit=what, when=when))
    elif kind == "msr":
        row = find_msr(what)
        yield str(session.catch(msr=row.number if row else int(what, 0), when=when))
    elif kind in ("port", "mmio"):
        first, _, last = what.partition("-")
        span = int(first, 0), int(last or first, 0)
        yield str(session.catch(port=span, when=when) if kind == "port" else session.catch(mmio=span, when=when))
    else:
        raise ValueError


def _breaks(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    for made in session.breaks:
        when = f" if {made.when}" if isinstance(made.when, str) else ""
        yield f"{made.number:3} {made.kind} {made.what}{when}, {made.hits} hits"
    if not session.breaks:
        yield "none"


def _delete(session: Session, words: list[str], vcpu: int) -> Iterator[str]:
    session.remove(int(words[0]))
    yield "gone"


def _register(session: Session, text: str, vcpu: int) -> int | None:
    """Of `$rip`, as gdb writes it, its value; None: that is no register."""
    name = {"$pc": "rip", "$sp": "rsp", "$fp": "rbp"}.get(text, text[1:])
    return int(getattr(session.machine.cpus[vcpu].regs, name)) if text[:1] == "$" and name in names() else None


def _place(session: Session, text: str, vcpu: int) -> int | str:
    value = _register(session, text, vcpu)
    return text if value is None else value
