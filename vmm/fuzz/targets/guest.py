# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's guest: a function that gets the input as a buffer, or a whole program with the input at a label.

Each input is a round of `Machine.rounds`. Coverage is by breakpoints that strike once: HLT stands in place of the first
byte of each block, which leaves KVM_RUN on any host where the machine has no interrupt controller of KVM's; the byte
comes back when it was met, and the input is run again. So code that has been reached runs as fast as without. The
buffer of a function ends where a page ends, and the next page is not there: a byte behind it is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vmm.abi.x86 import PAGE
from vmm.base.record import replace
from vmm.errors import GuestMemoryError, UsageError, VmmError
from vmm.fuzz.blocks import blocks
from vmm.fuzz.target import Crash, Seen
from vmm.machine.ends import Stop, Why
from vmm.machine.memory.layout import REGIONS
from vmm.machine.run.call import LANDING_AT, prepare
from vmm.machine.run.rounds import Rounds
from vmm.machine.run.where_ended import where_ended
from vmm.machine.snapshot import Snapshot
from vmm.machine.x86.page_edits import PageTables
from vmm.observe.postmortem import examine
from vmm.payload.catalog import Payload, find
from vmm.payload.guest import Guest
from vmm.report.style import Style
from vmm.report.text import postmortem_lines

HLT = b"\xf4"
LENGTH, TIMEOUT = 256, 1.0
BUFFERS = REGIONS["user"]
MANY_MET = 16
"""Bytes that are put back before each round, at most; then another snapshot is taken."""


