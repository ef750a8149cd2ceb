# SPDX-License-Identifier: GPL-2.0-or-later
"""Calling a guest's function: arguments, result, stack, and every way not to come back."""

from __future__ import annotations

import pytest

from vmm.errors import GuestError, UsageError
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS
from vmm.machine.run.call import LANDING_AT, call

SOURCE = """
all_six:    ; each argument into a byte of its own
    shl  rsi, 8
    shl  rdx, 16
    shl  rcx, 24
    shl  r8, 32
    shl  r9, 40
    lea  rax, [rdi + rsi]
    add  rax, rdx
    add  rax, rcx
    add  rax, r8
    add  rax, r9
    ret
alignment:
    lea  rax, [rsp + 8]
    and  rax, 15
    ret
inner:
    lea  rax, [rdi + 1]
    ret
outer:
    call inner
    mov  rdi, rax
    call inner
    ret
halts:
    hlt
says_fail:
    mov  al, 1
    out  0xf4, al
forever:
    jmp  forever
crash:
    ud2
    ret
counts:
    mov  rdx, 0xa0000
    inc  qword ptr [rdx]
    mov  rax, [rdx]
    ret
"""


@pytest.fixture(params=["none", "split"])
def loaded(request: pytest.FixtureRequest, machine_factory) -> Machine:
    machine = machine_factory(irqchip=request.param)
    machine.load(SOURCE)
    return machine


def test_arguments_and_result(loaded: Machine) -> None:
    assert call(loaded, "all_six", 1, 2, 3, 4, 5, 6) == 0x060504030201
    assert call(loaded, "all_six", 7) == 7, "what is not given is 0, not what the call before left"
    assert call(loaded, "inner", -1) == 0
    assert call(loaded, "inner", (1 << 64) - 2) == (1 << 64) - 1
    assert call(loaded, loaded.address("outer"), 40) == 42


def test_the_stack_is_as_the_abi_says(loaded: Machine) -> None:
    assert call(loaded, "alignment") == 0


def test_memory_stays(loaded: Machine) -> None:
    assert [call(loaded, "counts") for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("function", "how"),
    [("says_fail", "exit port"), ("crash", "exception"), ("forever", "time limit")],
)
def test_not_returning_says_how_it_ended(loaded: Machine, function: str, how: str) -> None:
    with pytest.raises(GuestError, match=f"{function} did not return: .*{how}"):
        call(loaded, function, timeout=0.2)
    assert call(loaded, "inner", 1) == 2, "the machine can be used again"


def test_halting_is_not_returning(machine) -> None:
    machine.load(SOURCE)
    with pytest.raises(GuestError, match="halts did not return: the guest halted"):
        machine.call("halts")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing",), "no symbol 'nothing'"),
        (("inner", *range(7)), "7 arguments, and registers take 6"),
        (("inner", 1 << 64), "does not fit"),
        (("inner", -(1 << 63) - 1), "does not fit"),
    ],
)
def test_bad_calls(machine, arguments: tuple, message: str) -> None:
    machine.load(SOURCE)
    with pytest.raises(UsageError, match=message):
        machine.call(*arguments)


def test_a_program_must_be_there_and_leave_room(machine) -> None:
    with pytest.raises(UsageError, match="load a program first"):
        machine.call("inner")
    base = REGIONS["code"].base
    machine.load(b"\xc3" * (LANDING_AT - base))
    assert machine.call(base, 5) == 0
    machine.load(b"\xc3" * (LANDING_AT - base + 1))
    with pytest.raises(UsageError, match="leaves no room"):
        machine.call(base)
