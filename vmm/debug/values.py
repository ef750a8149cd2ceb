# SPDX-License-Identifier: GPL-2.0-or-later
"""What a debugger tells: a place, a stop, a breakpoint. Values; they know no machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vmm.kvm.exits import Exit
    from vmm.machine.ends import Result

BEGIN = "begin"
PLAIN_STEP = "a step"
"""What a stop of that kind says where there is nothing else to tell."""
STEP, BREAKPOINT, WATCHPOINT, CATCH = "step", "breakpoint", "watchpoint", "catch"
INT3 = b"\xcc"
INTERRUPTED, ENDED, FAULT = "interrupted", "ended", "fault"

Condition = str | Callable[[Any], object]
"""Whether a breakpoint that struck stops the guest: an expression (conditions.py), or a callable(session)."""


@dataclass(frozen=True)
class Place:
    """Where a vCPU is. `address` is linear; `symbol` and `offset` are of the program ("" and 0 outside of it); `file`,
    `line` and `text` are what was written there, where that is known, else `text` is the instruction; `note` says what
    is odd about the place, such as "past the end of the program".
    """

    address: int
    symbol: str
    offset: int
    file: str
    line: int
    text: str
    mode: str
    bytes: bytes
    instruction: str
    note: str = ""

    def __str__(self) -> str:
        at = f"{self.symbol}+{self.offset:#x}" if self.offset else self.symbol
        source = f"{self.file.rpartition('/')[2]}:{self.line}  " if self.file else ""
        parts = (f"{self.address:#x}", f"<{at}>" if at else "", f"{source}{self.text}".strip())
        shown = " ".join(part for part in parts if part)
        return f"{shown} ({self.note})" if self.note else shown


@dataclass(eq=False)
class Break:
    """A breakpoint, a watchpoint or a catch. `hits` counts how often it struck with its condition true, of which the
    first `ignore` do not stop. `how` is what it is made of on this host: "hardware", "INT3", "exit", "step" or "".
    """

    number: int
    kind: str
    what: str
    address: int = 0
    size: int = 1
    access: str = ""
    hardware: bool = False
    when: Condition | None = None
    ignore: int = 0
    temporary: bool = False
    enabled: bool = True
    hits: int = 0
    how: str = ""
    catches: Callable[[Exit], bool] | None = None
    left: bytes = b""
    """Of a watchpoint for reads: its bytes when the guest went on, or touched them last."""

    def __str__(self) -> str:
        more = f" if {self.when}" if isinstance(self.when, str) else ""
        return f"{self.kind} {self.number} at {self.what}{more}"


@dataclass(frozen=True)
class Stopped:
    """Why everything stands still. `why` is "begin" (of a run that is held), "step", "breakpoint", "watchpoint",
    "catch", "interrupted", "ended" (with the `result`) or "fault" (an end that is a crash, with the `result` too).
    `vcpu` is the index of the vCPU that it is about; `changed` are that vCPU's registers that differ from those at the
    stop before, by name: (before, now). `text` is one line for a person, and tells what was not as asked.
    """

    number: int
    why: str
    vcpu: int
    where: Place
    text: str
    breakpoint: Break | None = None
    exit: Exit | None = None
    result: Result | None = None
    changed: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """The run is over; `result` says how."""
        return self.why in (ENDED, FAULT)

    def __str__(self) -> str:
        return f"#{self.number} vCPU {self.vcpu}: {self.text}; at {self.where}"
