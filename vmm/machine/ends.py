# SPDX-License-Identifier: GPL-2.0-or-later
"""What the handling of an exit says: go on, with an answer perhaps, or stop, and why; how a run ended. Values only."""

from __future__ import annotations

from vmm.base.light import StrEnum
from vmm.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import Counter
    from typing import Any, TypeAlias

    from vmm.kvm.exits import Exit
    from vmm.machine.bus.unclaimed import Missed


class Why(StrEnum):
    """Why a run ended."""

    EXIT_PORT = "exit port"
    DEBUG_EXIT = "debug exit"
    POWER_OFF = "power-off"
    RESET = "reset"
    HALT = "halt"
    STOPPED = "stopped by the host"
    GUEST_FAULT = "guest fault"
    SHUTDOWN = "shutdown"
    FAIL_ENTRY = "entry refused"
    INTERNAL_ERROR = "internal error of KVM"
    MEMORY_FAULT = "memory fault"
    SYSTEM_EVENT = "system event"
    DEBUG = "debug event"
    REACHED = "address reached"
    UNCLAIMED = "unclaimed access"
    UNHANDLED = "unhandled exit"
    OUTPUT_LIMIT = "output limit"
    EXIT_LIMIT = "exit limit"
    TIME_LIMIT = "time limit"
    INTERRUPTED = "interrupted"


CRASHES = frozenset(
    {
        Why.GUEST_FAULT,
        Why.SHUTDOWN,
        Why.FAIL_ENTRY,
        Why.INTERNAL_ERROR,
        Why.MEMORY_FAULT,
        Why.UNCLAIMED,
        Why.UNHANDLED,
    }
)
LIMITS = frozenset({Why.TIME_LIMIT, Why.OUTPUT_LIMIT, Why.EXIT_LIMIT})


class Resume(Record):
    """Go on. `reply` answers the exit where `answers` says so (None then refuses an MSR access)."""

    reply: bytes | int | None = None
    answers: bool = False


class Stop(Record):
    """End the run. `text` is one line for a person; `code` is what it wrote to the exit port or isa-debug-exit."""

    why: Why
    text: str
    exit: Exit | None = None
    code: int | None = None

    @property
    def crashed(self) -> bool:
        """Did the guest do something that no guest should: a fault, a triple fault, an access that nobody claims?"""
        return self.why in CRASHES

    @property
    def limited(self) -> bool:
        """Was it a limit: of time, of exits, of the console?"""
        return self.why in LIMITS


Step: TypeAlias = Resume | Stop
GO_ON = Resume()


class Result(Record):
    """How a run ended. `vcpu` is the index of the vCPU that ended it, None if the host did. `console` are the bytes
    that the guest wrote there, since the machine was made.

    `counts` are the exits by kind over all vCPUs, `recent` are the last ten of each vCPU, `wall` is in seconds.
    `unclaimed` is how often the machine's guest touched what no device claims, `missed` where, and with what value.
    """

    stop: Stop
    vcpu: int | None
    console: bytes
    wall: float
    counts: dict[str, int]
    recent: dict[int, tuple[Exit, ...]]
    unclaimed: int
    missed: tuple[Missed, ...] = ()

    @property
    def exits(self) -> Counter[str]:
        """How many exits there were of each kind; none of a kind is 0."""
        from collections import Counter  # not every run imports it

        return Counter(self.counts)

    @property
    def text(self) -> str:
        """The console as text; bytes that are no UTF-8 are shown as replacement characters."""
        return self.console.decode("utf-8", "replace")


class _Late:
    """A field of which few ask: who makes the value may give a function, which is called for the first look."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot
        self.__set__ = slot.__set__  # type: ignore[method-assign]  # for record.py: found before the one below

    def __get__(self, value: Any, kind: type | None = None) -> Any:
        if value is None:
            return self
        held = self._slot.__get__(value, kind)
        if callable(held):
            held = held()
            self._slot.__set__(value, held)
        return held

    def __set__(self, value: Any, held: Any) -> None:
        self._slot.__set__(value, held)


Result.counts = _Late(Result.counts)  # type: ignore[assignment]
Result.recent = _Late(Result.recent)  # type: ignore[assignment]
