# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of what ends a run, held beside who decides it, the devices that end it, and the page that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from vmm.abi import pc, ports
from vmm.machine.boards.pc import PcBoard
from vmm.machine.devices.sink import Sink
from vmm.machine.ends import Result, Stop, Why
from vmm.payload.endings import DEBUG_EXIT_STATUS, ENDINGS, debug_exit_status, table
from vmm.payload.outcome import EXIT_CODES, Outcome
from vmm.payload.run import judge

DOCS = Path(__file__).resolve().parents[2] / "docs" / "boards.md"


@pytest.mark.parametrize("row", ENDINGS, ids=lambda row: row.what)
def test_a_row_is_what_is_decided(row) -> None:
    stop = Stop(row.why, row.what, code=row.code)
    kind, _ = judge(Result(stop, 0, b"", 0.0, {}, {}, 0))
    assert kind == row.outcome
    if row.status == DEBUG_EXIT_STATUS:
        assert debug_exit_status(stop) == (row.code << 1 | 1)
    else:
        assert debug_exit_status(stop) is None
        assert EXIT_CODES[kind] == row.status


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (5, 11), (0x80, 1), (0xFFFF_FFFF, 255)])
def test_the_status_of_isa_debug_exit(value: int, status: int) -> None:
    stop = Stop(Why.DEBUG_EXIT, "", code=value)
    assert debug_exit_status(stop) == status
    assert Outcome("image", "fail", status=status).exit_code == status
    assert Outcome("image", "fail").exit_code == 1


def test_the_page_shows_the_table() -> None:
    assert "\n".join(table()) in DOCS.read_text(encoding="utf-8")


ACTS = {
    "ACPI S5: SLP_EN with SLP_TYP 0 to PM1a_CNT, port 0x604": [(0x604, 2, 0x2000)],
    "0x2000 to port 0xb004 (Bochs, old QEMU)": [(0xB004, 2, 0x2000)],
    "0x3400 to port 0x4004 (VirtualBox)": [(0x4004, 2, 0x3400)],
    "`Shutdown`, letter by letter, to port 0x8900 (Bochs)": [(0x8900, 1, letter) for letter in b"Shutdown"],
    "8042: command 0xfe, or output port with bit 0 clear": [(0x64, 1, 0xFE)],
    "port 0xcf9: bit 2 set (ACPI's reset register)": [(0xCF9, 1, 2), (0xCF9, 1, 6)],
    "port 0x92: bit 0 set": [(0x92, 1, 1)],
    "0 to port 0xf4 (isa-debug-exit)": [(0xF4, 4, 0)],
    "another value to port 0xf4": [(0xF4, 1, 1)],
    "a write to port 0xf5: an exception without a handler": [(0xF5, 1, 0)],
}


@pytest.mark.parametrize("what", ACTS)
def test_the_pc_boards_devices_end_a_run_so(what: str) -> None:
    row = next(row for row in ENDINGS if row.what == what and ("pc" in row.boards or row.boards == "all"))
    ends: list[Stop] = []
    board = PcBoard(Sink(), ends.append)
    for port, size, value in ACTS[what]:
        assert ends == []
        board.platform.ports.write(port, value.to_bytes(size, "little"))
    assert [stop.why for stop in ends] == [row.why]
    if row.why is Why.DEBUG_EXIT:
        assert ends[0].code == row.code
    board.close()


def test_what_does_not_end_it() -> None:
    ends: list[Stop] = []
    board = PcBoard(Sink(), ends.append)
    for port, size, value in (
        (pc.PM1_CONTROL, 2, 1 << pc.PM1_SLP_TYP_SHIFT | pc.PM1_SLP_EN),  # S3: there is none
        (pc.PM1_CONTROL, 2, 0),
        (0xB004, 2, 0x2001),
        (pc.RESET_CONTROL, 1, 2),
        (0xCF8, 4, 0x8000_0006),
        (pc.I8042_COMMAND, 1, 0xFF),
        (pc.PORT_92, 1, 2),
        (ports.DELAY, 1, 0),
    ):
        board.platform.ports.write(port, value.to_bytes(size, "little"))
    assert ends == []
    assert board.platform.unclaimed == 0
    board.close()


def test_a_timer_that_fails_ends_the_run() -> None:
    ends: list[Stop] = []
    board = PcBoard(Sink(), ends.append)
    board._failed(RuntimeError("no"))
    assert (ends[0].why, "RuntimeError: no" in ends[0].text) == (Why.INTERRUPTED, True)
    board.let_go()
    board._reset("later")
    assert len(ends) == 1
    board.close()


def rows_of_ports() -> list[str]:
    """The map of the pc board as its page shows it."""
    board = PcBoard(Sink(), lambda stop: None)
    spans: dict[tuple[int, int], str] = {}
    for claim in (*board.platform.ports.readers, *board.platform.ports.writers):
        spans[claim.base, claim.stop] = claim.name
    board.close()
    named = [row for row in sorted(spans.items()) if not row[1].startswith("no ")]
    shown = [
        f"| {f'{base:#x}' if stop == base + 1 else f'{base:#x}..{stop - 1:#x}'} | {name} |"
        for (base, stop), name in named
    ]
    return ["| ports | device |", "|---|---|", *shown]


def test_the_page_shows_the_map() -> None:
    assert "\n".join(rows_of_ports()) in DOCS.read_text(encoding="utf-8")


def test_nobody_answers_at_quiet_ports() -> None:
    board = PcBoard(Sink(), lambda stop: None, strict=True)
    for first, count, _ in pc.QUIET_PORTS:
        for port in (first, first + count - 1):
            assert board.platform.ports.read(port, 1) == b"\xff"
            board.platform.ports.write(port, b"\0")
    board.close()
