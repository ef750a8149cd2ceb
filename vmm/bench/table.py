# SPDX-License-Identifier: GPL-2.0-or-later
"""All rows in the order of the table, found by name, and measured one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from vmm.base.names import unknown
from vmm.bench import debugging, disks, exits, growth, nets, processes, serials, whole
from vmm.bench.compare import QUICK, Budget, Row
from vmm.bench.floor import NoFloor
from vmm.bench.spec import Spec
from vmm.errors import HostError, MissingCapability, UsageError

__all__ = ["QUICK", "Budget", "Spec", "measure", "select", "specs"]


def specs() -> Iterator[Spec]:
    """Every row there is."""
    yield from (Spec(each.row, each.measure) for each in exits.GOALS)
    yield from whole.specs()
    yield from processes.specs()
    yield from disks.specs()
    yield from nets.specs()
    yield from serials.specs()
    yield from debugging.specs()
    yield from (Spec(each.row, each.measure) for each in (*exits.WAKES, *exits.KINDS))
    yield from growth.specs()


def select(names: Sequence[str]) -> list[Spec]:
    """The rows of these names (a group's name means all of its), in the order of the table.

    Raises:
        UsageError: no such row.
    """
    # One group after the other: a row is a goal or an exit kind by what it is, not by where it stands.
    table = sorted(specs(), key=lambda spec: ("goals", "exits", "growth").index(spec.row.group))
    known = {spec.row.name for spec in table} | {spec.row.group for spec in table}
    for name in names:
        if name not in known:
            raise UsageError(unknown("row", name, sorted(known)), hint="`pyvmm docs bench` has them all")
    return [spec for spec in table if not names or spec.row.name in names or spec.row.group in names]


def measure(spec: Spec, budget: Budget) -> Row:
    """The row with its figures, or with `why` there are none: nothing to compare with, or the host cannot do it."""
    try:
        return spec.measure(budget)
    except NoFloor as error:
        why = error.text.partition("\n")[0]  # of a compiler there is more
        return replace(spec.row, why=f"no C floor: {why}")
    except (HostError, MissingCapability) as error:
        return replace(spec.row, why=error.text)
