# SPDX-License-Identifier: GPL-2.0-or-later
"""Two ways, one result: random guests, devices, callbacks and stops on the lean way and on the plain one.

What a host could tell apart is compared after every run: memory, registers, the calls and their order, the exits that
are reported, why the run ended, and what was raised.
"""

from __future__ import annotations

import enum
import pickle
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vmm import Machine
from vmm.errors import UsageError
from vmm.kvm.exits import Interrupted
from vmm.machine.memory import layout

HEX = bytes.fromhex
CODE, DATA = layout.REGIONS["code"].base, layout.REGIONS["data"].base
MMIO, PORT, MSR = 0xD001_0000, 0x80, 0x1234  # claimed by nobody but us
SPAN = 16  # bytes at MMIO, ports at PORT, that our device claims
PATIENCE = 20.0


class Kind(enum.IntEnum):
    A = 0x17


class Bits(enum.IntFlag):
    A = 1
    B = 64


class Index:
    """An integer by __index__ alone, as numpy's are."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __repr__(self) -> str:
        return f"Index({self.value})"


class Broken(Exception):
    pass


def imm32(value: int) -> bytes:
    return value.to_bytes(4, "little")


def pointers(rsi: int, rdi: int, count: int, port: int) -> bytes:
    """mov esi; mov edi; mov ecx; mov edx"""
    return b"\xbe" + imm32(rsi) + b"\xbf" + imm32(rdi) + b"\xb9" + imm32(count) + b"\xba" + imm32(port)


ports = st.integers(PORT - 1, PORT + SPAN + 1)
places = st.integers(MMIO - 3, MMIO + SPAN + 2)
cells = st.integers(0, 64).map(lambda i: DATA + 8 * i)
anywhere = st.one_of(places, cells)
counts = st.integers(0, 5)

ON_PORTS = [HEX(each) for each in ("ec", "66ed", "ed", "ee", "66ef", "ef")]  # in and out by dx
STRINGS = [HEX(each) for each in ("6c", "666d", "6d", "6e", "666f", "6f")]  # ins and outs
MOVES = [HEX(each) for each in ("a4", "66a5", "a5", "48a5", "aa", "ab", "48ab", "ac", "ad", "48ad")]  # movs stos lods
# With rdi as the address: mov both ways, and what reads and then writes: add, xor, inc, not, xchg, push, pop.
AT_RDI = [
    HEX(each)
    for each in (
        "8a07", "668b07", "8b07", "488b07", "8807", "668907", "8907", "488907",
        "0007", "6601 07", "3107", "480107", "fe07", "48ff07", "f617", "8607", "488707", "ff37", "8f07",
    )
]  # fmt: skip
RDMSR, WRMSR = b"\xb9" + imm32(MSR) + HEX("0f32"), b"\xb9" + imm32(MSR) + HEX("0f30")
KEEP = b"\x48\x89\x04\x25"  # mov [abs32], rax

pieces = st.one_of(
    st.builds(lambda port, op: pointers(DATA, DATA, 0, port) + op, ports, st.sampled_from(ON_PORTS)),
    st.builds(
        lambda port, rsi, rdi, count, op, back: (
            pointers(rsi, rdi, count, port) + (b"\xfd" if back else b"\xfc") + b"\xf3" + op + b"\xfc"
        ),
        ports, anywhere, anywhere, counts, st.sampled_from(STRINGS), st.booleans(),
    ),
    st.builds(
        lambda rsi, rdi, count, op: pointers(rsi, rdi, count, 0) + b"\xf3" + op,
        anywhere, anywhere, counts, st.sampled_from(MOVES),
    ),
    st.builds(lambda at, op: pointers(DATA, at, 0, 0) + op, anywhere, st.sampled_from(AT_RDI)),
    st.sampled_from([RDMSR, WRMSR]),
    st.builds(lambda cell: KEEP + imm32(cell), cells),
    st.builds(lambda value: b"\xb8" + imm32(value), st.integers(0, (1 << 32) - 1)),
    st.builds(lambda value: HEX("b0") + bytes((value,)) + HEX("e6e9"), st.integers(32, 126)),  # to the console
)  # fmt: skip

# Answers: plain ones, integers of other types, wrong ones, refusals, and what is raised.
plain = st.integers(0, 255)
answers = st.one_of(
    plain, plain, plain, st.booleans(), st.just(Kind.A), st.just(Bits.A | Bits.B), plain.map(Index),
    st.sampled_from([-1, 1 << 16, 1 << 70, None, "x", 1.5, Index(1 << 70), Broken, StopIteration, KeyError, "stop"]),
)  # fmt: skip


class World:
    """A machine with callbacks at the ports, addresses and the MSR of the pieces. `calls` is what they saw."""

    def __init__(self, machine: Machine, given: Iterable[Any], calls: list[Any], words: tuple[bool, ...]) -> None:
        self.machine, self.calls = machine, calls
        self.given = iter(given)  # of an iterator: itself, so that machines can share it
        port, mmio, msr = words
        if port:
            machine.port_word(PORT)
        else:
            machine.on_port_read(PORT, lambda: self.answer("in"))
            machine.on_port_write(PORT, lambda value: self.take("out", value))
        machine.platform.ports.claim(PORT + 1, SPAN - 1, Device(self, "port"))
        if mmio:
            machine.mmio_word(MMIO)
            machine.platform.mmio.claim(MMIO + 8, SPAN - 8, Device(self, "mmio"))
        else:
            machine.on_mmio_read(MMIO, lambda: self.answer("load"), 4)
            machine.platform.mmio.claim_writes(MMIO, 4, "writes", lambda *at: self.take("store", *at))
            machine.platform.mmio.claim(MMIO + 4, SPAN - 4, Device(self, "mmio"))
        if msr:
            machine.msr_word(MSR)
        else:
            machine.on_msr_read(MSR, lambda: self.answer("rdmsr"))
            machine.on_msr_write(MSR, lambda value: self.take("wrmsr", value))

    def answer(self, *what: Any) -> Any:
        self.calls.append(what)
        answer = next(self.given, 1)
        if answer == "stop":
            self.machine.stop("a callback asked for it")
            return 2
        if isinstance(answer, type):
            raise answer("from a callback")
        return answer

    def take(self, *what: Any) -> Any:
        answer = self.answer(*what)
        return answer if isinstance(answer, bool) else None


class Device:
    """A device whose calls the world sees."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name

    def read(self, offset: int, size: int) -> int:
        return self.world.answer(self.name, offset, size)  # type: ignore[no-any-return]

    def write(self, offset: int, size: int, value: int) -> None:
        self.world.take(self.name, offset, size, value)


