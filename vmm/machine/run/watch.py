# SPDX-License-Identifier: GPL-2.0-or-later
"""What somebody who watches a machine is told: the shape alone. Who watches is a floor above (observe/tracer.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vmm.kvm.exits import Exit
    from vmm.machine.bus.platform import Platform
    from vmm.machine.ends import Result, Step
    from vmm.machine.run.cpu import Cpu


class Watcher(Protocol):
    """Sees every run of a machine, and handles its exits on its behalf."""

    def begin(self, active: Sequence[Cpu]) -> None:
        """A run begins with vCPU 0 and these."""

    def serve(self, cpu: Cpu, exit: Exit, platform: Platform) -> Step:
        """In place of `handle`; on the vCPU's thread."""

    def note(self, text: str) -> None:
        """The host has something to say about what it does."""

    def ended(self, result: Result) -> None:
        """A run came to its end."""
