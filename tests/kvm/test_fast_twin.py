# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine(fast=True) and Machine(fast=False) are twins: the same guest ends in equal results, whoever served its exits.

The C core finishes what needs no Python and hands single accesses to their handlers without making an exit of them;
the plain way makes a value of every exit and gives it to `handle`. A report must not tell which was taken.
"""

from __future__ import annotations

import enum
import gc
import sys
import threading
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from vmm.abi.ports import DEBUG_CONSOLE, DELAY, EXIT
from vmm.errors import MissingCapability, UsageError
from vmm.kvm._kvm import ffi, lib
from vmm.kvm.exits import MmioRead, MmioWrite, PortIn, PortOut, ReadMsr, WriteMsr
from vmm.kvm.lean import seen_exit
from vmm.kvm.words import Finish, Word
from vmm.machine.bus.bus import Bus
from vmm.machine.bus.claims import Claims
from vmm.machine.devices.sink import OutputLimit
from vmm.machine.ends import Result, Stop, Why
from vmm.machine.machine import Machine
from vmm.machine.memory import layout

HEX = bytes.fromhex
MMIO = 0xD001_0000  # mapped, and claimed by nobody
FREE_PORT = 0x300
MOV_EDI_MMIO = b"\xbf" + MMIO.to_bytes(4, "little")
DATA = layout.REGIONS["data"].base
HLT = HEX("f4")


def out(port: int, value: int) -> bytes:
    """mov al, value; out port, al"""
    return bytes((0xB0, value, 0xE6, port))


def string_out(port: int, size: int, count: int) -> bytes:
    """mov esi, data; mov ecx, count; mov dx, port; rep outs of `size` bytes"""
    code = b"\xbe" + DATA.to_bytes(4, "little") + b"\xb9" + count.to_bytes(4, "little")
    return code + b"\x66\xba" + port.to_bytes(2, "little") + {1: HEX("f36e"), 2: HEX("66f36f"), 4: HEX("f36f")}[size]


def string_in(port: int, size: int, count: int) -> bytes:
    """mov edi, data; mov ecx, count; mov dx, port; rep ins of `size` bytes"""
    code = b"\xbf" + DATA.to_bytes(4, "little") + b"\xb9" + count.to_bytes(4, "little")
    return code + b"\x66\xba" + port.to_bytes(2, "little") + {1: HEX("f36c"), 2: HEX("66f36d"), 4: HEX("f36d")}[size]


def loop(count: int, body: bytes) -> bytes:
    """mov r9d, count; L: body; dec r9d; jnz L"""
    back = -(len(body) + 3 + 2)
    head = b"\x41\xb9" + count.to_bytes(4, "little")
    return head + body + HEX("41ffc9") + b"\x75" + back.to_bytes(1, "little", signed=True)


ENDS = out(EXIT, 0)
READ_ALL = HEX("8a07 668b07 8b07 488b07")  # mov al, [rdi]; mov ax, [rdi]; mov eax, [rdi]; mov rax, [rdi]
WRITE_ALL = HEX("8807 668907 8907 488907")


class Twin(NamedTuple):
    """A guest and what is claimed around it. `set_up` returns what the hooks saw, to be compared too."""

    code: bytes
    set_up: Callable[[Machine], Any] = lambda machine: None
    options: Mapping[str, Any] = MappingProxyType({})
    runs: int = 1


def seen_writes(port: int) -> Callable[[Machine], list[int]]:
    def set_up(machine: Machine) -> list[int]:
        seen: list[int] = []
        machine.on_port_write(port, seen.append)
        return seen

    return set_up


def counting_reads(port: int) -> Callable[[Machine], list[int]]:
    def set_up(machine: Machine) -> list[int]:
        given = [0]

        def answer() -> int:
            given[0] += 1
            return given[0]

        machine.on_port_read(port, answer)
        return given

    return set_up


class Device:
    """Keeps what it was told, and answers from it."""

    name = "twin"

    def __init__(self) -> None:
        self.told: list[tuple[int, ...]] = []

    def read(self, offset: int, size: int) -> int:
        self.told.append((offset, size))
        return (1 << 8 * size) - 1 - offset

    def write(self, offset: int, size: int, value: int) -> None:
        self.told.append((offset, size, value))


def device(at: int, size: int, *, mmio: bool) -> Callable[[Machine], list[tuple[int, ...]]]:
    def set_up(machine: Machine) -> list[tuple[int, ...]]:
        made = Device()
        bus = machine.platform.mmio if mmio else machine.platform.ports
        bus.claim(at, size, made)
        return made.told

    return set_up


def port_word(machine: Machine) -> Any:
    return machine.port_word(DELAY)


def mmio_word(machine: Machine) -> Any:
    return machine.mmio_word(MMIO)


def stopping(machine: Machine) -> None:
    machine.on_port_write(DELAY, lambda value: machine.stop("a hook says so"))


def stopping_reads(machine: Machine) -> None:
    def answer() -> int:
        machine.all_cpus.end(machine.current, Stop(Why.STOPPED, "a device says so, and answers"))
        return 0x5A

    machine.on_port_read(DELAY, answer)


def completing(machine: Machine) -> list[int]:
    """A hook that finishes its own exit to look at true registers."""
    rips: list[int] = []

    def look(value: int) -> None:
        vcpu = machine.cpus[0].vcpu
        vcpu.complete()
        rips.append(vcpu.get_regs().rip)

    machine.on_port_write(DELAY, look)
    return rips


def completing_reads(machine: Machine) -> list[int]:
    answers: list[int] = []

    def answer() -> int:
        answers.append(len(answers))
        return len(answers)

    def look(value: int) -> None:
        answers.append(100 + value)
        machine.cpus[0].vcpu.complete()

    machine.on_port_read(DELAY, answer)
    machine.on_port_write(DELAY, look)
    return answers


def claiming_later(machine: Machine) -> list[int]:
    """A hook that claims the port which the guest writes next, and gives it up the second time."""
    seen: list[int] = []

    def change(value: int) -> None:
        if value == 1:
            machine.on_port_write(FREE_PORT, seen.append)
        else:
            machine.platform.ports.release(FREE_PORT)

    machine.on_port_write(DELAY, change)
    return seen


def word_given_up(machine: Machine) -> list[int]:
    """Words whose port and address belong to somebody else now; another word stays."""
    seen: list[int] = []
    machine.port_word(0x81)
    words = machine.port_word(DELAY), machine.mmio_word(MMIO)
    machine.platform.ports.release(DELAY)
    machine.platform.mmio.release(MMIO)
    machine.on_port_write(DELAY, seen.append)
    machine.on_mmio_write(MMIO, lambda value: seen.append(words[0].writes + words[1].writes))
    return seen


def own_console(machine: Machine) -> list[int]:
    """The console's port belongs to somebody else."""
    seen: list[int] = []
    machine.platform.ports.release(DEBUG_CONSOLE)
    machine.on_port_write(DEBUG_CONSOLE, seen.append)
    return seen