def registers(machine: Machine) -> dict[str, int]:
    return {name: getattr(machine.regs, name) for name in ("rax", "rcx", "rdx", "rsi", "rdi", "rsp", "rip", "rflags")}


def memory(machine: Machine) -> bytes:
    return machine.memory.read(0, machine.memory.size)


def once(machine: Machine, exit_limit: int | None) -> Any:
    """One run, as a report could tell it."""
    try:
        result = machine.run(PATIENCE, exit_limit=exit_limit)
    except (Exception, StopIteration) as error:
        return type(error).__name__, str(error)
    counts = {kind: n for kind, n in result.counts.items() if kind != Interrupted.__name__}  # that is the clock's
    return result.stop, result.console, counts, result.recent, result.unclaimed


def story(
    code: bytes, given: list[Any], words: tuple[bool, bool, bool], limits: list[int | None], **options: Any
) -> list[Any]:
    """Runs until the guest has halted, with these limits first; everything that can be told."""
    calls: list[Any] = []
    told: list[Any] = []
    with Machine(**options) as machine:
        World(machine, given, calls, words)
        machine.load(code)
        for limit in [*limits, *[None] * 40]:
            told.append((once(machine, limit), memory(machine), list(calls)))
            told.append((registers(machine), memory(machine)))
            if "halt" in str(told[-2][0][0]) or "fault" in str(told[-2][0][0]):
                return told
    return told


def moved(code: bytes, given: list[Any], words: tuple[bool, bool, bool], limits: list[int]) -> Any:
    """The ending of a guest that goes to another machine after each of its first runs, through a pickle."""
    calls: list[Any] = []
    left = iter(given)
    kept: bytes | None = None
    for limit in [*limits, None]:
        with Machine() as machine:
            World(machine, left, calls, words)
            if kept is None:
                machine.load(code)
            else:
                machine.restore(pickle.loads(kept))
            for _ in range(40):
                told = str(once(machine, limit)[0])
                if "halt" in told or "fault" in told or limit is not None:
                    break
            while True:
                try:
                    state = machine.save()
                    break
                except (Broken, StopIteration, KeyError, UsageError):
                    pass  # what a callback raised; it is not asked again
            kept = pickle.dumps(state)
            if "halt" in told or "fault" in told:
                return list(calls), (registers(machine), memory(machine))
    raise AssertionError("the guest never halted")


FEW = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
guests = st.lists(pieces, min_size=1, max_size=8).map(lambda each: b"".join(each) + b"\xf4")
replies = st.lists(answers, max_size=24)
word_sets = st.tuples(st.booleans(), st.booleans(), st.booleans())


@pytest.mark.kvm
@FEW
@given(code=guests, given=replies, words=word_sets, strict=st.booleans())
def test_the_lean_way_and_the_plain_one_tell_one_story(code, given, words, strict):
    lean = story(code, given, words, [], strict=strict)
    assert lean == story(code, given, words, [], strict=strict, fast=False)


@pytest.mark.kvm
@FEW
@given(code=guests, given=replies, words=word_sets, limits=st.lists(st.integers(0, 4), max_size=4))
def test_an_exit_limit_cuts_a_story_and_changes_nothing(code, given, words, limits):
    """Cut at any exit, and gone on with, the guest ends where it ends uncut."""
    assert ending(story(code, given, words, limits)) == ending(story(code, given, words, []))


def ending(told: list[Any]) -> Any:
    """The last calls, registers and memory."""
    return told[-2][2], told[-1]


@pytest.mark.kvm
@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "in al, 0x80; in al, 0x80; hlt",
        "mov edi, 0xa0000; mov ecx, 3; mov edx, 0x80; rep insb; hlt",
        "mov ebx, 0xd0010006; mov eax, [rbx]; hlt",
        "mov ecx, 0x1234; rdmsr; rdmsr; hlt",
    ],
    ids=["in", "rep ins", "across an edge", "rdmsr"],
)
def test_what_a_callback_raises_is_raised_as_it_is(text, fast):
    with Machine(fast=fast) as machine:
        answers = iter([1])
        machine.on_port_read(PORT, lambda: next(answers))
        machine.on_mmio_read(MMIO, lambda: next(answers))
        machine.on_msr_read(MSR, lambda: next(answers))
        machine.load(text)
        with pytest.raises(StopIteration):
            machine.run(PATIENCE)
