# SPDX-License-Identifier: GPL-2.0-or-later
"""One payload in one machine: assembled, loaded, run, its results read. What host halves (half.py) work with."""

from __future__ import annotations

import os

from vmm.abi.x86 import PTE
from vmm.base.bits import signed
from vmm.base.light import partial
from vmm.errors import PayloadError, UsageError
from vmm.kvm.handle import Closes
from vmm.machine.ends import Result
from vmm.machine.machine import DEFAULT_CONSOLE_LIMIT, Irqchip, Machine
from vmm.machine.memory import layout
from vmm.machine.memory.layout import REGIONS, RESULT_SLOT_SIZE, format_size, parse_size
from vmm.payload.catalog import INCLUDES, Payload
from vmm.payload.header import MissingResult, ResultSlot
from vmm.payload.options import Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from vmm.asm.program import Program
    from vmm.machine.extra.hypercalls import HypercallService
    from vmm.machine.x86.cpuid import CpuidModel
    from vmm.payload.images import BroughtImage


class AnyGuest(Closes):
    """A guest as its host half sees it: loaded into a machine of its own (Guest), or as a trace has it."""

    machine: Machine

    def __init__(self, payload: Payload, options: Options, params: dict[str, int], program: Program) -> None:
        self.payload, self.header, self.options = payload, payload.header, options
        self.params, self.program = params, program
        self.result: Result | None = None
        self.hypercalls: HypercallService | None = None
        self.devices: dict[str, Any] = {}  # of the header, by name
        self.failures: list[str] = []
        self.evidence: dict[str, Any] = {}  # numbers and text for the report
        self.on_close: list[Callable[[], object]] = []  # called before the machine is closed
        self.kept: dict[str, Any] = {}  # objects that one part of the host half leaves for another

    def symbol(self, name: str) -> int:
        """A label's address in guest memory.

        Raises:
            UsageError: the payload has no such label.
        """
        if name not in self.program.symbols:
            raise UsageError(f"payload {self.payload.name} has no label {name!r}")
        return self.program.symbols[name]

    def constant(self, name: str) -> int:
        """What the payload's text calls `name`: a constant of its own or of what it includes, or PARAM_<param>.

        Raises:
            UsageError: the text defines no such name.
        """
        return self.program.constant(name)

    def open_to_ring3(self, gpa: int, size: int = 1) -> None:
        """Let ring 3 use each page of the boot tables with a byte of [gpa, gpa + size): above 2 MiB, 2 MiB each."""
        from vmm.machine.x86.page_edits import PageTables

        tables, at = PageTables(self.machine.memory.read_u64, self.machine.memory.write_u64), gpa
        while at < gpa + size:
            span = tables.leaf(at)[2]
            tables.change(at, set_bits=PTE.USER)
            at += span - at % span

    def run(self, timeout: float | None = None) -> Result:
        """Run the machine; keeps the result."""
        if self.options.runs is not None:
            result: Result = self.options.runs(self, timeout)
        else:
            result = self.machine.run(timeout, exit_limit=self.options.exit_limit)
        self.result = result
        return result

    def value(self, slot: ResultSlot) -> int | None:
        """What the guest stored in a result slot; None if it stored nothing."""
        value, written = self.machine.memory.unpack("QB", REGIONS["results"].base + slot.offset)
        if not written:
            return None
        if slot.kind == "i64":
            return signed(value)
        if slot.kind == "bool":
            return int(bool(value))
        return value & (1 << int(slot.kind[1:])) - 1 if slot.kind[0] == "u" else value

    @property
    def notes(self) -> tuple[str, ...]:
        """What the program's making had to say, and each result of which the guest stored more than its type shows."""
        notes = [*self.program.notes]
        for name, slot in self.header.results.items():
            stored, written = self.machine.memory.unpack("QB", REGIONS["results"].base + slot.offset)
            if written and slot.kind[0] == "u" and stored >> int(slot.kind[1:]):
                notes.append(
                    f"result {name}: the guest stored {stored:#x}, and a {slot.kind} shows {self.value(slot):#x}"
                )
        return tuple(notes)

    @property
    def results(self) -> dict[str, int | None]:
        """Every declared result by name."""
        return {name: self.value(slot) for name, slot in self.header.results.items()}

    def __getitem__(self, name: str) -> int:
        """A result that the guest must have stored; a missing one fails the payload."""
        value = self.value(self.header.results[name])
        if value is None:
            raise MissingResult(name)
        return value

    def clear_results(self) -> None:
        """Make every slot unwritten, for another run of the same guest."""
        self.machine.memory.fill(REGIONS["results"].base, RESULT_SLOT_SIZE * max(1, len(self.header.results)))

    def expect(self, condition: object, text: str) -> bool:
        """Note a failure unless the condition holds; `text` says what should have been, with the numbers."""
        if not condition:
            self.failures.append(text)
        return bool(condition)

    def equal(self, name: str, got: object, want: object) -> bool:
        """`expect` of equality, with both values in the text."""
        shown = [
            f"{each:#x}" if isinstance(each, int) and not isinstance(each, bool) else repr(each) for each in (got, want)
        ]
        return self.expect(got == want, f"{name} is {shown[0]}, and should be {shown[1]}")

    def close(self) -> None:
        while self.on_close:
            self.on_close.pop()()
        self.machine.close()


