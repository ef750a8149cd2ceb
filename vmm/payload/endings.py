# SPDX-License-Identifier: GPL-2.0-or-later
"""What ends a run, on which boards, and with what exit status of `pyvmm run`: the table that docs/boards.md shows.

`vmm.payload.run.judge` decides; a test holds this table beside it. The status of isa-debug-exit is QEMU's, by which
kvm-unit-tests and others judge their images; a payload of assembly, which has a header to judge it by, gets the usual
one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vmm.abi.ports import DEBUG_EXIT_SKIP
from vmm.machine.ends import Stop, Why

if TYPE_CHECKING:
    from collections.abc import Iterator

DEBUG_EXIT_STATUS = "value << 1 | 1"


class Ending(NamedTuple):
    """A row: what happens, where, how `Result.stop` says it, and the outcome and exit status that come of it."""

    what: str
    boards: str
    why: Why
    code: int | None
    outcome: str
    status: int | str


ENDINGS = (
    Ending("0 to port 0xf4 (exit port)", "own", Why.EXIT_PORT, 0, "pass", 0),
    Ending("77 to port 0xf4", "own", Why.EXIT_PORT, 77, "skip", 77),
    Ending("another value to port 0xf4", "own", Why.EXIT_PORT, 1, "fail", 1),
    Ending("0 to port 0xf4 (isa-debug-exit)", "pc, testdev", Why.DEBUG_EXIT, 0, "pass", DEBUG_EXIT_STATUS),
    Ending(
        "38 to port 0xf4 (77, kvm-unit-tests' skip)",
        "pc, testdev",
        Why.DEBUG_EXIT,
        DEBUG_EXIT_SKIP,
        "skip",
        DEBUG_EXIT_STATUS,
    ),
    Ending("another value to port 0xf4", "pc, testdev", Why.DEBUG_EXIT, 1, "fail", DEBUG_EXIT_STATUS),
    Ending("ACPI S5: SLP_EN with SLP_TYP 0 to PM1a_CNT, port 0x604", "pc, testdev", Why.POWER_OFF, None, "pass", 0),
    Ending("0x2000 to port 0xb004 (Bochs, old QEMU)", "pc, testdev", Why.POWER_OFF, None, "pass", 0),
    Ending("0x3400 to port 0x4004 (VirtualBox)", "pc, testdev", Why.POWER_OFF, None, "pass", 0),
    Ending("`Shutdown`, letter by letter, to port 0x8900 (Bochs)", "pc, testdev", Why.POWER_OFF, None, "pass", 0),
    Ending("8042: command 0xfe, or output port with bit 0 clear", "pc, testdev", Why.RESET, None, "pass", 0),
    Ending("port 0xcf9: bit 2 set (ACPI's reset register)", "pc, testdev", Why.RESET, None, "pass", 0),
    Ending("port 0x92: bit 0 set", "pc, testdev", Why.RESET, None, "pass", 0),
    Ending("HLT, where no local APIC of KVM's could end it (irqchip=none)", "own", Why.HALT, None, "pass", 0),
    Ending("HLT with interrupts off on every vCPU", "pc, testdev", Why.HALT, None, "pass", 0),
    Ending("C-a x, or `Machine.stop`", "all", Why.STOPPED, None, "pass", 0),
    Ending("a write to port 0xf5: an exception without a handler", "all", Why.GUEST_FAULT, None, "fail", 1),
    Ending("a triple fault", "all", Why.SHUTDOWN, None, "fail", 1),
    Ending("an instruction that KVM cannot emulate", "all", Why.INTERNAL_ERROR, None, "fail", 1),
    Ending("more output than --output-limit", "all", Why.OUTPUT_LIMIT, None, "fail", 1),
    Ending("as many exits as --exit-limit", "all", Why.EXIT_LIMIT, None, "fail", 1),
    Ending("no end within --timeout", "all", Why.TIME_LIMIT, None, "timeout", 124),
)


def debug_exit_status(stop: Stop) -> int | None:
    """The exit status by isa-debug-exit; None for a run that ended otherwise."""
    return (stop.code << 1 | 1) & 0xFF if stop.why is Why.DEBUG_EXIT and stop.code is not None else None


def table() -> Iterator[str]:
    """The lines of the documentation's table."""
    yield "| what happens | board | why (`Result.stop.why`) | outcome | exit status |"
    yield "|---|---|---|---|---|"
    for row in ENDINGS:
        yield f"| {row.what} | {row.boards} | {row.why.value} | {row.outcome} | {row.status} |"
