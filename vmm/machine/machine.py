# SPDX-License-Identifier: GPL-2.0-or-later
"""A virtual machine in one object: memory, vCPUs, devices, and a run with limits that always ends.

    with Machine() as m:
        m.load("mov al, 0x41; out 0xe9, al; hlt")
        print(m.run(timeout=1).console)

It wires the floors below; what an exit means is run/handle.py, how a vCPU is driven run/cpu.py.
"""

from __future__ import annotations

from vmm.abi import ports
from vmm.base.integer import integer
from vmm.errors import HostError, UsageError, VmmError
from vmm.kvm.handle import Closes
from vmm.kvm.plain import NotPlain
from vmm.machine.devices.sink import Sink
from vmm.machine.ends import Result, Stop, Why
from vmm.machine.images.own import as_program, check_place
from vmm.machine.memory import layout
from vmm.machine.plain import Plain
from vmm.machine.repeats import Repeats
from vmm.machine.run import limits
from vmm.machine.run.hooks import Hooks
from vmm.machine.virtio.attach import VirtioSlots
from vmm.machine.x86 import boot

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path
    from typing import Any, Literal, TypeAlias

    from vmm.asm.program import Program
    from vmm.kvm.exits import Exit
    from vmm.kvm.system import Kvm
    from vmm.machine.bus.reach import Reach
    from vmm.machine.context import Context
    from vmm.machine.devices.ioapic import Ioapic
    from vmm.machine.devices.scratch import ScratchMmio
    from vmm.machine.devices.uart16550 import Uart16550A
    from vmm.machine.images.image import Image, Mode, Module
    from vmm.machine.run.all_cpus import Observer
    from vmm.machine.run.cpu import Cpu
    from vmm.machine.run.debug import Debugger
    from vmm.machine.run.hold import Holder
    from vmm.machine.run.watch import Watcher
    from vmm.machine.x86.cpuid import CpuidModel
    from vmm.machine.x86.registers import Registers

Irqchip: TypeAlias = "Literal['none', 'kernel', 'split']"
AskedIrqchip: TypeAlias = "Literal['none', 'kernel', 'split'] | None"
IRQCHIPS: dict[str, Irqchip] = {"none": "none", "kernel": "kernel", "split": "split"}
BOARDS = ("own", "pc", "testdev")

DEFAULT_TIMEOUT = 10.0
DEFAULT_CONSOLE_LIMIT = 4 << 20
CLOSED = "this machine has been closed; make another one to run"
SHAPE = (
    "memory", "cpus", "board", "irqchip", "strict", "console_limit", "live", "cpuid", "before_vcpus", "fast",
)  # fmt: skip


class _Part:
    """What a machine that is plain so far gets, with all of the others, at the first look at one of them (build.py).

    A `__getattr__` would make every other look at a machine slower, and its life by a hundredth (row lifecycle).
    """

    def __set_name__(self, _owner: type, name: str) -> None:
        self._name = name

    def __get__(self, machine: Machine | None, kind: type) -> Any:
        if machine is None:
            return self
        if not machine._become_whole():
            raise AttributeError(f"{kind.__name__!r} object has no attribute {self._name!r}")
        return machine.__dict__[self._name]


