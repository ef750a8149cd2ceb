# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's guest: a function that gets the input as a buffer, or a whole program with the input at a label. It is text,
raw code, or an ELF file of 64-bit code.

Each input is a round of `Machine.rounds`. Coverage is by breakpoints that strike once: HLT stands in place of the first
byte of each block, which leaves KVM_RUN on any host where the machine has no interrupt controller of KVM's; the byte
comes back when it was met, and the input is run again. So code that has been reached runs as fast as without. The
buffer of a function ends where a page ends, and the next page is not there: a byte behind it is a fault.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vmm.abi.x86 import PAGE
from vmm.asm.program import Program
from vmm.base.record import replace
from vmm.errors import GuestMemoryError, UsageError, VmmError
from vmm.fuzz.blocks import blocks
from vmm.fuzz.elf_input import with_bytes
from vmm.fuzz.target import Crash, Seen
from vmm.machine.ends import Stop, Why
from vmm.machine.images.elf import Elf
from vmm.machine.images.image import Image
from vmm.machine.images.place import runs_in_own_map
from vmm.machine.images.program import ImageProgram
from vmm.machine.memory.layout import REGIONS
from vmm.machine.run.call import LANDING_AT, prepare
from vmm.machine.run.rounds import Rounds
from vmm.machine.run.where_ended import where_ended
from vmm.machine.snapshot import Snapshot
from vmm.machine.x86.page_edits import PageTables
from vmm.observe.postmortem import examine
from vmm.payload.catalog import Payload, find, whole
from vmm.payload.guest import Guest
from vmm.payload.images import BroughtImage
from vmm.payload.options import Options
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
        self.most = int(options.get("length", LENGTH if "call" in options else 0))
        self._timeout = float(options.get("timeout", TIMEOUT))
        self._payload = find(path)
        self._check(self._payload)
        self._rounds: Rounds | None = None
        self._snapshot: Snapshot | None = None
        self._guest = self._made()
        try:
            self._words: tuple[bytes, ...] = ()
            self._marks = self._blocks()
            self._met: list[int] = []
            self._bytes: dict[int, bytes] = {}
            for at in self._marks:
                self._guest.machine.memory.write(at, HLT)
            self._begin()
        except BaseException:
            self.close()
            raise

    def _check(self, payload: Payload) -> None:
        if payload.image:
            self._check_image(BroughtImage(payload, Options(apart=True)).image)
        if payload.header.ring and "input" in self._options:
            raise UsageError(f"{self.name} runs in ring 3", hint="--call, which runs a function in ring 0")

    def _check_image(self, image: Image) -> None:
        if image.mode != "long" or image.boot is not None:
            raise UsageError(
                f"{self.name} is an image ({image.format}) that begins in {image.mode} mode, by the protocol "
                f"{image.protocol}",
                hint="a guest that is fuzzed is .asm, .c, raw code, or ELF of 64-bit code without a boot protocol",
            )
        if "call" in self._options and not runs_in_own_map(image):
            raise UsageError(
                f"--call: {self.name} is not linked for {REGIONS['code'].base:#x} to {REGIONS['code'].end - 1:#x}, so "
                "there is no room for a stack and an input that is known",
                hint="--input, which runs all of it; or link it there",
            )

    def _blocks(self) -> dict[int, bytes]:
        """The first byte of each block that the guest's entry leads to; what it compares with goes to `_words`."""
        machine, program = self._guest.machine, self._guest.program
        parts = [(program.base, program.code)]
        if isinstance(program, ImageProgram):
            rows = [each for each in program.image.segments if each.executable]
            parts = [(each.gpa, machine.memory.read(each.gpa, each.size)) for each in rows]
        entry, held = machine.cpus[0].vcpu.get_regs().rip, range(self._at, self._at + self.most)
        marks: dict[int, bytes] = {}
        for base, code in parts:
            begins, words = blocks(code, base, (entry,))
            self._words += words
            marks |= {at: code[at - base : at - base + 1] for at in begins if at not in held}
        return marks

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
                if guest.program.base < end + PAGE and self._at < guest.program.end:
                    raise UsageError(f"--call: {self.name} lies where an input of {self.most} bytes would")
            else:
                place = _place(str(self._options["input"]))
                self._at = guest.symbol(place) if isinstance(place, str) else place
                self.most = self.most or _size_of(guest.program, place)
                if not self.most:
                    raise UsageError("--input: how long is an input?", hint="--length N, in bytes")
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


def _size_of(program: Program, place: int | str) -> int:
    """Bytes of what a compiler or linker calls so; 0 where nobody says."""
    elf = program.image.names if isinstance(program, ImageProgram) else Elf(program.elf, "") if program.elf else None
    return elf.size_of(place) if isinstance(elf, Elf) and isinstance(place, str) else 0


def again(path: str, options: Mapping[str, Any], data: bytes) -> dict[str, bytes]:
    """What `pyvmm run` takes of a crash of a whole program: an ELF file of it with the input in its place."""
    from vmm.asm.elf_out import elf
    from vmm.payload.guest import assemble

    payload = find(path)
    program = BroughtImage(payload, Options()).program if payload.image else assemble(payload)
    place = _place(str(options.get("input", "")))
    at = program.symbols.get(place, 0) if isinstance(place, str) else place
    if "input" not in options or at < program.base:
        return {}
    filled = data.ljust(int(options.get("length", 0)) or _size_of(program, place), b"\0")
    if file := whole(payload) if payload.image else program.elf:
        made = with_bytes(file, at, filled)
        return {} if made is None else {".elf": made}
    start, end = at - program.base, at - program.base + len(filled)
    if end > len(program.code) or not program.lines:
        return {}
    return {".elf": elf(replace(program, code=program.code[:start] + filled + program.code[end:]))}
