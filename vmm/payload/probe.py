# SPDX-License-Identifier: GPL-2.0-or-later
"""Running the proofs of many features: which are meant, in the order of the bits, each guest once. It prints nothing.

A mistake of pyvmm's own in one proof (an exception in a host half) is a row of its own kind, and the others are run.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from vmm.abi import names, pv
from vmm.errors import EXIT_FAIL, EXIT_HOST, EXIT_INTERRUPTED, EXIT_PASS, UsageError, VmmError
from vmm.observe.host import HostFacts
from vmm.payload.catalog import Payload, shipped
from vmm.payload.lab import supported
from vmm.payload.options import Options
from vmm.payload.prove import Row, order, proofs, prove
from vmm.payload.verdict import Finding, Refusal, Verdict


@dataclass(frozen=True)
class Target:
    """One row to come: the feature, and the payload that proves it. Without one, `reason` says why."""

    name: str
    payload: Payload | None = None
    reason: str = ""
    error: Exception | None = None


@dataclass(frozen=True)
class Table:
    """What a probe found. `names` are the rows that were asked for, `rows` those that came before an interruption.

    `elapsed` in seconds, for the proofs alone. `options` and `enforce` are what every guest was made with.
    """

    host: HostFacts
    names: tuple[str, ...]
    rows: tuple[Row, ...]
    elapsed: float
    options: Options
    enforce: bool = False
    refusals: bool = True
    interrupted: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """Rows that never came."""
        done = {row.name for row in self.rows}
        return tuple(name for name in self.names if name not in done)

    @property
    def counts(self) -> dict[str, int]:
        """Verdict -> number of rows, in the order of the vocabulary; rows that pyvmm failed at are not among them."""
        found = Counter(row.verdict for row in self.rows if not row.error)
        return {str(verdict): found[verdict] for verdict in Verdict if found[verdict]}

    @property
    def broken(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.outcome == "fail")

    @property
    def errors(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.error)

    @property
    def asked(self) -> tuple[Refusal, ...]:
        """Every refusal of every row."""
        return tuple(each for row in self.rows for each in row.refusals)

    @property
    def exit_code(self) -> int:
        if self.interrupted:
            return EXIT_INTERRUPTED
        if self.errors:
            return EXIT_HOST
        return EXIT_FAIL if self.broken else EXIT_PASS


def targets() -> list[Target]:
    """Every row there is: all features with a bit, and what else payloads prove, in the order of the bits."""
    failed: dict[str, Exception] = {}
    by_feature = proofs(failed)
    found = [Target(name, payload) for name, payload in by_feature.items()]
    found += [
        Target(row.name, reason="pyvmm has no payload that proves it")
        for row in pv.FEATURES
        if row.name not in by_feature
    ]
    found.sort(key=lambda target: order(target.name))
    return found + [Target(name, error=error) for name, error in failed.items()]


def select(wanted: Sequence[str]) -> list[Target]:
    """The rows that are meant, in the order of the bits; all of them if nothing is named.

    A word is a feature by its name (any case, with or without prefix), else a payload, which means all that it proves.

    Raises:
        UsageError: a word is neither; the nearest names are offered.
    """
    every = targets()
    if not wanted:
        return every
    chosen: set[str] = set()
    for word in wanted:
        chosen |= _meant(word, every)
    return [target for target in every if target.name in chosen]


def _meant(word: str, every: list[Target]) -> set[str]:
    by_name = {target.name.upper(): target.name for target in every}
    feature, call = pv.find(word), pv.find_hypercall(word)
    candidates = [
        names.strip_prefix(word),
        *(row.kernel_name for row in (call,) if row),
        *(r.name for r in (call,) if r),
    ]
    if feature:
        return {feature.name}
    for candidate in candidates:
        if candidate in by_name:
            return {by_name[candidate]}
    proven = {target.name for target in every if target.payload and target.payload.name == word.strip().lower()}
    if proven:
        return proven
    if word in shipped():
        raise UsageError(f"payload {word} proves no feature; `pyvmm run {word}` runs it")
    payloads = dict.fromkeys(target.payload.name for target in every if target.payload)
    known = [*by_name.values(), *(name for name in payloads if name.upper() not in by_name)]
    plain = names.strip_prefix(word, "KVM_FEATURE_")
    raise UsageError(
        f"{names.unknown('paravirtual feature or payload of one', plain, known)}\n  try: `pyvmm explain` lists them"
    )


class Probe:
    """Runs the proofs while it is iterated, and yields a Row for each target, in their order.

    `done` holds every row that is ready, those too whose turn has not come: one guest may prove several features.
    `on_start(payload, done, total)` is called before a payload runs, with the number of rows that were yielded.
    """

    def __init__(
        self,
        chosen: Sequence[Target],
        options: Options | None = None,
        *,
        enforce: bool = False,
        refusals: bool = True,
        on_start: Callable[[Payload, int, int], object] | None = None,
    ) -> None:
        self.chosen = tuple(chosen)
        self.options, self.enforce, self.refusals = options or Options(), enforce, refusals
        self.on_start = on_start
        self.done: dict[str, Row] = {}
        self.begin = time.monotonic()

    def __iter__(self) -> Iterator[Row]:
        for number, target in enumerate(self.chosen):
            if target.name not in self.done:
                self._run(target, number)
            yield self.done[target.name]

    def _run(self, target: Target, number: int) -> None:
        if target.payload is None:
            self.done[target.name] = _without_proof(target)
            return
        if self.on_start:
            self.on_start(target.payload, number, len(self.chosen))
        wanted = [other.name for other in self.chosen if other.payload and other.payload.name == target.payload.name]
        begin = time.monotonic()
        try:
            rows = prove(target.payload, self.options, enforce=self.enforce, refusals=self.refusals)
            self.done |= {row.name: row for row in rows if row.name in wanted}
        except Exception as error:
            elapsed = time.monotonic() - begin
            self.done |= {name: _failed(name, target.payload.name, error, elapsed) for name in wanted}

    def table(self, host: HostFacts, *, interrupted: bool = False) -> Table:
        """All rows that are ready, as a value."""
        return Table(
            host=host,
            names=tuple(target.name for target in self.chosen),
            rows=tuple(self.done[target.name] for target in self.chosen if target.name in self.done),
            elapsed=time.monotonic() - self.begin,
            options=self.options,
            enforce=self.enforce,
            refusals=self.refusals,
            interrupted=interrupted,
        )


def _without_proof(target: Target) -> Row:
    if target.error:
        return _failed(target.name, target.name, target.error, 0.0)
    return _row(target.name, Finding(Verdict.UNPROVEN, target.reason), "", 0.0)


def _failed(name: str, payload: str, error: Exception, elapsed: float) -> Row:
    """What pyvmm said on purpose is its message alone; anything else names the type too."""
    text = str(error) if isinstance(error, VmmError) else f"{type(error).__name__}: {error}"
    details = "".join(traceback.format_exception(error))
    return _row(name, Finding(Verdict.UNPROVEN, f"pyvmm error: {text}"), payload, elapsed, details)


def _row(name: str, finding: Finding, payload: str, elapsed: float, error: str = "") -> Row:
    feature = pv.find(name)
    return Row(
        name=name,
        bit=feature.bit if feature else None,
        register=feature.register if feature else "",
        offered=supported().has(feature.name) if feature else False,
        finding=finding,
        refusals=(),
        payload=payload,
        elapsed=elapsed,
        error=error,
    )