class GuestTarget:
    """`options`: call, or input with length; timeout.

    Raises:
        UsageError: no such function or label; the input finds no room; the guest is no 64-bit program in ring 0.
    """

    row = 1
    repeats = False

    def __init__(self, path: str, options: Mapping[str, Any]) -> None:
        self.name, self._options = path, options
        self.most = int(options.get("length", LENGTH))
        self._timeout = float(options.get("timeout", TIMEOUT))
        self._payload = find(path)
        self._check(self._payload)
        self._rounds: Rounds | None = None
        self._snapshot: Snapshot | None = None
        self._guest = self._made()
        try:
            program = self._guest.program
            entry = self._guest.machine.cpus[0].vcpu.get_regs().rip
            begins, self._words = blocks(program.code, program.base, (entry,))
            held = range(self._at, self._at + self.most)
            self._marks = {
                at: program.code[at - program.base : at - program.base + 1] for at in begins if at not in held
            }
            self._met: list[int] = []
            self._bytes: dict[int, bytes] = {}
            for at in self._marks:
                self._guest.machine.memory.write(at, HLT)
            self._begin()
        except BaseException:
            self.close()
            raise

    def _check(self, payload: Payload) -> None:
        if ("call" in self._options) == ("input" in self._options):
            raise UsageError(
                f"{self.name}: where does the input go?", hint="--call FUNCTION, or --input LABEL --length N"
            )
        if "input" in self._options and "length" not in self._options:
            raise UsageError("--input: how long is an input?", hint="--length N, in bytes")
        if payload.image:
            raise UsageError(f"{self.name} is an image; a guest that is fuzzed is .asm, .c or raw code")
        if payload.header.ring and "input" in self._options:
            raise UsageError(f"{self.name} runs in ring 3", hint="--call, which runs a function in ring 0")

    def _made(self) -> Guest:
        """The guest in a new machine, before its first instruction; `_at` is where inputs go."""
        guest = Guest(self._payload, irqchip="none", cpus=1)
        machine = guest.machine
        try:
            if "call" in self._options:
                prepare(machine, _place(str(self._options["call"])), ())
                end = BUFFERS.base + -(-self.most // PAGE) * PAGE
                if end + PAGE > BUFFERS.end:
                    raise UsageError(f"--length {self.most}: at most {BUFFERS.size - PAGE} bytes")
                PageTables(machine.memory.read_u64, machine.memory.write_u64).unmap(end, PAGE)
                self._end, self._at = end, end - self.most
            else:
                place = _place(str(self._options["input"]))
                self._at = guest.symbol(place) if isinstance(place, str) else place
                self._end = self._at + self.most
                machine.memory.read(self._at, self.most)
        except GuestMemoryError as error:
            guest.close()
            raise UsageError(f"--input: {error.text}") from error
        except BaseException:
            guest.close()
            raise
        return guest

    # -- Target

    def seeds(self) -> Sequence[bytes]:
        return bytes(min(16, self.most)), b"A" * min(8, self.most)

    def words(self) -> Sequence[bytes]:
        return self._words

    def run(self, data: bytes) -> Seen:
        data = data[: self.most]
        reached: set[int] = set()
        while True:
            stop = self._round(data)
            regs = self._of_rounds.regs
            if stop.why is Why.HALT and regs.rip - 1 in self._marks:
                at = regs.rip - 1
                reached.add(at)
                self._met.append(at)
                self._bytes[at] = self._marks.pop(at)
                continue
            crash = self._crash(stop, regs)
            if len(self._met) > MANY_MET:
                self._begin()
            return Seen(frozenset(reached), crash)

    def close(self) -> None:
        if self._rounds is not None:
            self._rounds.close()
            self._rounds = None
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None
        self._guest.close()

    # -- a round

    @property
    def _of_rounds(self) -> Rounds:
        assert self._rounds is not None
        return self._rounds

    def _begin(self) -> None:
        """Rounds from the guest as it is before its first instruction, without the marks that were met."""
        machine = self._guest.machine
        if self._rounds is not None and self._snapshot is not None:
            self._rounds.close()
            machine.reset(self._snapshot)
            self._snapshot.close()
            for at in self._met:
                machine.memory.write(at, self._bytes[at])
        self._met, self._bytes = [], {}
        self._snapshot = machine.snapshot()
        self._rounds = machine.rounds(self._snapshot, self._timeout).__enter__()

    def _round(self, data: bytes) -> Stop:
        rounds, memory = self._of_rounds, self._guest.machine.memory
        rounds.reset()
        for at in self._met:
            memory.write(at, self._bytes[at])
        return rounds.run(**self._put(memory, data))

    def _put(self, memory: Any, data: bytes) -> dict[str, int]:
        """The input where the guest finds it; registers that say so."""
        if "call" not in self._options:
            memory.write(self._at, data.ljust(self.most, b"\0"))
            return {}
        at = self._end - len(data)
        if data:
            memory.write(at, data)
        return {"rdi": at, "rsi": len(data)}

    def _crash(self, stop: Stop, regs: Any) -> Crash | None:
        if "call" in self._options:
            ended = LANDING_AT <= regs.rip <= LANDING_AT + 3 and stop.why in (Why.HALT, Why.EXIT_PORT)
        else:
            ended = stop.why is Why.HALT or (stop.why is Why.EXIT_PORT and not stop.code)
        if ended:
            return None
        machine = self._guest.machine
        where = "" if stop.why is Why.TIME_LIMIT else where_ended(machine, stop, machine.cpus[0]).partition(",")[0]
        code = f" {stop.code}" if stop.why is Why.EXIT_PORT else ""
        return Crash(f"{stop.why}{code} {where}".strip(), stop.text)

    def told(self, data: bytes, crash: Crash) -> str:
        """Of the same in a machine of its own, which nobody has marked."""
        guest = self._made()
        try:
            vcpu = guest.machine.cpus[0].vcpu
            regs = vcpu.get_regs()
            for name, value in self._put(guest.machine.memory, data).items():
                setattr(regs, name, value)
            vcpu.set_regs(regs)
            result = guest.machine.run(self._timeout)
            console = f"console: {result.text!r}\n" if result.console else ""
            return console + "\n".join(postmortem_lines(examine(guest.machine, result), Style())) + "\n"
        except VmmError as error:
            return f"{error}\n"
        finally:
            guest.close()


def _place(text: str) -> int | str:
    """An address, or a label."""
    try:
        return int(text, 0)
    except ValueError:
        return text


def again(path: str, options: Mapping[str, Any], data: bytes) -> dict[str, bytes]:
    """What `pyvmm run` takes of a crash of a whole program: an ELF file of it with the input in its place."""
    from vmm.asm.elf_out import elf
    from vmm.payload.guest import assemble

    program = assemble(find(path))
    place = _place(str(options.get("input", "")))
    at = program.symbols.get(place, 0) if isinstance(place, str) else place
    length = int(options.get("length", LENGTH))
    if "input" not in options or at < program.base or at + length > program.end or program.elf or not program.lines:
        return {}
    start = at - program.base
    code = program.code[:start] + data.ljust(length, b"\0")[:length] + program.code[start + length :]
    return {".elf": elf(replace(program, code=code))}
