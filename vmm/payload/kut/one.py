# SPDX-License-Identifier: GPL-2.0-or-later
"""One test on a machine of its own, and what became of it: the state, and the reason where it is not a plain pass.

How a run ended is turned into a verdict here; what the test's output says is vmm.payload.kut.verdict's to read.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmm.abi.x86 import HYPERCALL_INSTRUCTIONS
from vmm.errors import ImageError, MissingCapability, NotTaken, UsageError, VmmError
from vmm.kvm.exits import InternalError
from vmm.machine.ends import Result, Why
from vmm.machine.machine import Machine
from vmm.payload.kut.cpu_model import editor
from vmm.payload.kut.settings import Settings
from vmm.payload.kut.verdict import Report, State, judge, read_report, status_of

if TYPE_CHECKING:
    from vmm.observe.postmortem import PostMortem, VcpuState

BOARD = "testdev"
EMULATION = 1  # KVM_INTERNAL_ERROR_EMULATION


@dataclass
class Ended:
    """What became of a test: `status` is what QEMU would have ended with, None where the test did not end itself;
    `where` has a line for each vCPU that stood somewhere else than at an end.
    """

    state: State
    reason: str = ""
    status: int | None = None
    console: str = ""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    where: list[str] = field(default_factory=list)

    @property
    def report(self) -> Report:
        """What the test printed of its checks."""
        return read_report(self.console)

    def as_json(self) -> dict[str, Any]:
        """Plain values, for `from_json`."""
        return vars(self) | {"state": str(self.state)}


def from_json(found: dict[str, Any]) -> Ended:
    """The reverse of `Ended.as_json`."""
    return Ended(**found | {"state": State(found["state"])})


def run_one(settings: Settings, image: Path, timeout: float | None) -> Ended:
    """Run an image by these settings, for at most `timeout` seconds (None: a day). Never raises for what a guest, an
    image or a host that lacks something does.
    """
    notes = list(settings.notes)
    try:
        return _run(settings, image, timeout, notes)
    except MissingCapability as error:
        return Ended(State.CANNOT, f"a capability is missing: {error.one_line}", notes=notes)
    except ImageError as error:
        return Ended(State.FAIL, f"the image cannot be run: {error.one_line}", notes=notes)
    except UsageError as error:
        return Ended(State.CANNOT, error.one_line, notes=notes)
    except VmmError as error:
        return Ended(State.ERROR, error.one_line, notes=notes)


def _run(settings: Settings, image: Path, timeout: float | None, notes: list[str]) -> Ended:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", NotTaken)
        machine = Machine(
            settings.memory,
            settings.cpus,
            board=BOARD,
            irqchip="split" if settings.irqchip == "split" else "kernel",
            cpuid=editor(settings.cpu, notes),
            before_vcpus=_keep_idle_cpus if settings.cpu_pm else None,
        )
    notes += [str(each.message) for each in said if issubclass(each.category, NotTaken)]
    with machine:
        machine.load_image(image, args=settings.args, initrd=Path(settings.initrd) if settings.initrd else None)
        machine.timeout = None
        result = machine.run(timeout)
        ended = _ended(machine, result)
    ended.console = result.text
    ended.seconds = result.wall
    ended.notes = notes
    return ended


def _keep_idle_cpus(machine: Machine) -> None:
    """`-overcommit cpu-pm=on`: HLT, PAUSE and MWAIT do not exit, as far as this KVM can."""
    can = machine.vm.check_extension("X86_DISABLE_EXITS")
    if can:
        machine.vm.enable_cap("X86_DISABLE_EXITS", can)


def _ended(machine: Machine, result: Result) -> Ended:
    stop = result.stop
    if stop.why is Why.DEBUG_EXIT:
        status = status_of(stop.code or 0)
        report = read_report(result.text)
        state, reason = judge(status, report)
        if state is State.FAIL and report.cry:
            reason += _instruction_at(machine, report.cry)
        return Ended(state, reason, status)
    from vmm.observe.postmortem import PostMortem, examine

    try:
        found = examine(machine, result)
    except VmmError as error:  # capstone may not be there; how it ended is known without it
        found = PostMortem(stop.text, error.one_line, None, ())
    where = [_place(each) for each in found.vcpus]
    return Ended(*_by_end(machine, result, found), where=where)


def _instruction_at(machine: Machine, cry: str) -> str:
    """` (umip.c's do_smsw+0x1a: smsw ax)` for the address that a line about an exception names, where it is code. The
    guest's page tables are those of its end, which a test does not change much.
    """
    from vmm.asm.disassembler import MAX_LENGTH, disassemble
    from vmm.observe.postmortem import code_bits, readable, where

    named = re.search(r"\bip ([0-9a-f]+)", cry)
    if named is None:
        return ""
    address = int(named[1], 16)
    try:
        sregs = machine.cpus[0].vcpu.get_sregs()
        found = disassemble(readable(machine, sregs, address, MAX_LENGTH), address, bits=code_bits(sregs))
        text = next(iter(found)).text
    except (VmmError, StopIteration):
        return ""
    return f" ({where(machine, address) or hex(address)}: {text})"


def _by_end(machine: Machine, result: Result, found: PostMortem) -> tuple[State, str]:
    """(state, reason) of a test that did not say how it went."""
    stop = result.stop
    here = _place(found.vcpus[0]) if found.vcpus else ""
    match stop.why:
        case Why.INTERNAL_ERROR if isinstance(stop.exit, InternalError) and stop.exit.suberror == EMULATION:
            if _ring0_is_emulated(machine):
                return State.CANNOT, f"an instruction that this host's KVM does not emulate in ring 0: {here}"
            return State.CRASH, f"KVM met an instruction that its emulator does not know: {here}"
        case Why.TIME_LIMIT:
            return _timed_out(machine, result, found)
        case Why.RESET:
            return State.CANNOT, f"{stop.text}; a run ends there, and the test goes on after a reset"
        case Why.STOPPED:
            return State.CANNOT, stop.text
        case Why.OUTPUT_LIMIT:
            return State.FAIL, f"it printed more than {machine.sink.limit} bytes"
        case Why.POWER_OFF | Why.HALT:
            return State.FAIL, f"it ended without a status: {stop.text}{_last(result)}"
        case _:
            return State.CRASH, ": ".join(filter(None, (stop.text, here, found.hint)))


def _timed_out(machine: Machine, result: Result, found: PostMortem) -> tuple[State, str]:
    limit = f"not done after {result.wall:.0f} s"
    for each in found.vcpus:
        code = next((line for line in each.code if line.here), None)
        if code and bytes.fromhex(code.bytes)[:3] in HYPERCALL_INSTRUCTIONS.values() and _ring0_is_emulated(machine):
            return State.CANNOT, f"{code.text} never reaches KVM on this host, {limit}: {_place(each)}"
    reason = f"{limit}; {'; '.join(_place(each) for each in found.vcpus)}{_last(result)}"
    return State.TIMEOUT, f"{reason}; {found.hint}" if found.hint else reason


def _place(cpu: VcpuState) -> str:
    """`vCPU 0 in 64-bit ring 0 at main+0x1c: vmcall (0f 01 c1)`."""
    code = next((line for line in cpu.code if line.here), None)
    text = f": {code.text} ({code.bytes})" if code else ""
    return f"vCPU {cpu.index} in {cpu.mode} at {cpu.where or hex(cpu.rip)}{text}"


def _last(result: Result) -> str:
    """The last line that it printed."""
    last = read_report(result.text).last
    return f"; it printed last: {last}" if last else "; it printed nothing"


def _ring0_is_emulated(machine: Machine) -> bool:
    """Measured, by a machine of its own."""
    from vmm.host.ring0 import count

    return count(machine.kvm).kind in ("emulated", "mixed")
