# SPDX-License-Identifier: GPL-2.0-or-later
"""Running the proofs of many features, and of topics of the KVM API: which are meant, in which order, each guest once.
It prints nothing.

A mistake of pyvmm's own in one proof (an exception in a host half) is a row of its own kind, and the others are run.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from vmm.abi import pv
from vmm.base import names
from vmm.errors import EXIT_FAIL, EXIT_HOST, EXIT_INTERRUPTED, EXIT_PASS, KvmCallError, UsageError, VmmError
from vmm.host.measured import HostFacts
from vmm.payload.catalog import Payload, shipped
from vmm.payload.options import Options
from vmm.payload.proof.lab import supported
from vmm.payload.proof.prove import Row, bit_of, proofs, prove
from vmm.payload.proof.verdict import Deviation, Finding, Refusal, Verdict


@dataclass(frozen=True)
class Target:
    """One row to come: the feature, and the payload that proves it. Without one, `reason` says why."""

    name: str
    payload: Payload | None = None
    reason: str = ""
    error: Exception | None = None
    group: str = "pv"


@dataclass(frozen=True)
class Table:
    """What a probe found. `names` are the rows that were asked for, `rows` those that came before an interruption.

    `elapsed` in seconds, for the proofs alone. `options` and `enforce` are what every guest was made with; `strict` is
    whether a deviation fails.
    """

    host: HostFacts
    names: tuple[str, ...]
    rows: tuple[Row, ...]
    elapsed: float
    options: Options
    enforce: bool = False
    refusals: bool = True
    interrupted: bool = False
    strict: bool = False

    @property
    def missing(self) -> tuple[str, ...]:
        """Rows that never came."""
        done = {row.name for row in self.rows}
        return tuple(name for name in self.names if name not in done)

    @property
    def features(self) -> tuple[Row, ...]:
        """The rows of paravirtual features."""
        return tuple(row for row in self.rows if not row.topic)

    @property
    def topics(self) -> tuple[Row, ...]:
        """The rows of topics of the KVM API."""
        return tuple(row for row in self.rows if row.topic)

    @property
    def counts(self) -> dict[str, int]:
        """Verdict -> number of features; those that pyvmm failed at are not among them."""
        return count(self.features)

    @property
    def topic_counts(self) -> dict[str, int]:
        """The same of topics."""
        return count(self.topics)

    @property
    def broken(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if not row.error and row.verdict is Verdict.BROKEN)

    @property
    def failed(self) -> tuple[Row, ...]:
        """What is broken, and in a strict probe what deviates."""
        return tuple(row for row in self.rows if row.outcome == "fail")

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Every deviation of every row."""
        return tuple(each for row in self.rows for each in row.deviations)

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
        return EXIT_FAIL if self.failed else EXIT_PASS


def count(rows: Iterable[Row]) -> dict[str, int]:
    """Verdict -> number of rows, in the order of the vocabulary; rows that pyvmm failed at are not among them."""
    found = Counter(row.verdict for row in rows if not row.error)
    return {str(verdict): found[verdict] for verdict in Verdict if found[verdict]}


def topics() -> list[Target]:
    """Every topic of the KVM API that payloads prove, payload by payload."""
    failed: dict[str, Exception] = {}
    found = [Target(name, payload, group="api") for name, payload in proofs(failed, "api").items()]
    return found + [Target(name, error=error, group="api") for name, error in failed.items()]


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
    found.sort(key=lambda target: pv.order(target.name))
    return found + [Target(name, error=error) for name, error in failed.items()]


def select(wanted: Sequence[str], *, api: bool = False) -> list[Target]:
    """The rows that are meant, in the order of the bits; all of them if nothing is named. `api`: topics of the KVM API
    too, after the features.

    A word is a feature or topic by its name (any case, with or without prefix), else a payload, which means all that it
    proves.

    Raises:
        UsageError: a word is neither; the nearest names are offered.
    """
    every = targets() + (topics() if api else [])
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
    proven = [target for target in every if target.payload and target.payload.name == word.strip().lower()]
    if proven and proven[0].group == "api":
        return {target.name for target in proven}  # although its first topic may have the payload's name
    if feature:
        return {feature.name}
    for candidate in candidates:
        if candidate in by_name:
            return {by_name[candidate]}
    if proven:
        return {target.name for target in proven}
    path = shipped().get(word.strip().lower())
    if path is not None and path.parent.name == "api":
        raise UsageError(f"{word} is a topic of the KVM API", hint=f"`pyvmm probe --api {word}`")
    if word in shipped():
        raise UsageError(f"payload {word} proves no feature; `pyvmm run {word}` runs it")
    payloads = dict.fromkeys(target.payload.name for target in every if target.payload)
    known = [*by_name.values(), *(name for name in payloads if name.upper() not in by_name)]
    plain = names.strip_prefix(word, "KVM_FEATURE_")
    raise UsageError(
        names.unknown("paravirtual feature or payload of one", plain, known), hint="`pyvmm explain` lists them"
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
        strict: bool = False,
        on_start: Callable[[Payload, int, int], object] | None = None,
    ) -> None:
        self.chosen = tuple(chosen)
        self.options, self.enforce, self.refusals = options or Options(), enforce, refusals
        self.strict = strict
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
        wanted = [other for other in self.chosen if other.payload and other.payload.name == target.payload.name]
        names = {other.name for other in wanted}
        begin = time.monotonic()
        try:
            rows = prove(target.payload, self.options, enforce=self.enforce, refusals=self.refusals, strict=self.strict)
            self.done |= {row.name: row for row in rows if row.name in names}
        except Exception as error:
            if _interrupted(error):
                raise KeyboardInterrupt from error
            elapsed = time.monotonic() - begin
            self.done |= {other.name: _failed(other, target.payload.name, error, elapsed) for other in wanted}

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
            strict=self.strict,
        )


def _interrupted(error: BaseException) -> bool:
    """Was it ^C? Before Python 3.12 one that strikes while a class is made comes wrapped, as a RuntimeError."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__
    return cause is not None


def _without_proof(target: Target) -> Row:
    if target.error:
        return _failed(target, target.name, target.error, 0.0)
    return _row(target, Finding(Verdict.UNPROVEN, target.reason), "", 0.0)


def _failed(target: Target, payload: str, error: Exception, elapsed: float) -> Row:
    """What pyvmm said on purpose is its message alone; anything else names the type too. A VM that KVM ended for a
    fault of its own is the host's, and no mistake in pyvmm.
    """
    if isinstance(error, KvmCallError) and error.vm_died:
        return _row(target, Finding(Verdict.UNPROVEN, str(error)), payload, elapsed)
    text = str(error) if isinstance(error, VmmError) else f"{type(error).__name__}: {error}"
    details = "".join(traceback.format_exception(error))
    return _row(target, Finding(Verdict.UNPROVEN, f"pyvmm error: {text}"), payload, elapsed, details)


def _row(target: Target, finding: Finding, payload: str, elapsed: float, error: str = "") -> Row:
    feature = bit_of(target.name, target.group)
    return Row(
        name=target.name,
        bit=feature.bit if feature else None,
        register=feature.register if feature else "",
        offered=supported().has(feature.name) if feature else False,
        finding=finding,
        refusals=(),
        payload=payload,
        elapsed=elapsed,
        error=error,
        group=target.group,
    )
