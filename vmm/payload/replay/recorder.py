# SPDX-License-Identifier: GPL-2.0-or-later
"""A payload's run told as records: its source first, each guest as it is made and as it was left, the outcome last. It
writes no file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from vmm.errors import VmmError
from vmm.machine.memory.watched import watch as watch_memory
from vmm.observe.left import look
from vmm.observe.trace import SCHEMA, End, Note, Record, Trace
from vmm.observe.tracer import Tracer
from vmm.payload.catalog import Payload, whole
from vmm.payload.guest import Guest
from vmm.payload.outcome import Outcome, plain

INTERRUPTED = "interrupted"


class Recording:
    """Pass `watch` as Options.watch, then call `end`. `emit` gets every record as it comes. `left`: also look at each
    guest's memory when it is closed, and until then at who uses it.
    """

    def __init__(
        self, payload: Payload, emit: Callable[[Record], object], *, pyvmm: str, step: bool = False, left: bool = False
    ) -> None:
        self._tracer = Tracer(emit, step=step)
        self._left = left
        self._guests = 0
        source = whole(payload) if payload.text is None else payload.text.encode()
        self._tracer.emit(
            Trace(
                schema=SCHEMA,
                pyvmm=pyvmm,
                payload=payload.name,
                shipped=bool(payload.group),
                sha256=hashlib.sha256(source).hexdigest(),
                text=payload.text,
                step=step,
            )
        )

    def watch(self, guest: Guest) -> None:
        """A guest was made."""
        self._tracer.attach(guest.machine, guest.payload.name, guest.params, lambda: guest.results)
        number, self._guests = self._guests, self._guests + 1
        if not self._left:
            return
        uses = watch_memory(guest.machine.memory, str(Path(guest.payload.file).with_suffix(".py")))

        def closed() -> None:
            now = self._tracer.now()
            try:
                self._tracer.emit(look(guest.machine, uses, number, now))
            except VmmError as error:  # its host half has closed or removed something
                self._tracer.emit(Note(number, now, f"guest {number} could not be looked at: {error.text}"))

        guest.on_close.append(closed)  # the first that was appended is the last that is called

    def end(self, outcome: Outcome | None, exit_code: int, *, recorded: int | None = None, dropped: int = 0) -> None:
        """It is over; without an outcome something ended it from outside. `recorded` is how many exits the file has,
        where that may be fewer than there were.
        """
        outcome = outcome or Outcome("", INTERRUPTED)
        self._tracer.emit(
            End(
                t=self._tracer.now(),
                recorded=self._tracer.exits if recorded is None else recorded,
                dropped=dropped,
                outcome=outcome.outcome,
                exit_code=exit_code,
                reason=outcome.reason,
                results=outcome.results,
                failures=outcome.failures,
                evidence=plain(outcome.evidence),
                exits=outcome.exits,
                unclaimed=outcome.unclaimed,
                wall_ms=float(outcome.wall_ms),
                postmortem=outcome.postmortem,
            )
        )
