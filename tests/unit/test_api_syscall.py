# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on SYSCALL and SYSRET, from evidence made up by hand."""

from __future__ import annotations

import pytest

from guest_payloads.api.syscall import Evidence, judge
from vmm.abi.x86 import STAR_VALUE
from vmm.payload.proof.verdict import Verdict

HANDLER, BACK = 0x20100, 0x21007
GOOD = {
    "star": STAR_VALUE,
    "lstar": HANDLER,
    "fmask": 0x600,
    "entry_cs": 8,
    "entry_flags": 2,
    "rcx": BACK,
    "r11": 0x602,
    "fault_rip": 0,
    "fault_error": 0,
    "fault_cs": 0,
    "back_cs": 0x23,
    "back_flags": 0x602,
    "calls": 2,
}
STUCK = {"fault_rip": HANDLER, "fault_error": 0x15, "fault_cs": 0x23, "entry_cs": 0x23, "entry_flags": 0x10002}


def found(**changed: int):
    return judge(Evidence(GOOD | changed, HANDLER, BACK))


def test_works() -> None:
    finding = found()
    assert finding.verdict is Verdict.WORKS
    assert "ring 3 -> CS 0x8 at LSTAR" in finding.summary


@pytest.mark.parametrize("back_cs", [0x23, 0x33])
def test_inert_where_the_cpu_stays_in_ring_3(back_cs: int) -> None:
    finding = found(**STUCK, back_cs=back_cs)
    assert finding.verdict is Verdict.INERT
    assert "stays in ring 3" in finding.reason
    assert finding.evidence["back_cs"] == f"{back_cs:#x}"


def test_inert_says_when_even_the_flags_stay() -> None:
    assert "not cleared" in found(**STUCK | {"entry_flags": 0x10602}).reason


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"star": STAR_VALUE - (1 << 48)}, "not what was set"),
        ({"lstar": 0x20101}, "not what was set"),
        ({"fmask": 0x200}, "not what was set"),
        ({"entry_cs": 0x10}, "STAR says"),
        ({"entry_cs": 0x23}, "STAR says"),
        ({"entry_flags": 0x202}, "FMASK clears"),
        ({"rcx": BACK + 2}, "RCX"),
        ({"r11": 2}, "R11"),
        ({"back_cs": 0x33}, "after SYSRET"),
        ({"back_cs": 8}, "after SYSRET"),
        ({"back_flags": 2}, "after SYSRET"),
        ({"calls": 1}, "1 times"),
        (STUCK | {"fault_rip": HANDLER + 4}, "a fault at"),
        (STUCK | {"fault_cs": 8}, "a fault at"),
        (STUCK | {"fault_error": 0x11}, "a fault at"),
        (STUCK | {"rcx": 0}, "RCX"),
        (STUCK | {"back_cs": 8}, "after SYSRET"),
    ],
)
def test_broken(changed: dict[str, int], text: str) -> None:
    finding = found(**changed)
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason
