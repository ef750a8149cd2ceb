# SPDX-License-Identifier: GPL-2.0-or-later
"""A probe of every host of a fleet: a task for each payload, and the rows of a host put together as one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from vmm.base.record import Record
from vmm.errors import HostError
from vmm.fleet import work
from vmm.fleet.cluster import Fleet, Task
from vmm.host.measured import HostFacts
from vmm.payload.options import Options
from vmm.payload.proof.probe import Table, Target, select
from vmm.payload.proof.prove import Row

FACTS = "what the host is"


class Probed(Record):
    """`tables` by host, in the order of the alphabet; `unusable` hosts with the reason. `left` are (host, task) that
    were not done.
    """

    tables: dict[str, Table]
    unusable: dict[str, str]
    left: tuple[tuple[str, str], ...]


def probe(
    fleet: Fleet,
    features: Sequence[str],
    *,
    api: bool,
    refusals: bool,
    strict: bool,
    deadline: float,
    at_once: int | None,
    progress: Callable[[str, int, int], object],
) -> Probed:
    """Prove these features (all, if none is named) on every host. `at_once` as Fleet.run; `progress(what, done, total)`
    is called as tasks are done.

    Raises:
        UsageError: no such feature.
        HostError: no host has a usable KVM; the scheduler went away.
    """
    chosen = select(features, api=api)
    groups = _by_payload(chosen)
    begin = time.monotonic()
    facts, unusable, left = _facts(fleet, deadline)
    rows: dict[str, dict[str, Row]] = {host: {} for host in facts}
    total, done = len(facts) * len(groups), 0

    def came(task: Task, result: list[Row]) -> None:
        nonlocal done
        done += 1
        rows[task.host] |= {row.name: row for row in result}
        progress(f"{task.host} {task.name}", done, total)

    options = {"api": api, "refusals": refusals, "strict": strict}
    tasks = [
        Task(host, name, work.proven, (names,), options) for name, names in groups.items() for host in sorted(facts)
    ]
    left += fleet.run(tasks, came, deadline=deadline, at_once=at_once)
    names = tuple(target.name for target in chosen)
    tables = {
        host: Table(
            host=facts[host],
            names=names,
            rows=tuple(rows[host][name] for name in names if name in rows[host]),
            elapsed=time.monotonic() - begin,
            options=Options(),
            refusals=refusals,
            interrupted=len(rows[host]) < len(names),
            strict=strict,
        )
        for host in sorted(facts)
    }
    return Probed(tables, unusable, tuple((task.host, task.name) for task in left))


def _facts(fleet: Fleet, deadline: float) -> tuple[dict[str, HostFacts], dict[str, str], list[Task]]:
    facts: dict[str, HostFacts] = {}
    unusable: dict[str, str] = {}

    def came(task: Task, result: Any) -> None:
        if isinstance(result, HostFacts):
            facts[task.host] = result
        else:
            unusable[task.host] = result

    left = fleet.run([Task(host, FACTS, asked) for host in fleet.hosts], came, deadline=deadline)
    if not facts:
        why = next((f"{host}: {text}" for host, text in unusable.items()), "none has said what it is")
        raise HostError(f"no host of this fleet can be probed: {why}")
    return facts, unusable, left


def asked() -> HostFacts | str:
    """On a worker: its host, or why its KVM is not usable."""
    try:
        return work.facts()
    except HostError as error:
        return error.text


def _by_payload(chosen: Sequence[Target]) -> dict[str, tuple[str, ...]]:
    """Rows that one guest proves are of one task; those that none proves are one, too."""
    found: dict[str, tuple[str, ...]] = {}
    for target in chosen:
        name = target.payload.name if target.payload else "what no payload proves"
        found[name] = (*found.get(name, ()), target.name)
    return found