class Machine(Hooks, VirtioSlots, Repeats, Closes):
    """A VM with `cpus` vCPUs (a number, or their APIC ids) and `memory` bytes from guest-physical 0.

    - board: "own" (debug console, exit port, COM1: what pyvmm's payloads use), "pc" (what operating systems expect:
      docs/boards.md).
    - irqchip: "none" (with the own board HLT ends the run, and it is its default), "kernel" (PIC, IOAPIC, LAPIC; the pc
      board's default), "split" (LAPICs only; the own board's IOAPIC is vmm.machine.extra.split_irqchip.add_ioapic's,
      without which its COM1 raises no interrupt).
    - strict: an access that nobody claims ends the run.
    - console_limit: bytes of the console, after which the run ends; live: called with each piece of it.
    - cpuid: called with the CpuidModel before the vCPUs get it; what KVM does not take of its edits is a warning
      (NotTaken), and in `cpuid_not_taken`. before_vcpus: called with the machine before it has any.
    - kvm: an open `Kvm`, which stays open.
    - fast: let the C core finish what needs no Python; False takes the plain way for every exit, with equal results.

    Raises:
        HostError: /dev/kvm cannot be used, or refuses something.
        UsageError: memory or vCPUs that cannot be.
    """

    kvm: Kvm
    reach: Reach
    program: Program | None = None
    ioapic: Ioapic | None = None
    """With irqchip=split, the one of `add_ioapic`; COM1's interrupt goes to its pin 4, and nowhere without one."""
    timeout: float | None = DEFAULT_TIMEOUT
    cpuid_not_taken: tuple[str, ...] = ()
    holder: Holder | None = None
    _cpuid: CpuidModel | None = None  # made for the first who asks
    _watcher: Watcher | None = None
    _debugger: Debugger | None = None
    _gdb: Any = None
    _plain: Plain | None = None

    def __init__(
        self,
        memory: str | int | None = None,
        cpus: int | Sequence[int] = 1,
        *,
        board: str = "own",
        irqchip: AskedIrqchip = None,
        strict: bool = False,
        console_limit: int = DEFAULT_CONSOLE_LIMIT,
        live: Callable[[bytes], object] | None = None,
        cpuid: Callable[[CpuidModel], object] | None = None,
        before_vcpus: Callable[[Machine], object] | None = None,
        kvm: Kvm | None = None,
        fast: bool = True,
    ) -> None:
        ids = [0] if type(cpus) is int and cpus == 1 else _apic_ids(cpus)
        self._shape = memory, cpus, board, irqchip, strict, console_limit, live, cpuid, before_vcpus, fast
        self.grows = memory is None
        """Nobody said how much memory: an image that is loaded may have more."""
        size = layout.default_memory(len(ids)) if memory is None else layout.parse_size(memory)
        ram = layout.checked_ram(size, len(ids))
        self.irqchip: Irqchip = irqchip or ("none" if board == "own" else "kernel")
        self.line_drivers: list[Callable[[int, bool], object]] = []
        """Controllers of our own, each told of every line (`irq_line`)."""
        self._started: set[int] = set()
        self._owns_kvm = kvm is None
        self.ram = ram
        self.sink = Sink(console_limit, live)
        self.strict = strict
        edited = cpuid or before_vcpus or kvm or not fast
        if ids == [0] and len(self.ram) == 1 and board == "own" and self.irqchip == "none" and not edited:
            try:
                self._plain = Plain(size, self.sink)
                return
            except (NotPlain, VmmError):
                pass  # the other way says what is wrong, or gets around it
        from vmm.machine.build import build

        build(self, ids, board, cpuid, before_vcpus, kvm, fast)

    if not TYPE_CHECKING:
        kvm, vm, memory, board, platform, reach, lane, all_cpus, _told = (_Part() for _ in range(9))

    def _become_whole(self) -> bool:
        """All of the parts, made around what a plain machine has, whether it runs or is closed. False: it is no plain
        machine.
        """
        plain = self._plain
        if plain is None:
            return False
        from vmm.machine.build import make_whole

        make_whole(self, plain)
        return True

    def is_whole(self) -> None:
        """Every part has been made."""
        self._plain = None

    @property
    def is_plain(self) -> bool:
        """Whether nobody has looked at a part of it so far, nor its guest done anything but print and end."""
        return self._plain is not None

    # -- building

    @property
    def cpus(self) -> list[Cpu]:
        """One for each vCPU, by index."""
        return self.all_cpus.cpus

    @property
    def runners(self) -> list[Cpu]:
        """The old name of `cpus`."""
        import warnings

        warnings.warn("Machine.runners is called Machine.cpus now", DeprecationWarning, stacklevel=2)
        return self.cpus

    def _cpu(self, index: int) -> Cpu:
        """UsageError: there is no such vCPU."""
        number = integer(index)
        if number is None or not 0 <= number < len(self.cpus):
            raise UsageError(f"vCPU {index!r}: this machine has vCPUs 0 to {len(self.cpus) - 1}")
        return self.cpus[number]

    @property
    def uart(self) -> Uart16550A:
        """The serial port COM1: what the guest receives there, `feed` sends."""
        return self.board.uart

    @property
    def scratch(self) -> ScratchMmio:
        """The device of plain registers at region `scratch_mmio`."""
        return self.board.scratch

    @property
    def debugger(self) -> Debugger:
        """Single-step and "run until"; made by the first who asks."""
        if self._debugger is None:
            from vmm.machine.run.debug import Debugger

            self._debugger = Debugger(self, Machine)
        return self._debugger

    def serve_gdb(
        self, address: int | str | None = None, *, wait: bool = True, say: Callable[[str], object] | None = None
    ) -> Any:
        """Let gdb debug every run from now on, at `address` (PORT, ADDRESS:PORT or the path of a Unix socket; default:
        a free port of 127.0.0.1). The first run waits for a client, unless told otherwise. The server that is returned
        (vmm.debug.gdb.server.GdbServer) says `where`; it is closed with the machine.

        Raises:
            HostError: the machine is closed, or the host does not let it listen there.
            UsageError: that is no address, the machine is running, or it has a debugger already.
        """
        import importlib

        self.between_runs("serve_gdb()")
        if self.holder is not None:
            raise UsageError("serve_gdb(): this machine has a debugger already")
        server = importlib.import_module("vmm.debug.gdb.server")  # a floor above, that nobody else here looks up to
        made = server.GdbServer(address, wait=wait, **({"say": say} if say else {}))
        try:
            made.attach(self)
        except BaseException:
            made.close()
            raise
        self._gdb = made
        return made

    def irq_line(self, gsi: int, level: bool) -> None:
        """Drive an interrupt line, whichever controllers the machine has; nobody listens where it has none."""
        if self.irqchip == "kernel":
            self.vm.irq_line(gsi, level)
        else:
            for drive in self.line_drivers:
                drive(gsi, level)

    @property
    def cpuid(self) -> CpuidModel:
        """What the vCPUs were given, as `cpuid=` left it; each has its own APIC id besides."""
        if self._cpuid is None:
            from vmm.machine.x86.owed_cpuid import exposed

            self._cpuid = exposed(self.kvm, lapic=self.irqchip != "none")
        return self._cpuid

    def coalesce_console(self) -> None:
        """Let KVM collect the bytes of the debug console, for a guest that prints much: they cause no exit of their
        own, and come with the next one, or within a heartbeat (20 ms).

        Raises:
            MissingCapability: this KVM cannot (KVM_CAP_COALESCED_PIO, Linux 4.20).
        """
        self.vm.require("COALESCED_PIO", "coalescing the console")
        page = self.vm.require("COALESCED_MMIO", "coalescing the console")
        self.vm.register_coalesced_mmio(ports.DEBUG_CONSOLE, 1, pio=True)
        self.lane.coalesce(self.cpus[0].vcpu.coalesced_ring(page))

    def coalesce_writes(self, address: int, size: int, *, pio: bool = False) -> None:
        """Let KVM collect writes to these MMIO addresses (or ports). Their device has them in the guest's order, before
        the next exit is served, or within a heartbeat (20 ms). `vm.unregister_coalesced_mmio` takes it back.

        Raises:
            MissingCapability: this KVM cannot.
        """
        page = self.vm.require("COALESCED_MMIO", "coalescing writes")
        if pio:
            self.vm.require("COALESCED_PIO", "coalescing port writes")
        self.vm.register_coalesced_mmio(address, size, pio=pio)
        self.lane.share(self.cpus[0].vcpu.coalesced_ring(page))

    # -- loading

    def load(
        self,
        what: str | bytes | Program,
        *,
        at: int | None = None,
        entry: int | str | None = None,
        ring: int = 0,
        user: Iterable[tuple[int, int]] = (),
        allowed_ports: Iterable[int] = (),
    ) -> Program:
        """Put assembly text, raw bytes or an assembled Program into guest memory and make vCPU 0 start there.

        In text of a single line `;` parts statements; in longer text it begins a comment, as in a payload.
        `at` is the address (default: region `code`); `entry` a symbol or address (default: `start`, or the first
        byte). `user` are page-aligned address ranges that ring 3 may touch, `allowed_ports` ports it may use.

        Raises:
            PayloadError: the text does not assemble.
            UsageError: it does not fit.
        """
        program = as_program(what, layout.REGIONS["code"].base if at is None else at)
        start, user, allowed_ports = program.entry if entry is None else entry, tuple(user), tuple(allowed_ports)
        plain = self._plain
        if plain is not None and not plain.begun and not plain.closed:
            if type(start) is not int:
                check_place(program, start, 1)
                self.program = program
                start = self.address(start)
            try:
                plain.load_program(program, start, ring, user, allowed_ports)
                self.program = program
                self._started.add(0)
                return program
            except NotPlain:
                pass  # again, by the way that says what is wrong
        self._check_stands(self._cpu(0))  # before anything is written
        check_place(program, start, len(self.cpus))
        boot.write_tables(self.memory, len(self.cpus), user=user, allowed_ports=allowed_ports)
        self.memory.write(program.base, program.code)
        self.program = program
        self.start(0, start, ring=ring)
        return program

    def load_image(
        self,
        what: str | Path | bytes | Image,
        *,
        name: str | None = None,
        args: str | bytes = "",
        initrd: bytes | Path | None = None,
        modules: Iterable[bytes | Path | Module] = (),
        base: int | None = None,
        entry: int | str | None = None,
        mode: Mode | None = None,
        protocol: str | None = None,
    ) -> Image:
        """Put an image that others wrote into guest memory, and make vCPU 0 start it by its own boot protocol:
        `args` is the command line, `initrd` and `modules` are bytes or paths, `base` and `entry` are guest-physical
        addresses for flat code. Errors as vmm.machine.images.load.load_image.
        """
        from vmm.machine.images.load import load_image

        image = load_image(
            self, what, name=name, args=args, initrd=initrd, modules=modules, base=base, entry=entry, mode=mode,
            protocol=protocol,
        )  # fmt: skip
        self._started.add(0)
        return image

    def start(self, index: int, entry: int | str, *, ring: int = 0) -> None:
        """Make vCPU `index` start at `entry`, a symbol or linear address, in long mode and `ring` 0 or 3 with the next
        run, without INIT and SIPI.

        Raises:
            UsageError: it is running, and KVM would let us wait for the end of its KVM_RUN; or what is loaded is an
                image without the tables that such a start needs.
        """
        cpu = self._cpu(index)
        self._check_stands(cpu)
        if self.program is not None and self.program.place_at(0) is not None:
            code = layout.REGIONS["code"]
            raise UsageError(
                f"starting {cpu.vcpu.what} at {entry}: {self.program.name} lies outside of pyvmm's own map, and has "
                "not its page tables and stack",
                hint=f"an image that is linked for {code.base:#x} to {code.end - 1:#x} has",
            )
        address = self.address(entry)
        if self.irqchip != "none" and index:
            from vmm.abi.exits import MP_STATES
            from vmm.abi.rows import value_of

            cpu.vcpu.set_mp_state(value_of(MP_STATES, "KVM_MP_STATE_RUNNABLE"))
        cpu.vcpu.abandon()
        boot.long_mode(cpu.vcpu, index, address, cpus=len(self.cpus), ring=ring)
        self._started.add(index)

    @staticmethod
    def _check_stands(cpu: Cpu) -> None:
        if cpu.thread_id is not None:
            raise UsageError(
                f"{cpu.vcpu.what} is running", hint="load and start before run(); or INIT and SIPI by the guest"
            )

    def address(self, where: int | str) -> int:
        """`where` as an address of 64 bits: of a symbol of the loaded program, or the number itself.

        Raises:
            UsageError: no such symbol, or no such number.
        """
        if not isinstance(where, str):
            number = integer(where)
            if number is None or not 0 <= number < 1 << 64:
                raise UsageError(f"{where!r} is neither a symbol's name nor an address of 64 bits")
            return number
        symbols = self.program.symbols if self.program else {}
        if where not in symbols:
            raise UsageError(f"the program has no symbol {where!r}")
        return symbols[where]

    def read_virtual(self, va: int, size: int, *, vcpu: int = 0) -> bytes:
        """`size` bytes by guest-virtual address, through the page tables of that vCPU; it must not be running.

        Raises:
            GuestMemoryError: a page is not mapped, or lies in no memslot.
            UsageError: there is no such vCPU.
        """
        from vmm.machine.x86.virtual import read_virtual

        return read_virtual(self.memory, self._cpu(vcpu).vcpu.get_sregs(), va, size)

    def write_virtual(self, va: int, data: bytes, *, vcpu: int = 0) -> None:
        """Write by guest-virtual address, all of `data` or nothing. Errors as `read_virtual`."""
        from vmm.machine.x86.virtual import write_virtual

        write_virtual(self.memory, self._cpu(vcpu).vcpu.get_sregs(), va, data)

    @property
    def regs(self) -> Registers:
        """The registers of vCPU 0 by name, `cpus[0].regs`; in a callback those of its vCPU are `current.regs`."""
        return self.cpus[0].regs

    def save(self) -> Context:
        """The state of all vCPUs, memory and devices, between two runs; pickle takes it.

        Raises:
            HostError: the machine has been closed.
            UsageError: it is running, a vCPU is inside an instruction that would end the run, or pages of its memory
                are supplied on demand.
        """
        self.between_runs("saving its state")
        from vmm.machine import context  # only who saves a state pays for it

        return context.save(self, self._started)

    def restore(self, saved: Context) -> None:
        """Go back to a state that `save` gave, as often as one likes.

        Raises:
            HostError: the machine has been closed.
            UsageError: it is running, or the state is of a machine of another shape; nothing was changed.
        """
        self.between_runs("restoring a state")
        from vmm.machine import context

        context.restore(saved, self)
        self._started = set(saved.started)

    @property
    def shape(self) -> dict[str, Any]:
        """What it was made with: the arguments of Machine by name."""
        return dict(zip(SHAPE, self._shape, strict=True))

    @property
    def started(self) -> tuple[int, ...]:
        """The vCPUs that were made to start by hand."""
        return tuple(sorted(self._started))

    def take_over(self, program: Program | None, started: Iterable[int]) -> None:
        """Be known as a machine with this program, whose vCPUs `started` were made to start by hand."""
        self.program = program
        self._started = set(started)

    def between_runs(self, doing: str) -> None:
        """Raises, where that is not so: HostError, it is closed; UsageError, it is running. `doing` says for what."""
        if self.vm.closed:
            raise HostError(f"{doing}: this machine has been closed")
        if any(cpu.thread_id is not None for cpu in self.cpus):
            raise UsageError(f"{doing}: the machine is running; do it before or after run()")

    # -- hooks (the callbacks are in hooks.py)

    @property
    def current(self) -> Cpu | None:
        """Inside a hook: the cpu of the vCPU that caused it."""
        self._become_whole()
        from vmm.machine.run.cpu import current

        return current()

    # -- running

    def observe(self, f: Observer, *kinds: type[Exit]) -> None:
        """Call f(cpu, exit) with each exit of these kinds (vmm.kvm.exits), or with every one, before it is handled.
        Several may observe. Whoever wants to see accesses to ports, MMIO or MSRs, or all, turns the lean way off: each
        of those becomes a value then, and costs several times as much.
        """
        self.all_cpus.add_observer(f, kinds)

    def unobserve(self, f: Observer) -> None:
        """Undo `observe`. UsageError: f observes nothing."""
        self.all_cpus.remove_observer(f)

    @property
    def on_exit(self) -> Callable[[Cpu, Exit], object] | None:
        """`m.on_exit = f` observes every exit with f(cpu, exit), in place of the f that was assigned before; None
        takes it back. Other observers, and devices, stay. While one is assigned, the lean way is off: see `observe`.
        """
        return self.all_cpus.on_exit

    @on_exit.setter
    def on_exit(self, f: Callable[[Cpu, Exit], object] | None) -> None:
        self.all_cpus.on_exit = f

    @property
    def watcher(self) -> Watcher | None:
        """Who sees every run; every exit then takes the plain way. None, as it is at first, costs nothing."""
        return self._watcher

    @watcher.setter
    def watcher(self, watcher: Watcher | None) -> None:
        self._watcher = watcher
        self.all_cpus.watch = watcher.serve if watcher else None

    def note(self, text: str) -> None:
        """Tell whoever watches what the host does; nobody, and it is free."""
        if self._watcher is not None:
            self._watcher.note(text)

    def run(
        self, timeout: float | None = None, *, until: int | str | None = None, exit_limit: int | None = None
    ) -> Result:
        """Run every started vCPU (with an in-kernel LAPIC also those that wait for SIPI) until one ends the run.

        `until` is a symbol or linear address: the run ends (Why.REACHED) before a vCPU executes the instruction there;
        one that stands there already goes on until it comes again.
        `timeout` in seconds (default: `self.timeout`, 10; at most a day), `exit_limit` in exits over all vCPUs: the
        last of them is served, and the run ends. Both, and the console's limit, end in a Result like anything else;
        what a hook raises, and KeyboardInterrupt, is raised here after every vCPU has stopped. A further run goes on
        where this one ended.

        Raises:
            HostError: the machine is closed.
            UsageError: it runs already, or a limit is none.
        """
        plain = self._plain
        if plain is not None and self._started and until is None and exit_limit is None and self.unwatched:
            return self._run_plainly(plain, timeout)
        active = self.members()
        limit = self.limit(timeout)
        exit_limit = None if exit_limit is None else limits.exit_limit(exit_limit)
        if self._watcher is not None:
            self._watcher.begin(active)
        place = None if until is None else self.address(until)
        if place is not None:
            self.debugger.check(place)
        if self._debugger is not None:  # somebody has asked for a debug exit before, or does now
            self._debugger.arm(place)
        if self.holder is None:
            stop, by, wall = self.all_cpus.run(active, limit, exit_limit)
        else:
            stop, by, wall = self.holder.hold(active, limit if timeout is not None else None, exit_limit)
        if place is not None and stop.why is not Why.REACHED:
            stop = self.debugger.why_not_reached(stop, place)
        return self.conclude(stop, by, wall)

    @property
    def unwatched(self) -> bool:
        """Nobody has ever stepped, held or watched this machine's runs."""
        return self._debugger is None and self.holder is None and self._watcher is None

    def limit(self, timeout: float | None) -> float | None:
        """Seconds that a run may take. UsageError: they are no number of seconds."""
        limit = self.timeout if timeout is None else timeout
        return None if limit is None else limits.time_limit(limit)

    def _run_plainly(self, plain: Plain, timeout: float | None) -> Result:
        """A run that begins with a plain machine; where something comes that needs a whole one, that goes on."""
        if plain.closed:
            raise HostError(CLOSED)
        limit = self.limit(timeout)
        if not plain.running.acquire(blocking=False):
            raise UsageError(limits.RUNS_ALREADY)
        try:
            stop = plain.run(limit)
            if stop is not None:
                return plain.result(stop)
            all_cpus = self.all_cpus  # whole from here on
            return self.conclude(*all_cpus.go_on(limit, plain.begun))
        except BaseException:
            if plain.whole:
                self.cpus[0].core.keep_held()
            raise
        finally:
            plain.running.release()

    def members(self) -> list[Cpu]:
        """The vCPUs that a run runs beside vCPU 0: those started, and with an in-kernel LAPIC all.

        Raises:
            HostError: the machine is closed.
            UsageError: nothing is loaded.
        """
        if self.vm.closed:
            raise HostError(CLOSED)
        if 0 not in self._started and self._at_reset():
            raise UsageError("run() before load(): vCPU 0 is as after a reset, and nothing is at its reset vector")
        return [r for r in self.cpus[1:] if r.index in self._started or self.irqchip != "none"]

    def conclude(self, stop: Stop, by: Cpu | None, wall: float) -> Result:
        """The Result of a run that ended so after `wall` seconds, and whoever watches is told."""
        counts = self.cpus[0].counts
        for cpu in self.cpus[1:]:
            counts.update(cpu.counts)
        result = Result(
            stop=stop,
            vcpu=by.index if by else None,
            console=self.sink.data,
            wall=wall,
            counts=counts,
            recent={cpu.index: cpu.recent for cpu in self.cpus},
            unclaimed=self.platform.unclaimed,
            missed=self.platform.missed,
        )
        if self._watcher is not None:
            self._watcher.ended(result)
        return result

    def _at_reset(self) -> bool:
        """Whether vCPU 0 would begin at the reset vector, where this machine has no memory."""
        cpu = self.cpus[0]
        if cpu.thread_id is not None or cpu.vcpu.pending:
            return False
        regs, sregs = cpu.vcpu.get_regs(), cpu.vcpu.get_sregs()
        vector = sregs.cs.base + regs.rip
        return (regs.rip, sregs.cs.selector) == (0xFFF0, 0xF000) and self.memory.slot_at(vector) is None

    def call(self, function: str | int, *args: int, timeout: float | None = None) -> int:
        """Call a function of the loaded program on vCPU 0, with up to six `args` of 64 bits in RDI, RSI, RDX, RCX, R8,
        R9 (System V ABI); RAX as it returned, unsigned. Errors as vmm.machine.run.call.call.
        """
        from vmm.machine.run.call import call

        return call(self, function, *args, timeout=timeout)

    def stop(self, text: object = "the host asked for it") -> None:
        """End the run, from a hook, a signal handler or another thread. Between two runs it ends the next at once, so
        that it cannot come too early. `text` says why; a number is none, so that this may itself be a callback.
        """
        why = text if isinstance(text, str) else "the host asked for it"
        self.all_cpus.end(None, Stop(Why.STOPPED, why))

    # -- the end

    @property
    def _unclosed(self) -> str:
        if self._plain is not None:
            closed, cpus = self._plain.closed, 1
        else:
            closed, cpus = self.vm.closed, len(self.cpus)
        return "" if closed else f"machine with {cpus} vCPU{'s' * (cpus != 1)}; call close(), or use `with`"

    def close(self) -> None:
        """Stop everything and give it all back; idempotent. From another thread, it waits for the end of a run.

        Raises:
            UsageError: called from inside a run, by one of its hooks.
        """
        if self._gdb is not None:
            self._gdb.close()
        if self._plain is not None and self._plain.close():
            return
        from vmm.machine.run.cpu import current

        try:
            if current() not in self.cpus:  # what a hook asks for is refused below, and changes nothing
                self.close_parts()
        finally:  # what KVM did not give back goes with the VM
            self.all_cpus.close(self._release)
            self.close_kvm()

    def close_parts(self) -> None:
        """Of those that were made, the ones with threads and descriptors of their own."""
        try:
            self._close_virtio()
        finally:
            if "board" in self.__dict__:
                self.board.close()

    def _release(self) -> None:
        self.lane.close()
        self.vm.close()
        self.release_parts()

    def release_parts(self) -> None:
        """Let go of each other."""
        # What is closed and held by nobody goes at once: collected later, its end would come in the middle of some run,
        # where Python loses a ^C that comes just then.
        self.board.let_go()
        self.platform.ports.check = self.platform.mmio.check = self.memory.check = None

    def close_kvm(self) -> None:
        """Where it is this machine's own."""
        if self._owns_kvm:
            self.kvm.close()


def _apic_ids(cpus: int | Sequence[int]) -> list[int]:
    """As many ids as there shall be vCPUs. UsageError for what is neither a number nor a list of numbers."""
    count = integer(cpus)
    if count is not None:
        layout.check_cpus(count)
        return list(range(count))
    given = [] if isinstance(cpus, (str, bytes)) or not hasattr(cpus, "__iter__") else [integer(each) for each in cpus]
    ids = [each for each in given if each is not None and each >= 0]
    if not ids or len(ids) != len(given):
        raise UsageError(f"cpus={cpus!r}: give the number of vCPUs, or a list of their APIC ids")
    layout.check_cpus(len(ids))
    if len(set(ids)) != len(ids):
        raise UsageError(f"APIC ids {ids}: each vCPU needs its own")
    return ids
