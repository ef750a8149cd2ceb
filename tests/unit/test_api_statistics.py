# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verdict on statistics, from evidence made up by hand; their units; and what --stats prints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api.statistics import Evidence, judge
from vmm.kvm.stats import StatDescriptor
from vmm.payload.proof.verdict import Verdict
from vmm.report.statistics import statistics_lines
from vmm.report.style import Style

RISE = {"exits": 71, "mmio_exits": 20}
GOOD = Evidence(50, 20, RISE, frozenset({*RISE, "io_exits"}), 15, {"halt_wait_ns": "ns"})


def test_works() -> None:
    finding = judge(GOOD)
    assert finding.verdict is Verdict.WORKS
    assert finding.summary == "3 of a vCPU: exits +71, mmio_exits +20"


def test_a_busy_host_has_more_exits() -> None:
    assert judge(replace(GOOD, rise=RISE | {"exits": 90})).verdict is Verdict.WORKS


@pytest.mark.parametrize(
    ("rise", "text"),
    [
        ({}, "exits rose by 0"),
        ({"exits": 69, "mmio_exits": 20}, "exits rose by 69"),
        ({"exits": 71, "mmio_exits": 19}, "mmio_exits rose by 19"),
        (RISE | {"halt_exits": -1}, "halt_exits fell by 1"),
    ],
)
def test_broken(rise: dict[str, int], text: str) -> None:
    finding = judge(replace(GOOD, rise=rise))
    assert finding.verdict is Verdict.BROKEN
    assert text in finding.reason


def test_unproven_without_the_statistic() -> None:
    assert judge(replace(GOOD, names=frozenset({"exits"}))).verdict is Verdict.UNPROVEN


@pytest.mark.parametrize(
    ("unit", "base", "exponent", "label"),
    [
        ("", 10, 0, ""),
        ("seconds", 10, -9, "ns"),
        ("seconds", 10, 0, "s"),
        ("seconds", 10, 3, "10^3 s"),
        ("bytes", 2, 0, "bytes"),
        ("bytes", 2, 10, "KiB"),
        ("bytes", 2, 30, "2^30 bytes"),
        ("cycles", 10, 0, "cycles"),
        ("cycles", 10, 6, "10^6 cycles"),
        ("", 2, 4, "2^4"),
        ("boolean", 10, 0, "boolean"),
    ],
)
def test_units(unit: str, base: int, exponent: int, label: str) -> None:
    assert StatDescriptor("name", "cumulative", unit, base, exponent, 1, 0, 0).label == label


def test_lines() -> None:
    values = [
        {"name": "exits", "value": 1234, "kind": "cumulative", "unit": ""},
        {"name": "halt_wait_ns", "value": 5, "kind": "peak", "unit": "ns"},
    ]
    rows = [{"guest": 1, "of": "VM", "values": []}, {"guest": 1, "of": "vCPU 0", "values": values}]
    plain = Style(False)
    assert statistics_lines(rows, plain) == [
        "  statistics of VM: nothing changed",
        "  statistics of vCPU 0",
        "    exits         +1,234",
        "    halt_wait_ns  = 5 ns",
    ]
    assert statistics_lines([*rows, {"guest": 2, "of": "VM", "values": []}], plain)[-1].endswith(
        "of guest 2: nothing changed"
    )
