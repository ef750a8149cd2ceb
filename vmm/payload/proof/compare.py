# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's results beside what must hold, as a finding: the judgement of lessons that need no other. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vmm.payload.guest import Guest
from vmm.payload.proof.verdict import Finding, Verdict

HEX_FROM = 1 << 20


@dataclass(frozen=True)
class AtLeast:
    """Any number from `least` up: times, which a busy host makes longer."""

    least: int


Wanted = int | range | tuple[int, ...] | AtLeast


def results(guest: Guest) -> dict[str, int]:
    """Every declared result; one that was never stored raises MissingResult."""
    return {name: guest[name] for name in guest.header.results}


def holds(value: int, wanted: Wanted) -> bool:
    """Is it the number, in the range, one of several, or not too small?"""
    if isinstance(wanted, AtLeast):
        return value >= wanted.least
    return value == wanted if isinstance(wanted, int) else value in wanted


def text(wanted: Wanted) -> str:
    """`3`, `3 to 5`, `3 or 4`, `at least 3`."""
    if isinstance(wanted, range):
        return f"{number(wanted.start)} to {number(wanted.stop - 1)}"
    if isinstance(wanted, tuple):
        return " or ".join(map(number, wanted))
    return f"at least {number(wanted.least)}" if isinstance(wanted, AtLeast) else number(wanted)


def number(value: int) -> str:
    """Decimal, or where that says little, hexadecimal."""
    return hex(value) if abs(value) >= HEX_FROM else str(value)


def compare(
    got: Mapping[str, int], wanted: Mapping[str, Wanted], summary: str, numbers: Mapping[str, Any] | None = None
) -> Finding:
    """Works if every wanted result holds; else broken, by the first that does not. `numbers` is further evidence."""
    evidence = {name: got[name] for name in wanted} | dict(numbers or {})
    for name, want in wanted.items():
        if not holds(got[name], want):
            return Finding(Verdict.BROKEN, f"{name} is {number(got[name])}, and should be {text(want)}", evidence)
    return Finding(Verdict.WORKS, "", evidence, summary)
