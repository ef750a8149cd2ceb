# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of a post-mortem that need no machine: modes, and the sentences on why a run can end as it did."""

from __future__ import annotations

import pytest

from vmm.abi.x86 import CR0
from vmm.kvm.exits import FailEntry, InternalError, Shutdown
from vmm.kvm.state import Segment, Sregs
from vmm.machine.ends import Stop, Why
from vmm.observe.postmortem import code_bits, mode_name
from vmm.observe.reasons import HALTED, UNINITIALIZED, hint

EXPLAINED = (Why.SHUTDOWN, Why.FAIL_ENTRY, Why.OUTPUT_LIMIT, Why.UNCLAIMED)
VMCALL, VMMCALL, HLT = b"\x0f\x01\xc1", b"\x0f\x01\xd9", b"\xf4\x00\x00"
IF = 0x202


def sregs(selector: int, *, l: int = 0, db: int = 0, cr0: int = int(CR0.PE)) -> Sregs:
    made = Sregs()
    made.cs, made.cr0 = Segment(selector=selector, l=l, db=db), cr0
    return made


@pytest.mark.parametrize(
    ("registers", "name", "bits"),
    [
        (sregs(0x08, l=1), "64-bit ring 0", 64),
        (sregs(0x23, l=1), "64-bit ring 3", 64),
        (sregs(0x28, db=1), "32-bit ring 0", 32),
        (sregs(0x2B, db=1), "32-bit ring 3", 32),
        (sregs(0x30), "16-bit ring 0", 16),
        (sregs(0xF000, cr0=0x60000010), "real mode", 16),
        (sregs(0, db=1), "32-bit ring 0", 32),
    ],
)
def test_mode(registers: Sregs, name: str, bits: int) -> None:
    assert (mode_name(registers), code_bits(registers)) == (name, bits)


def why(stop: Stop, instruction: bytes = HLT, mp_state: int | None = None, rflags: int = 2) -> str:
    return hint(stop, instruction, mp_state=mp_state, rflags=rflags)


def stop(why: Why) -> Stop:
    return Stop(why, "text")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (why(Stop(Why.INTERNAL_ERROR, "", InternalError(1, (), b""))), "instruction that its emulator does not know"),
        (why(Stop(Why.SHUTDOWN, "", Shutdown())), "while the CPU was delivering a fault"),
        (why(Stop(Why.FAIL_ENTRY, "", FailEntry(0x8000_0021, 0))), "register state may be one that no CPU allows"),
        (why(stop(Why.OUTPUT_LIMIT)), "--output-limit"),
        (why(stop(Why.UNCLAIMED)), "RIP is behind the access"),
        (why(stop(Why.TIME_LIMIT), VMCALL), "hypercall instruction"),
        (why(stop(Why.TIME_LIMIT), VMMCALL + b"\x90"), "hypercall instruction"),
        (why(stop(Why.TIME_LIMIT), mp_state=UNINITIALIZED), "waits for INIT and SIPI"),
        (why(stop(Why.TIME_LIMIT), mp_state=HALTED), "HLT with interrupts off"),
        (why(stop(Why.TIME_LIMIT), mp_state=HALTED, rflags=IF), "HLT and no interrupt came"),
    ],
)
def test_hint(said: str, expected: str) -> None:
    assert expected in said


@pytest.mark.parametrize("stopped", [w for w in Why if w not in EXPLAINED])
def test_no_guess_where_nothing_is_known(stopped: Why) -> None:
    assert not why(stop(stopped), mp_state=0)
    assert not why(stop(stopped), b"")


def test_another_suberror_is_no_failed_emulation() -> None:
    assert not why(Stop(Why.INTERNAL_ERROR, "", InternalError(2, (), b"")))
