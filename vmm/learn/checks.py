# SPDX-License-Identifier: GPL-2.0-or-later
"""What the check.py of a lesson is made of: `CHECKS`, a value of this type, and `Wrong`, by which it says no.

A check judges by what the guest did: `seen` (vmm.learn.seen) has registers, memory, results, exits with their lines.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vmm.machine.ends import Why

if TYPE_CHECKING:
    from typing import TypeAlias

    from vmm.learn.seen import Seen
    from vmm.payload.guest import Guest

SeenBy: TypeAlias = "Callable[[Seen], str]"


class Wrong(Exception):
    """The guest did something else than its task; the text says what, in terms of what it did."""


@dataclass(frozen=True)
class Checks:
    """`check(seen)` looks at a guest that ended as meant: what it did, in a sentence, or raises Wrong. `why(seen)` is a
    sentence more on one that ended otherwise, "" where there is nothing to add.

    `runs` are the parameters of each run of the guest, `ends` how it is meant to end. `before(guest, run)` prepares it,
    `drive(guest)` runs it in place of the plain run, `differs()` says what is different on this host, as measured;
    `cannot()` why the lesson cannot be checked here. "" means: nothing.
    """

    check: SeenBy
    why: SeenBy = lambda seen: ""
    runs: tuple[Mapping[str, int], ...] = ({},)
    ends: Why = Why.EXIT_PORT
    before: Callable[[Guest, Mapping[str, int]], object] = lambda guest, run: None
    drive: Callable[[Guest], object] = lambda guest: guest.run()
    options: Callable[[Mapping[str, int]], Mapping[str, object]] = lambda run: {}
    differs: Callable[[], str] = lambda: ""
    cannot: Callable[[], str] = lambda: ""


def of(name: str) -> Checks:
    """Those of a lesson."""
    checks: Checks = importlib.import_module(f"vmm.learn.lessons.{name}.check").CHECKS
    return checks
