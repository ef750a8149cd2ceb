# SPDX-License-Identifier: GPL-2.0-or-later
"""What was expected of a host, and what came. Values in, lines out.

A file of expected/ is a host's: each feature and topic with its verdict, in tables [features] and [topics]; a row that
does not simply work says why:

    [features]
    STEAL_TIME = "works"
    MMU_OP = { verdict = "absent", why = "removed from KVM" }
    PV_UNHALT = { verdict = "works", deviations = ["the bit with HLT exits disabled"], why = "..." }

    [topics]
    ring3_io = { verdict = "broken", emulator = true, why = "..., told from KVM's by ..." }
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import LabError

EXPECTED = Path(__file__).parent / "expected"
PLAIN = frozenset({"works", "advertised"})  # verdicts that need no reason
KEYS = frozenset({"verdict", "verdicts", "why", "deviations", "emulator"})


@dataclass(frozen=True)
class Wanted:
    """Of one row. `verdicts`: usually one; more only where the host really may show either, and `why` says so.

    `emulator`: the fault is the emulator's, not KVM's and not pyvmm's.
    """

    verdicts: tuple[str, ...]
    why: str = ""
    deviations: tuple[str, ...] = ()
    emulator: bool = False


@dataclass(frozen=True)
class Expected:
    """Of one host."""

    features: Mapping[str, Wanted]
    topics: Mapping[str, Wanted]


def read(path: Path) -> Expected:
    """Raises: LabError, naming the file and the row, for one that is not as it should be."""
    try:
        tables = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"{path}: {error}") from error
    if set(tables) - {"features", "topics"}:
        raise LabError(f"{path}: tables {', '.join(tables)}; there are [features] and [topics]")
    found = {
        kind: {name: _wanted(path, name, value) for name, value in tables.get(kind, {}).items()}
        for kind in ("features", "topics")
    }
    return Expected(found["features"], found["topics"])


def _wanted(path: Path, name: str, value: object) -> Wanted:
    if isinstance(value, str):
        value = {"verdict": value}
    if not isinstance(value, dict) or set(value) - KEYS or ("verdict" in value) == ("verdicts" in value):
        raise LabError(f"{path}: {name} needs a verdict, and beside it only {', '.join(sorted(KEYS))}")
    verdicts = tuple(value["verdicts"]) if "verdicts" in value else (value["verdict"],)
    wanted = Wanted(verdicts, value.get("why", ""), tuple(value.get("deviations", ())), value.get("emulator", False))
    if not wanted.why and (set(wanted.verdicts) - PLAIN or wanted.deviations or len(wanted.verdicts) > 1):
        raise LabError(f"{path}: {name} is {' or '.join(verdicts)} and does not say why")
    return wanted


def differences(expected: Expected, probe: Mapping[str, Any]) -> list[str]:
    """A line for each row that is not as expected; also for a row that only one side has."""
    return [
        *_differences(expected.features, {row["name"]: row for row in probe["features"]}),
        *_differences(expected.topics, {row["name"]: row for row in probe.get("topics", [])}),
    ]


def _differences(expected: Mapping[str, Wanted], found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, wanted in expected.items():
        should = " or ".join(wanted.verdicts)
        row = found.get(name)
        if row is None:
            yield f"{name}: expected {should}, and there is no such row"
            continue
        told = row["reason"] or row["summary"]
        if row["outcome"] == "error":
            yield f"{name}: expected {should}, and pyvmm failed: {told}"
        elif row["verdict"] not in wanted.verdicts:
            yield f"{name}: expected {should}, was {row['verdict']}: {told}"
        seen = [each["what"] for each in row.get("deviations", [])]
        for what in seen:
            if what not in wanted.deviations:
                yield f"{name}: a deviation that was not expected: {what}"
        for what in wanted.deviations:
            if what not in seen and row["verdict"] in wanted.verdicts:
                yield f"{name}: an expected deviation did not come: {what}"
    for name, row in found.items():
        if name not in expected:
            yield f"{name}: {row['verdict']}, and the file of expected verdicts has no such row"


def counts(probe: Mapping[str, Any]) -> str:
    """`25 features: 22 works, 2 advertised, 1 absent, 0 broken, 1 deviation; 84 topics: ...`."""
    return "; ".join(_counted(kind, probe[kind]) for kind in ("features", "topics") if probe.get(kind))


def _counted(kind: str, rows: list[dict[str, Any]]) -> str:
    found = Counter("error" if row["outcome"] == "error" else row["verdict"] for row in rows)
    found.setdefault("broken", 0)
    parts = [f"{number} {verdict}" for verdict, number in found.most_common()]
    deviations = sum(len(row.get("deviations", [])) for row in rows)
    if deviations:
        parts.append(f"{deviations} deviation{'s' * (deviations != 1)}")
    return f"{len(rows)} {kind}: {', '.join(parts)}"