class Guest(AnyGuest):
    """A payload loaded into a machine of its own. Closing it closes the machine."""

    def __init__(
        self,
        payload: Payload,
        options: Options | None = None,
        *,
        live: Callable[[bytes], object] | None = None,
        cpuid: Callable[[CpuidModel], object] | None = None,
        before_vcpus: Callable[[Machine], object] | None = None,
        cpus: int | Sequence[int] | None = None,
        irqchip: Irqchip | None = None,
        hypercalls: bool = True,
    ) -> None:
        """`hypercalls`: what includes hypercall.inc is served by pyvmm where this host never hands a call to KVM; who
        sees to it otherwise says False.
        """
        options = options or Options()
        header = payload.header
        params = header.given(options.params, payload.name)
        self._brought = _brought(payload, options)
        super().__init__(
            payload, options, params, self._brought.program if self._brought else assemble(payload, params)
        )
        if options.before:
            options.before()
        self._equip: Callable[[], object] = lambda: None
        _check_memory(payload, options)

        def edit(model: CpuidModel) -> None:
            model.disable(*options.mask)
            model.enable(*options.expose)
            if cpuid:
                cpuid(model)

        how_many = cpus if cpus is not None else options.cpus if options.cpus is not None else header.cpus
        memory, board = options.memory if options.memory is not None else header.memory, options.board or "own"
        if self._brought:
            memory, board = self._brought.machine(memory, how_many, options.board)
        chip = irqchip or (header.irqchip if board == "own" else None)
        given: dict[str, Any] = {
            "console_limit": _first(options.output_limit, header.output_limit, DEFAULT_CONSOLE_LIMIT),
            "live": live,
            "cpuid": edit if options.mask or options.expose or cpuid else None,
            "before_vcpus": self._equipped(before_vcpus, hypercalls),
        }
        if options.snapshot is None:
            self.machine = Machine(memory, how_many, board=board, irqchip=chip, strict=options.strict, **given)
        else:
            self.machine = self._thawed(options.snapshot, given)
        try:
            if options.snapshot is not None:
                self._limit_time()
            elif self._brought:  # what describes its machine to it (ACPI) names its devices
                self._equip()
                self._load()
            else:
                self._load()
                self._equip()
            if options.watch:
                options.watch(self)
        except BaseException:
            self.machine.close()
            raise

    def _equipped(
        self, before_vcpus: Callable[[Machine], object] | None, hypercalls: bool
    ) -> Callable[[Machine], object] | None:
        """What is done before the vCPUs are made; `_equip` then is what is done after the program is loaded."""
        header, serve = self.header, hypercalls and "hypercall_undefined" in self.program.symbols
        if not (serve or header.quirks or header.enable or header.devices or self.options.devices):
            return before_vcpus
        from vmm.payload import equipment

        def prepare(machine: Machine) -> None:
            equipment.before_vcpus(machine, header, serve=serve)
            if before_vcpus:
                before_vcpus(machine)

        def equip() -> None:
            from pathlib import Path

            folder = Path(self.payload.file).parent
            self.devices = equipment.attach(self.machine, header, folder, serve=serve, options=self.options)
            self.hypercalls = self.devices.get(equipment.HYPERCALLS)

        self._equip = equip
        return prepare

    def _thawed(self, path: str, given: dict[str, Any]) -> Machine:
        """The machine of a snapshot, with the devices of this payload.

        Raises:
            UsageError: it is of another payload, or as Machine.load_snapshot says.
        """

        def prepare(machine: Machine) -> None:
            self.machine = machine
            self._equip()

        machine = Machine.load_snapshot(path, prepare, **given)
        try:
            found = machine.program
            if found is None or (found.base, found.code) != (self.program.base, self.program.code):
                raise UsageError(
                    f"the snapshot {path} is not of {self.payload.name} as it is now",
                    hint="the payload, and its parameters, that it was taken of; or take it anew",
                )
            machine.take_over(self.program, machine.started)
        except BaseException:
            machine.close()
            raise
        return machine

    def _limit_time(self) -> None:
        """Give the machine the limit of its runs that was asked for, or is the payload's."""
        theirs = self._brought.timeout if self._brought else self.header.timeout
        limit = self.options.timeout if self.options.timeout is not None else theirs
        if limit is not None:
            self.machine.timeout = limit

    def _load(self) -> None:
        machine, header = self.machine, self.header
        if self._brought:
            self._brought.load(machine)
            self._limit_time()
            return
        user: tuple[tuple[int, int], ...] = ()
        ports = header.ports
        if self.payload.in_c and header.ring:
            from vmm.payload.c.build import RING3_PORTS, open_to_ring3

            user, ports = open_to_ring3(self.program), (*ports, *RING3_PORTS)
        if header.user:
            for label in header.user:
                if label not in self.program.symbols:
                    raise PayloadError(f"user: no label {label!r} in the source", file=self.payload.file)
            begin, end = (self.symbol(label) for label in header.user)
            user = (*user, (begin, end))
        machine.load(self.program, ring=header.ring, user=user, allowed_ports=ports)
        if header.start_all:
            for cpu in machine.cpus[1:]:
                machine.start(cpu.index, self.program.entry, ring=header.ring)
        self._limit_time()


