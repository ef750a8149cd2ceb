# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of nested_svm and nested_vmx on made-up evidence, sabotaged one number at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from guest_payloads.api import nested_svm, nested_vmx
from vmm.kvm.nested_state import HEADER, NestedState
from vmm.payload.catalog import find
from vmm.payload.guest import Guest, assemble
from vmm.payload.proof import nested
from vmm.payload.proof.nested import Evidence, Moved, judge_moved
from vmm.payload.proof.verdict import Finding, Verdict

HALVES = {"nested_svm": nested_svm, "nested_vmx": nested_vmx}
AREA = 0xC5000


def guest_of(name: str) -> Guest:
    """As much of a guest as the expectations look at: its labels, and its memory after assembly."""
    program = assemble(find(name))
    memory = SimpleNamespace(read=lambda at, size: program.code[at - program.base : at - program.base + size])
    return cast(Guest, SimpleNamespace(machine=SimpleNamespace(memory=memory), symbol=program.symbols.__getitem__))


def good(name: str) -> Evidence:
    half = HALVES[name]
    expected = half.expect(guest_of(name))
    exits = [dict.fromkeys(half.ROW, 0xEE) | row for row in expected]
    return Evidence(dict(half.WANTED), exits, expected, nested.CONSOLE)


def judge(name: str, seen: Evidence) -> Finding:
    judged: Callable[[Evidence], Finding] = HALVES[name].judge
    return judged(seen)


@pytest.mark.parametrize("name", HALVES)
def test_works(name: str) -> None:
    finding = judge(name, good(name))
    assert finding.verdict is Verdict.WORKS, finding.reason
    assert "left 9 times" in finding.summary


@pytest.mark.parametrize("name", HALVES)
def test_each_number_of_each_exit_counts(name: str) -> None:
    seen = good(name)
    for at, row in enumerate(seen.expected):
        for field in row:
            exits = [dict(each) for each in seen.exits]
            exits[at][field] ^= 1 << 5
            finding = judge(name, replace(seen, exits=exits))
            assert finding.verdict is Verdict.BROKEN, (at, field)
            assert f"exit {at + 1} of L2" in finding.reason


@pytest.mark.parametrize("name", HALVES)
def test_each_exit_names_its_place_and_reason(name: str) -> None:
    rows = good(name).expected
    assert all({"exit", "rip"} <= row.keys() for row in rows)
    assert len(rows) == HALVES[name].WANTED["exits"]
    assert len({row["rip"] for row in rows}) == len(rows)


@pytest.mark.parametrize("name", HALVES)
def test_each_result_counts(name: str) -> None:
    seen = good(name)
    for result in seen.results:
        changed: dict[str, Any] = {**seen.results, result: 3}
        finding = judge(name, replace(seen, results=changed))
        assert finding.verdict is Verdict.BROKEN
        assert finding.reason.startswith(f"{result} is 3")


@pytest.mark.parametrize("name", HALVES)
def test_a_guest_that_stopped_halfway_is_broken_at_the_exit_that_did_not_come(name: str) -> None:
    seen = good(name)
    exits = [*seen.exits[:4], *[dict.fromkeys(HALVES[name].ROW, 0)] * 5]
    finding = judge(name, replace(seen, exits=exits, results={**seen.results, "exits": 4}))
    assert finding.verdict is Verdict.BROKEN
    assert "exit 5 of L2" in finding.reason


@pytest.mark.parametrize("name", HALVES)
@pytest.mark.parametrize("console", ["", "22", "1"])
def test_what_l2_says_past_its_hypervisor_counts(name: str, console: str) -> None:
    assert "port that L1 does not trap" in judge(name, replace(good(name), console=console)).reason


def state(flags: int, *, form: int = 1, area: int = AREA, size: int = HEADER) -> NestedState:
    words = (0, area) if form == 0 else (area, 0)
    header = flags.to_bytes(2, "little") + form.to_bytes(2, "little") + size.to_bytes(4, "little")
    return NestedState((header + b"".join(word.to_bytes(8, "little") for word in words)).ljust(size, b"\0"))


def moved(**changes: Any) -> Moved:
    alone = good("nested_svm")
    inside = state(1, size=4224)
    return replace(Moved(state(0x100), inside, inside, alone, alone), **changes)


@pytest.mark.parametrize("form", [0, 1])
def test_moved_works(form: int) -> None:
    inside = state(1, form=form)
    finding = judge_moved(moved(inside=inside, copied=inside), AREA)
    assert finding.verdict is Verdict.WORKS
    assert "KVM_STATE_NESTED_GUEST_MODE" in finding.evidence["state in L2"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": state(1)}, "L1 did not begin yet"),
        ({"inside": state(0)}, "no L2 runs while"),
        ({"copied": state(0x100)}, "no L2 runs after"),
        ({"inside": state(1, area=AREA + 0x1000)}, "says 0xc6000 while"),
        ({"copied": state(1, area=0)}, "says 0x0 after"),
        ({"moved": replace(good("nested_svm"), results={})}, "moved, the guest has results"),
        ({"moved": replace(good("nested_svm"), exits=[{"exit": 1}] * 9)}, "moved, the guest has exit 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_moved_is_broken(changes: dict[str, Any], words: str) -> None:
    finding = judge_moved(moved(**changes), AREA)
    assert finding.verdict is Verdict.BROKEN
    assert words in finding.reason