MSR = 0x1234  # no CPU has it
MOV_ECX_MSR = b"\xb9" + MSR.to_bytes(4, "little")
RDMSR, WRMSR = HEX("0f32"), HEX("0f30")
STORE = b"\x89\x04\x25" + DATA.to_bytes(4, "little") + b"\x89\x14\x25" + (DATA + 4).to_bytes(4, "little")  # eax, edx
ADD = HEX("83c001 83d200")  # add eax, 1; adc edx, 0
ACCESS_MSR = RDMSR + ADD + WRMSR


def msr_hooks(machine: Machine) -> list[int]:
    seen: list[int] = []

    def read() -> int:
        seen.append(-1)
        return 0x1_FFFF_FFFE + len(seen)

    machine.on_msr_read(MSR, read)
    machine.on_msr_write(MSR, seen.append)
    return seen


def msr_answers(*answers: Any) -> Callable[[Machine], list[int]]:
    """One after the other, and the last for good."""

    def set_up(machine: Machine) -> list[int]:
        seen: list[int] = []
        left = list(answers)

        def read() -> Any:
            return left.pop(0) if len(left) > 1 else left[0]

        def write(value: int) -> None:
            seen.append(value)

        machine.on_msr_read(MSR, read)
        machine.on_msr_write(MSR, write)
        return seen

    return set_up


def msr_refused(machine: Machine) -> list[int]:
    """Each direction takes two, then refuses; how often either was asked."""
    asked = [0, 0]

    def read() -> int | None:
        asked[0] += 1
        return 5 if asked[0] < 3 else None

    def write(value: int) -> bool | None:
        asked[1] += 1
        return None if asked[1] < 3 else False

    machine.on_msr_read(MSR, read)
    machine.on_msr_write(MSR, write)
    return asked


def unknown_msrs(machine: Machine) -> None:
    machine.vm.enable_cap("X86_USER_SPACE_MSR", 1 << 0 | 1 << 1)  # KVM_MSR_EXIT_REASON_INVAL, _UNKNOWN


def msr_word(machine: Machine) -> Any:
    word = machine.msr_word(MSR)
    word.value = 0xFFFF_FFFE
    return word


def word_then_hook(machine: Machine) -> list[int]:
    """The word's reads belong to a callback, its writes to the word still."""
    word = msr_word(machine)
    seen: list[int] = []

    def read() -> int:
        seen.append(word.writes)
        return word.value

    machine.on_msr_read(MSR, read)
    return seen


