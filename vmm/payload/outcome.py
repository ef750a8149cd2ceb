# SPDX-License-Identifier: GPL-2.0-or-later
"""The outcome of running a payload, as one value: what every report shows and what --json holds (schema 1)."""

from __future__ import annotations

from vmm.base.record import Record, field
from vmm.errors import EXIT_CANNOT_SHOW, EXIT_FAIL, EXIT_HOST, EXIT_PASS, EXIT_TIMEOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from vmm.machine.bus.unclaimed import Missed
    from vmm.observe.postmortem import PostMortem  # only a run that went wrong pays for it

SCHEMA = 1
EXIT_CODES = {
    "pass": EXIT_PASS,
    "fail": EXIT_FAIL,
    "skip": EXIT_CANNOT_SHOW,
    "error": EXIT_HOST,
    "timeout": EXIT_TIMEOUT,
}


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: what JSON has no form for (bytes, NaN, an object) becomes text."""
    import math  # of no use to a run that prints text
    from collections.abc import Iterable, Mapping

    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes() | bytearray():
            return value.hex(" ")
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case Iterable():
            return [plain(each) for each in value]
        case _:
            return str(value)


def _base64(data: bytes) -> str | None:
    """Of what is no UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        import base64

        return base64.b64encode(data).decode("ascii")
    return None


class Outcome(Record):
    """`outcome` is a key of EXIT_CODES; `reason` one line, empty for a plain pass; `wall_ms` the run alone, in
    milliseconds. `console` are the bytes that the guest wrote there, `results` the numbers that it stored by name
    (None: it did not), `exits` how many there were of each kind.

    What was asked for and did not take effect: `missed` has where the `unclaimed` accesses went, `not_taken` what KVM
    did not take of an edited CPUID, `notes` what else is to be said (a header line that is a comment). `status` is an
    exit status that is not the outcome's own (vmm.payload.endings).
    """

    payload: str
    outcome: str
    reason: str = ""
    console: bytes = b""
    results: dict[str, int | None] = field(default_factory=dict)
    failures: tuple[str, ...] = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    exits: dict[str, int] = field(default_factory=dict)
    unclaimed: int = 0
    wall_ms: float = 0.0
    postmortem: PostMortem | None = None
    stats: tuple[Mapping[str, Any], ...] | None = None
    missed: tuple[Missed, ...] = ()
    not_taken: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    status: int | None = None

    @property
    def console_bytes(self) -> bytes:
        """The console as the guest wrote it; `text` of a Result is a reading of it."""
        return self.console

    @property
    def exit_code(self) -> int:
        """The exit status of `pyvmm run`."""
        return EXIT_CODES[self.outcome] if self.status is None else self.status

    def as_json(self) -> dict[str, Any]:
        """The document of `pyvmm run --json`. Bytes of the console that are no UTF-8 become U+FFFD in `console`; then
        `console_bytes` has them all, in base64, and is null otherwise.
        """
        return {
            "schema": SCHEMA,
            "payload": self.payload,
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "reason": self.reason,
            "console": self.console.decode("utf-8", "replace"),
            "console_bytes": _base64(self.console),
            "results": self.results,
            "failures": list(self.failures),
            "evidence": plain(self.evidence),
            "exits": self.exits,
            "unclaimed": self.unclaimed,
            "missed": [each.as_json() for each in self.missed],
            "not_taken": list(self.not_taken),
            "notes": list(self.notes),
            "wall_ms": round(self.wall_ms, 3),
            "postmortem": self.postmortem.as_json() if self.postmortem else None,
            **({} if self.stats is None else {"stats": plain(self.stats)}),
        }
