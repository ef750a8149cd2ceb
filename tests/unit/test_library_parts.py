# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of the library that need no device: register names, MSR filters, the board, and that importing is lazy."""

from __future__ import annotations

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

import vmm
from vmm.abi import ports
from vmm.kvm.msr_filter import SPAN, denying
from vmm.machine.boards.own import OwnBoard
from vmm.machine.devices.sink import Sink
from vmm.machine.ends import Stop, Why
from vmm.machine.x86 import registers
from vmm.observe.tracer import claims

msr_sets = st.sets(st.integers(0, 40) | st.integers(0, 0xFFFF_FFFF), max_size=12)


@given(msr_sets, msr_sets)
def test_a_filter_denies_exactly_what_it_should(denied: set[int], by_others: set[int]) -> None:
    """As KVM looks it up: the first range that holds the MSR decides, and outside all ranges the rest does."""
    made = denying(denied, lambda index: index not in by_others)
    assert all(len(allowed) <= SPAN for _, allowed in made)
    for index in {each + off for each in denied | by_others for off in (-1, 0, 1)} | {0, 20, 0xFFFF_FFFF}:
        holding = [allowed[index - base] for base, allowed in made if base <= index < base + len(allowed)]
        assert (holding[0] if holding else index not in by_others) == (index not in denied | by_others)


def test_neighbours_share_a_range_and_strangers_do_not() -> None:
    assert len(denying([0, 1, SPAN - 1], lambda index: True)) == 1
    assert len(denying([0, SPAN], lambda index: True)) == 2
    assert denying([], lambda index: True) == []


def test_every_part_of_a_register_has_its_name() -> None:
    parts = registers.parts()
    assert parts["eax"] == ("rax", 0, 32)
    assert parts["ah"] == ("rax", 8, 8)
    assert parts["sil"] == ("rsi", 0, 8)
    assert parts["spl"] == ("rsp", 0, 8)
    assert parts["bp"] == ("rbp", 0, 16)
    assert parts["r10w"] == ("r10", 0, 16)
    assert parts["eflags"] == ("rflags", 0, 32)
    assert parts["ip"] == ("rip", 0, 16)
    assert len(parts) == 18 + 16 * 3 + 2 * 2 + 4  # 64 bits; 32, 16 and 8 of sixteen; of RIP and RFLAGS; AH to DH
    assert {"cr3", "fs_base", "cs", "efer"} <= set(registers.names())


def test_the_board_ends_a_run_by_its_ports() -> None:
    ends: list[Stop] = []
    board = OwnBoard(Sink(), ends.append)
    board.platform.ports.write(ports.DEBUG_CONSOLE, b"x")
    board.platform.ports.write(ports.COM1, b"y")
    board.platform.ports.write(ports.EXIT, b"\x07")
    board.platform.ports.write(ports.FAULT, b"\0")
    assert board.sink.data == b"xy"
    assert [(stop.why, stop.code) for stop in ends] == [(Why.EXIT_PORT, 7), (Why.GUEST_FAULT, None)]
    rows = [(row.space, row.way, row.base) for row in claims(board.platform)]
    assert rows.count(("port", "w", ports.EXIT)) == 1
    assert ("mmio", "r", 0xD000_0000) in rows
    assert ("port", "r", ports.FAULT) not in rows


def test_since_gives_what_came_after() -> None:
    sink = Sink(4)
    sink.write(b"abc")
    assert (sink.length, sink.since(1), sink.since(3)) == (3, b"bc", b"")


def test_importing_vmm_loads_nothing_and_every_name_is_there() -> None:
    code = "import sys, vmm; print(sorted(n for n in sys.modules if n.startswith(('vmm', 'cffi', '_cffi'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['vmm']\n"
    for name in vmm.__all__:
        assert getattr(vmm, name) is not None
    assert dir(vmm) == sorted(vmm.__all__)


def test_a_run_without_a_trace_loads_nothing_of_it() -> None:
    code = "import sys\nfrom vmm.cli import run\nimport vmm.payload.run\nprint(*sorted(sys.modules), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & {"vmm.observe.trace", "vmm.observe.tracer", "vmm.observe.codec", "vmm.cli.tracing"}
    assert not loaded & {"vmm.machine.context", "vmm.machine.run.handed_over", "vmm.report.timeline", "capstone"}
    assert not loaded & {"vmm.observe.left", "vmm.machine.memory.watched", "vmm.cli.pages", "jinja2", "shlex"}
    assert not any(name.startswith("vmm.report.pages") for name in loaded)