def _brought(payload: Payload, options: Options) -> BroughtImage | None:
    """The image that a payload is; None for text, and for raw code of which nobody says anything."""
    if not (payload.image or options.boot or (payload.code and len(payload.code) > REGIONS["code"].size)):
        return None
    from vmm.payload.images import BroughtImage

    return BroughtImage(payload, options)


def _check_memory(payload: Payload, options: Options) -> None:
    """Less memory than the header asks for is refused: the guest would read all ones where it expects RAM."""
    needed = payload.header.memory
    if options.memory is not None and needed is not None and parse_size(options.memory) < needed:
        raise UsageError(
            f"payload {payload.name} needs {format_size(needed)} of memory, and --memory gives it {options.memory}"
        )


def _first(*values: int | None) -> int:
    """The first that is given; the last always is."""
    return next(value for value in values if value is not None)


def assemble(payload: Payload, params: dict[str, int] | None = None) -> Program:
    """The payload's Program, from the cache where it can.

    Raises:
        PayloadError: the source is wrong.
    """
    from vmm.asm.program import Program

    if payload.code is not None:
        return Program(payload.name, REGIONS["code"].base, payload.code, {}, ())
    if params is None:
        params = {each.name: each.default for each in payload.header.params.values()}
    if payload.in_c:
        from vmm.payload.c.build import build

        return build(payload, constants(), payload.header.constants(params))
    from vmm.asm.assembler import Facts
    from vmm.asm.assembler import assemble as assemble_text

    assert payload.text is not None
    program = assemble_text(
        payload.text,
        name=payload.file,
        base=REGIONS["code"].base,
        constants=payload.header.constants(params),
        facts=Facts(constants, (layout.__file__,)),
        include_dirs=(os.path.dirname(payload.file), INCLUDES),
        apart=None if payload.group else partial(_apart, payload.file),  # those that come with pyvmm are its own text
    )
    if not program.code:
        raise PayloadError("no instruction in it: there is nothing to run", file=payload.file)
    return program


def _apart(file: str, make: Callable[[], Program]) -> Program:
    """Assemble in a child process with limits."""
    from vmm.payload.apart import assembled

    return assembled(make, file)


def constants() -> dict[str, int]:
    """Every kernel name and guest-map name that a payload may use."""
    from vmm.abi import asm_constants

    return asm_constants() | layout.asm_constants()