def hook_then_word(machine: Machine) -> Any:
    machine.on_msr_read(MSR, lambda: 1 // 0)
    machine.on_msr_write(MSR, lambda value: 1 // 0)
    machine.msr_word(MSR)
    return msr_word(machine)


def changing_msrs(machine: Machine) -> list[int]:
    """A hook that gives the MSR to another hook."""
    seen: list[int] = []

    def first(value: int) -> None:
        seen.append(value)
        machine.on_msr_write(MSR, lambda value: seen.append(1000 + value))

    machine.on_msr_write(MSR, first)
    return seen


def stopping_msrs(machine: Machine) -> None:
    def read() -> int:
        machine.stop("a hook says so, and answers")
        return 0x5A

    def write(value: int) -> bool:
        machine.stop("a hook says so, and refuses")
        return False

    machine.on_msr_read(MSR, read)
    machine.on_msr_write(MSR, write)


def completing_msrs(machine: Machine) -> list[int]:
    seen: list[int] = []

    def read() -> int:
        machine.cpus[0].vcpu.complete()
        return 9

    def write(value: int) -> None:
        seen.append(value)
        machine.cpus[0].vcpu.complete()
        seen.append(machine.cpus[0].vcpu.get_regs().rip)

    machine.on_msr_read(MSR, read)
    machine.on_msr_write(MSR, write)
    return seen


class Level(enum.IntEnum):
    HIGH = 0x77


TO_FREE_PORT = HEX("66ba0003 b042 ee")  # mov dx, 0x300; mov al, 0x42; out dx, al
TWINS = {
    "console, byte by byte": Twin(loop(300, out(DEBUG_CONSOLE, 0x41)) + ENDS),
    "console, a string": Twin(string_out(DEBUG_CONSOLE, 1, 100) + ENDS),
    "console, words": Twin(HEX("b844434241 66e7e9 e7e9") + string_out(DEBUG_CONSOLE, 4, 3) + ENDS),
    "console limit hit exactly": Twin(loop(64, out(DEBUG_CONSOLE, 0x41)) + ENDS, options={"console_limit": 64}),
    "console limit passed by one": Twin(loop(65, out(DEBUG_CONSOLE, 0x41)) + ENDS, options={"console_limit": 64}),
    "console limit inside a word": Twin(loop(9, HEX("e7e9")) + ENDS, options={"console_limit": 33}),
    "console limit inside a string": Twin(string_out(DEBUG_CONSOLE, 1, 65) + ENDS, options={"console_limit": 64}),
    "console limit, run on": Twin(loop(70, out(DEBUG_CONSOLE, 0x41)) + ENDS, options={"console_limit": 64}, runs=3),
    "console limit shared with the serial port": Twin(
        HEX("66baf803 b041 ee e6e9 ee e6e9 e7e9") + ENDS, options={"console_limit": 3}
    ),
    "console limit of one, the serial port first": Twin(
        HEX("66baf803 b041 ee e6e9 ee") + ENDS, options={"console_limit": 1}
    ),
    "no console": Twin(out(DEBUG_CONSOLE, 0x41) + ENDS, options={"console_limit": 0}),
    "a console of somebody else's": Twin(loop(5, out(DEBUG_CONSOLE, 0x41)) + ENDS, own_console),
    "OUT to a hook": Twin(loop(20, HEX("e680 66e780 e780")) + ENDS, seen_writes(DELAY)),
    "a string to a hook": Twin(string_out(DELAY, 2, 9) + ENDS, seen_writes(DELAY)),
    "IN from a hook": Twin(loop(20, HEX("e480 66e580 e580")) + out(DELAY, 0) + ENDS, counting_reads(DELAY)),
    "a string from a hook": Twin(string_in(DELAY, 1, 9) + ENDS, counting_reads(DELAY)),
    "ports of a device": Twin(HEX("e680 e681 e780 66e582 e583") + ENDS, device(DELAY, 4, mmio=False)),
    "unclaimed ports": Twin(HEX("e680 66e780 e580 e480") + ENDS),
    "unclaimed strings": Twin(string_in(DELAY, 4, 5) + string_out(DELAY, 1, 5) + ENDS),
    "unclaimed, strict": Twin(HEX("e680") + ENDS, options={"strict": True}),
    "unclaimed read, strict": Twin(HEX("e580") + ENDS, options={"strict": True}),
    "MMIO of every size": Twin(MOV_EDI_MMIO + loop(3, WRITE_ALL + READ_ALL) + ENDS, device(MMIO, 0x100, mmio=True)),
    "MMIO across an edge": Twin(MOV_EDI_MMIO + WRITE_ALL + READ_ALL + ENDS, device(MMIO + 2, 4, mmio=True)),
    "MMIO unclaimed": Twin(MOV_EDI_MMIO + WRITE_ALL + READ_ALL + ENDS),
    "MMIO unclaimed, strict": Twin(MOV_EDI_MMIO + READ_ALL + ENDS, options={"strict": True}),
    "a port word": Twin(loop(7, HEX("e680 66e780 e780 e480 e580")) + ENDS, port_word),
    "a port word, strings": Twin(string_out(DELAY, 2, 9) + string_in(DELAY, 1, 9) + ENDS, port_word),
    "an MMIO word": Twin(MOV_EDI_MMIO + loop(3, WRITE_ALL + READ_ALL) + ENDS, mmio_word),
    "a word touched beside its start": Twin(MOV_EDI_MMIO + HEX("ffc7") + WRITE_ALL + READ_ALL + ENDS, mmio_word),
    "words given up": Twin(MOV_EDI_MMIO + HEX("b005 e680 8907 e480 8b07 e681") + ENDS, word_given_up),
    "a hook that stops": Twin(loop(3, out(DELAY, 1)) + ENDS, stopping, runs=4),
    "a hook that stops and answers": Twin(  # in al, 0x80; mov [DATA], al
        HEX("e480 880425") + DATA.to_bytes(4, "little") + ENDS, stopping_reads, runs=2
    ),
    "a hook that completes": Twin(loop(3, out(DELAY, 1)) + ENDS, completing),
    "hooks that complete and answer": Twin(loop(4, HEX("e480 e680")) + ENDS, completing_reads),
    "claims that change": Twin(
        out(DELAY, 1) + TO_FREE_PORT + TO_FREE_PORT + out(DELAY, 2) + TO_FREE_PORT + ENDS, claiming_later
    ),
    "MSR hooks": Twin(MOV_ECX_MSR + loop(20, ACCESS_MSR) + STORE + ENDS, msr_hooks),
    "MSR answers": Twin(
        MOV_ECX_MSR + loop(8, RDMSR + WRMSR) + ENDS,
        msr_answers(0, True, Level.HIGH, (1 << 64) - 1, 1 << 63, 3),
    ),
    "MSR reads refused": Twin(MOV_ECX_MSR + loop(5, RDMSR) + ENDS, msr_refused),
    "MSR writes refused": Twin(MOV_ECX_MSR + loop(5, WRMSR) + ENDS, msr_refused),
    "an MSR that nobody serves": Twin(MOV_ECX_MSR + RDMSR + ENDS, unknown_msrs),
    "an MSR that nobody serves, written": Twin(MOV_ECX_MSR + HEX("b844332211 31d2") + WRMSR + ENDS, unknown_msrs),
    "an MSR word": Twin(MOV_ECX_MSR + loop(20, ACCESS_MSR) + STORE + ENDS, msr_word),
    "an MSR word, then a hook": Twin(MOV_ECX_MSR + loop(5, ACCESS_MSR) + STORE + ENDS, word_then_hook),
    "MSR hooks, then a word": Twin(MOV_ECX_MSR + loop(5, ACCESS_MSR) + STORE + ENDS, hook_then_word),
    "MSR hooks that change": Twin(MOV_ECX_MSR + HEX("b807000000 31d2") + loop(4, WRMSR) + ENDS, changing_msrs),
    "an MSR hook that stops": Twin(MOV_ECX_MSR + RDMSR + STORE + WRMSR + ENDS, stopping_msrs, runs=4),
    "MSR hooks that complete": Twin(MOV_ECX_MSR + loop(3, ACCESS_MSR) + STORE + ENDS, completing_msrs),
    "a fault": Twin(out(DEBUG_CONSOLE, 0x41) + HEX("0f0b")),
    "a halt": Twin(out(DEBUG_CONSOLE, 0x41) + HLT),
}


class Ended(NamedTuple):
    """All that a report could tell of one run, but its duration."""

    stop: Any
    vcpu: int | None
    console: bytes
    exits: dict[str, int]
    recent: dict[int, Any]
    unclaimed: int
    seen: Any
    memory: bytes


def ended(result: Result, seen: Any, machine: Machine) -> Ended:
    if hasattr(seen, "reads"):
        seen = (seen.reads, seen.writes, seen.value)
    exits = dict(result.exits)
    exits.pop("Interrupted", None)  # the clock's, not the guest's
    return Ended(
        result.stop, result.vcpu, result.console, exits, result.recent, result.unclaimed,
        seen if not isinstance(seen, list) else list(seen), machine.memory.read(DATA, 256),
    )  # fmt: skip


def run(booted: Callable[..., Machine], twin: Twin, fast: bool) -> list[Ended]:
    machine = booted(twin.code, fast=fast, **twin.options)
    machine.memory.write(DATA, bytes(range(65, 65 + 26)) * 9)
    seen = twin.set_up(machine)
    return [ended(machine.run(timeout=20), seen, machine) for _ in range(twin.runs)]


@pytest.mark.parametrize("name", TWINS)
def test_both_ways_end_in_equal_results(booted, name):
    quick, slow = (run(booted, TWINS[name], fast) for fast in (True, False))
    assert quick == slow


def test_the_guests_do_what_their_names_say(booted):
    """The twins could be equal because nothing happens."""
    results = {name: run(booted, twin, True)[0] for name, twin in TWINS.items()}
    assert results["console, byte by byte"].console == b"A" * 300
    assert results["console, a string"].console == (bytes(range(65, 91)) * 4)[:100]
    assert results["console limit hit exactly"].stop.why is Why.EXIT_PORT
    assert results["console limit passed by one"].stop.why is Why.OUTPUT_LIMIT
    assert len(results["console limit passed by one"].console) == 64
    assert results["console limit inside a string"].console == results["console, a string"].console[:64]
    assert len(results["OUT to a hook"].seen) == 60
    assert results["IN from a hook"].seen == [60]
    assert results["unclaimed ports"].unclaimed == 4
    assert results["unclaimed, strict"].stop.why is Why.UNCLAIMED
    assert {size for _, size, *_ in results["MMIO of every size"].seen} == {1, 2, 4, 8}
    assert results["a port word"].seen[:2] == (14, 21)
    assert results["a word touched beside its start"].seen[:2] == (10, 10)  # the last one byte by byte
    assert results["words given up"].seen == [5, 0]
    assert results["words given up"].unclaimed == 2
    assert results["a hook that stops"].stop.why is Why.STOPPED
    assert run(booted, TWINS["a hook that stops and answers"], True)[1].memory[0] == 0x5A
    assert len(set(results["a hook that completes"].seen)) == 1
    assert results["claims that change"].seen == [0x42, 0x42]
    assert results["MSR hooks"].seen[-2:] == [-1, 0x1_FFFF_FFFE + 39 + 1]
    assert results["MSR hooks"].memory[:8] == (0x1_FFFF_FFFE + 39 + 1).to_bytes(8, "little")
    assert results["MSR hooks"].exits["ReadMsr"] == results["MSR hooks"].exits["WriteMsr"] == 20
    every = (1 << 64) - 1
    assert results["MSR answers"].seen == [0, 1, 0x77, every, 1 << 63, 3, 3, 3]
    assert results["MSR reads refused"].stop.why is Why.GUEST_FAULT
    assert results["MSR reads refused"].seen == [3, 0]
    assert results["MSR writes refused"].stop.why is Why.GUEST_FAULT
    assert results["MSR writes refused"].seen == [0, 3]
    unserved = results["an MSR that nobody serves, written"]
    assert unserved.stop.why is Why.GUEST_FAULT
    assert WriteMsr(MSR, 0x1122_3344, 2) in unserved.recent[0]
    assert ReadMsr(MSR, 2) in results["an MSR that nobody serves"].recent[0]
    assert results["an MSR word"].seen == (20, 20, 0x1_0000_0012)
    assert results["an MSR word"].memory[:8] == (0x1_0000_0012).to_bytes(8, "little")
    assert results["an MSR word, then a hook"].seen == [0, 1, 2, 3, 4]
    assert results["MSR hooks, then a word"].seen == (5, 5, 0x1_0000_0003)
    assert results["MSR hooks that change"].seen == [7, 1007, 1007, 1007]
    stopped = run(booted, TWINS["an MSR hook that stops"], True)
    assert [each.stop.why for each in stopped[:3]] == [Why.STOPPED, Why.STOPPED, Why.GUEST_FAULT]
    assert stopped[1].memory[0] == 0x5A
    kinds = {type(exit) for result in results.values() for exit in result.recent[0]}
    assert {PortIn, PortOut, MmioRead, MmioWrite, ReadMsr, WriteMsr} <= kinds


@pytest.mark.parametrize("answer", [-1, 256, "text", None, 1.0])
@pytest.mark.parametrize("fast", [True, False])
def test_a_wrong_answer_is_the_same_error(booted, answer, fast):
    machine = booted(HEX("e480") + ENDS, fast=fast)
    machine.on_port_read(DELAY, lambda: answer)
    with pytest.raises(UsageError, match=r"reading port 0x80: .* which is not an unsigned integer of 1 byte"):
        machine.run()


@pytest.mark.parametrize("answer", [-1, 1 << 64, "text", 1.0])
@pytest.mark.parametrize("fast", [True, False])
def test_a_wrong_answer_to_an_msr_is_the_same_error(booted, answer, fast):
    machine = booted(MOV_ECX_MSR + RDMSR + ENDS, fast=fast)
    asked = []

    def read() -> Any:
        asked.append(1)
        return answer

    machine.on_msr_read(MSR, read)
    with pytest.raises(UsageError, match=r"reading MSR 0x1234: .*read answered .* not an unsigned integer of 8 bytes"):
        machine.run()
    assert asked == [1]


@pytest.mark.parametrize("fast", [True, False])
def test_both_ways_ask_the_bus_whose_an_access_is(booted, fast, monkeypatch):
    machine = booted(MOV_EDI_MMIO + HEX("e580 e780 8b07 8907") + HLT, fast=fast)
    for bus, at in ((machine.platform.ports, DELAY), (machine.platform.mmio, MMIO)):
        bus.claim(at, 8, Device())
    monkeypatch.setattr(Bus, "route", lambda bus, address, size, write: None)
    monkeypatch.setattr(Claims, "last_in", lambda claims, base, stop: None)
    assert machine.run().unclaimed == 4


CHANGES: dict[str, Callable[[Any, Any], object]] = {
    "set": lambda table, f: table.__setitem__(MSR, f),
    "update": lambda table, f: table.update({MSR: f}),
    "or": lambda table, f: table.__ior__({MSR: f}),
    "del, setdefault": lambda table, f: (table.__delitem__(MSR), table.setdefault(MSR, f)),
    "pop": lambda table, f: table.pop(MSR),
    "popitem": lambda table, f: table.popitem(),
    "clear": lambda table, f: table.clear(),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("fast", [True, False])
def test_the_very_next_access_sees_a_change_of_who_serves_an_msr(booted, change, fast):
    machine = booted(MOV_ECX_MSR + HEX("31d2") + WRMSR + WRMSR + out(DEBUG_CONSOLE, 0x41) + ENDS, fast=fast)
    seen = []

    def first(value: int) -> None:
        seen.append("first")
        CHANGES[change](machine.platform.msr_writes, lambda value: seen.append("second"))

    machine.on_msr_write(MSR, first)
    result = machine.run()
    gone = change in ("pop", "popitem", "clear")
    assert (seen, result.console) == ((["first"], b"") if gone else (["first", "second"], b"A"))


ACCESSES = {
    "OUT": out(DELAY, 1), "IN": HEX("e480"), "store": MOV_EDI_MMIO + HEX("8907"), "load": MOV_EDI_MMIO + HEX("8b07"),
    "WRMSR": MOV_ECX_MSR + HEX("31d2") + WRMSR, "RDMSR": MOV_ECX_MSR + RDMSR,
}  # fmt: skip


@pytest.mark.parametrize("what", ACCESSES)
def test_an_access_that_is_served_costs_no_bytecode_but_its_handlers(booted, what):
    def calls(count: int) -> int:
        machine = booted(loop(count, ACCESSES[what]) + ENDS)
        machine.on_port_write(DELAY, int)  # in C: no frame at all
        machine.on_port_read(DELAY, int)
        machine.on_mmio_write(MMIO, int)
        machine.on_mmio_read(MMIO, int)
        machine.on_msr_write(MSR, int)
        machine.on_msr_read(MSR, int)
        seen = []
        sys.setprofile(lambda frame, event, arg: seen.append(frame) if event in ("call", "c_call") else None)
        try:
            assert machine.run().stop.why is Why.EXIT_PORT
        finally:
            sys.setprofile(None)
        return len(seen)

    few, many = calls(10), calls(1010)
    assert many - few < 200  # heartbeats make some


@pytest.mark.parametrize("what", ACCESSES)
def test_the_core_keeps_no_handler_and_no_answer(booted, what):
    """References are counted in C there: one too many is a leak, one too few a crash."""
    gc.collect()  # no traceback of another test holds what is counted here
    big = int("1099511627776")  # an object of this test alone, unlike a constant

    class Handler:
        calls = 0

        def __call__(self, *_: int) -> int:
            self.calls += 1
            return 0 if self.calls < 3 else big  # the core knows the handler by then

    handler = Handler()
    machine = booted(loop(500, ACCESSES[what]) + ENDS)
    before = sys.getrefcount(handler), sys.getrefcount(big)
    if what.endswith("MSR"):
        machine.on_msr_write(MSR, handler)
        machine.on_msr_read(MSR, handler)
        machine.run()
        machine.platform.msr_writes.clear()
        machine.platform.msr_reads.clear()
    else:
        machine.on_port_write(DELAY, handler)
        machine.on_mmio_write(MMIO, handler)
        if what in ("IN", "load"):
            machine.on_port_read(DELAY, handler)
            machine.on_mmio_read(MMIO, handler)
            with pytest.raises(UsageError, match="answered 1099511627776"):
                machine.run()
        else:
            machine.run()
        machine.platform.ports.release(DELAY)
        machine.platform.mmio.release(MMIO)
    assert (sys.getrefcount(handler), sys.getrefcount(big)) == before


def test_two_handlers_that_the_core_knows_by_turns_are_not_kept(booted):
    """It remembers a few by their addresses; these two push each other out."""

    class Handler:
        def __call__(self, value: int) -> None: ...

    first, second = Handler(), Handler()
    before = sys.getrefcount(first), sys.getrefcount(second)
    machine = booted(loop(100, out(FREE_PORT & 0xFF, 1) + out((FREE_PORT + 8) & 0xFF, 2)) + ENDS)
    machine.on_port_write(FREE_PORT & 0xFF, first)
    machine.on_port_write((FREE_PORT + 8) & 0xFF, second)
    assert machine.run().stop.why is Why.EXIT_PORT
    machine.platform.ports.release(FREE_PORT & 0xFF)
    machine.platform.ports.release((FREE_PORT + 8) & 0xFF)
    assert (sys.getrefcount(first), sys.getrefcount(second)) == before


def test_a_string_that_is_longer_than_a_line_is_kept_beside_it():
    """Where ring 0 is native, REP OUTS hands over many elements in one exit."""
    core = ffi.new("struct vmm_core *")
    seen, long_data = core.recent[3], core.long_data[3]
    seen.kind, seen.address, seen.size, seen.count = lib.VMM_PORT_OUT, DEBUG_CONSOLE, 2, 40
    ffi.memmove(long_data, bytes(range(80)), 80)
    assert seen_exit(seen, long_data) == PortOut(DEBUG_CONSOLE, 2, bytes(range(80)))
    seen.count = lib.VMM_SEEN_DATA // 2
    ffi.memmove(seen.data, b"x" * lib.VMM_SEEN_DATA, lib.VMM_SEEN_DATA)
    assert seen_exit(seen, long_data) == PortOut(DEBUG_CONSOLE, 2, b"x" * lib.VMM_SEEN_DATA)


@pytest.mark.parametrize("fast", [True, False])
def test_a_handler_that_gives_itself_up_is_done_first(booted, fast):
    machine = booted(loop(3, out(DELAY, 0x42)) + ENDS, fast=fast)
    seen = []

    def once(value: int) -> None:
        nonlocal once
        machine.platform.ports.release(DELAY)
        once = None
        gc.collect()
        seen.append(value)

    machine.on_port_write(DELAY, once)
    assert machine.run().stop.why is Why.EXIT_PORT
    assert seen == [0x42]


def test_what_a_handler_raises_shows_the_handlers_own_line(booted):
    machine = booted(out(DELAY, 0x42) + ENDS)

    def fail(_value: int) -> None:
        raise Mine

    machine.on_port_write(DELAY, bool)  # known to the core, then changed
    machine.on_port_write(DELAY + 1, fail)
    machine.platform.ports.release(DELAY)
    machine.on_port_write(DELAY, fail)
    machine.load(loop(2, out(DELAY, 1)) + ENDS)
    for _ in range(2):
        with pytest.raises(Mine) as raised:
            machine.run()
        assert raised.traceback[-1].frame.code.name == "fail"


def test_a_machine_has_so_many_msr_words_and_says_so(booted):
    code = b"".join(b"\xb9" + (MSR + i).to_bytes(4, "little") + RDMSR for i in range(16)) + ENDS
    machine = booted(code)
    words = [machine.msr_word(MSR + i) for i in range(16)]
    with pytest.raises(UsageError, match="no MSR word is left"):
        machine.msr_word(MSR + 16)
    machine.run()
    assert [word.reads for word in words] == [1] * 16


def test_a_refused_msr_word_leaves_the_msr_to_kvm(booted):
    machine = booted(HEX("b9024d564b 0f32") + ENDS)  # mov ecx, 0x4b564d02; rdmsr: MSR_KVM_ASYNC_PF_EN
    for index in range(16):
        machine.msr_word(0x4000_0000 + index)
    with pytest.raises(UsageError, match="no MSR word is left"):
        machine.msr_word(0x4B56_4D02)
    assert machine.run(timeout=5).stop.code == 0  # no #GP: KVM was told nothing


def test_words_can_be_made_and_given_up_for_ever(booted):
    machine = booted(ENDS)
    first = machine.msr_word(0x4B56_4D05)
    first.value = 7
    for i in range(40):
        word = machine.msr_word(0x4B56_4D05)
        assert word.value == word.reads == word.writes == 0
        word.value = i
    assert first.value == 7  # the numbers of one that was given up stay
    for _ in range(100):
        port = machine.port_word(FREE_PORT)
        assert port.value == 0
        port.value = 9
        machine.platform.ports.release(FREE_PORT)
        assert port.value == 9


def test_words_made_by_two_threads_are_two(booted):
    machine = booted(ENDS)
    made: dict[int, Word] = {}
    together = threading.Barrier(2)

    def make(first: int) -> None:
        together.wait()
        for port in range(first, first + 20):
            made[port] = machine.port_word(port)

    threads = [threading.Thread(target=make, args=(0x300 + 0x20 * i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for port, word in made.items():
        word.value = port
    assert all(word.value == port for port, word in made.items())
    assert len({word.number for word in made.values()}) == 40


def test_a_word_that_is_given_up_twice_is_given_up_once():
    finish = Finish()
    word = finish.new_port_word()
    assert word is not None
    finish.serve_port(0x300, word)
    word.value = 5
    word.drop()
    word.drop()
    assert word.value == 5


def test_the_core_keeps_its_bytes_inside_whatever_becomes_of_the_room():
    """Another vCPU may have staged bytes when somebody else's take the room they counted on."""
    finish = Finish()
    finish.c.sink_length = 100
    finish.set_room(8)
    assert len(finish.drain()) == 100
    assert finish.c.sink_room == 0


def test_who_else_writes_to_the_console_leaves_less_room_for_the_core(booted):
    machine = booted(ENDS, console_limit=10)
    assert machine.lane.finish.c.sink_room == 10
    machine.sink.write(b"1234")
    assert machine.lane.finish.c.sink_room == 6
    with pytest.raises(OutputLimit):
        machine.sink.write(b"56789012")
    assert machine.lane.finish.c.sink_room == 0


def test_after_the_end_nobody_looks_into_the_ring(booted):
    machine = booted(ENDS)
    try:
        machine.coalesce_console()
    except MissingCapability as error:
        pytest.skip(str(error))
    machine.run(timeout=5)
    machine.close()
    machine.lane.output()
    assert machine.sink.data == b""


def test_an_msr_word_needs_no_python(booted, monkeypatch):
    machine = booted(MOV_ECX_MSR + loop(100, ACCESS_MSR) + ENDS)
    word = machine.msr_word(MSR)
    monkeypatch.setattr(Word, "read", None)
    monkeypatch.setattr(Word, "write", None)
    dict.clear(machine.platform.msr_reads)  # so that nobody is told: a word that is given up would be one no longer
    dict.clear(machine.platform.msr_writes)
    assert machine.run().stop.why is Why.EXIT_PORT
    assert (word.reads, word.writes, word.value) == (100, 100, 100)


@pytest.mark.parametrize("fast", [True, False])
def test_whoever_takes_an_msr_in_the_table_has_it_in_place_of_a_word(booted, fast):
    machine = booted(MOV_ECX_MSR + RDMSR + HEX("e6e9") + ENDS, fast=fast)
    word = machine.msr_word(MSR)
    word.value = 0x41
    machine.platform.msr_reads[MSR] = lambda: 0x42
    assert machine.run().console == b"B"
    assert word.reads == 0


class Mine(Exception):
    pass


@pytest.mark.parametrize("direction", ["e480", "e680", "b934120000 0f32", "b934120000 0f30"])
def test_what_a_hook_raises_comes_out_of_both_and_the_next_run_goes_on(booted, direction):
    after = []
    for fast in (True, False):
        machine = booted(HEX(direction) + out(DEBUG_CONSOLE, 0x42) + ENDS, fast=fast)

        def fail(*_: int) -> int:
            raise Mine

        machine.on_port_read(DELAY, fail)
        machine.on_port_write(DELAY, fail)
        machine.on_msr_read(MSR, fail)
        machine.on_msr_write(MSR, fail)
        with pytest.raises(Mine):
            machine.run()
        after.append(ended(machine.run(), None, machine))
    assert after[0] == after[1]
    assert after[0].console == b"B"


@pytest.mark.parametrize("fast", [True, False])
def test_several_vcpus_at_once(booted, fast):
    each = loop(200, out(DEBUG_CONSOLE, 0x41) + HEX("e680 e482")) + HLT
    machine = booted(each, cpus=3, aps={1: 0, 2: 0}, fast=fast)
    word = machine.port_word(DELAY)
    machine.on_port_read(0x82, lambda: 7)
    result = machine.run(timeout=20)
    assert result.stop.why is Why.HALT
    assert result.console == b"A" * 600
    assert word.writes == 600
    assert (result.exits["PortOut"], result.exits["PortIn"], result.exits["Halt"]) == (1200, 600, 3)
    assert all(len(recent) == 10 for recent in result.recent.values())


@pytest.mark.parametrize("limit", [100, 5000])
def test_a_collected_console_ends_equally(booted, limit):
    """KVM keeps the bytes back, and a full ring exits: how many exits that makes is the kernel's, and not compared."""
    code = loop(1000, out(DEBUG_CONSOLE, 0x41)) + ENDS
    found = []
    for fast in (True, False):
        machine = booted(code, fast=fast, console_limit=limit)
        if not machine.vm.check_extension("COALESCED_PIO"):
            pytest.skip("this host's KVM lacks KVM_CAP_COALESCED_PIO")
        machine.coalesce_console()
        result = machine.run(timeout=20)
        found.append((result.stop.why, result.console))
        assert result.exits["PortOut"] < 100
    assert found[0] == found[1]
    assert found[0] == ((Why.OUTPUT_LIMIT if limit < 1000 else Why.EXIT_PORT), b"A" * min(limit, 1000))


@pytest.mark.parametrize("fast", [True, False])
def test_what_is_collected_comes_in_the_guests_order(booted, fast):
    """The console's bytes and a device's writes share KVM's ring: each write finds the console as the guest left it."""
    once = out(DEBUG_CONSOLE, 0x41) * 2 + out(DELAY, 7) + out(DEBUG_CONSOLE, 0x42) + out(DELAY, 8) * 2
    machine = booted(loop(20, once) + ENDS, fast=fast)
    if not machine.vm.check_extension("COALESCED_PIO"):
        pytest.skip("this host's KVM lacks KVM_CAP_COALESCED_PIO")
    seen: list[int] = []
    machine.on_port_write(DELAY, lambda value: seen.append(len(machine.sink.data)))
    machine.coalesce_console()
    machine.coalesce_writes(DELAY, 1, pio=True)
    result = machine.run(timeout=20)
    assert result.stop.why is Why.EXIT_PORT
    assert seen == [3 * i + j for i in range(20) for j in (2, 3, 3)]
    assert len(result.console) == 60


def test_the_twins_share_no_way(booted, monkeypatch):
    """The comparison is worth something only if the two ways are two."""
    from vmm.kvm.lean import Core

    def no(*_: object) -> None:
        raise AssertionError("the C core was asked")

    monkeypatch.setattr(Core, "next", no)
    run(booted, TWINS["a halt"], False)
    with pytest.raises(AssertionError, match="the C core"):
        run(booted, TWINS["a halt"], True)
