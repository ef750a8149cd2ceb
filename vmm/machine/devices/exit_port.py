# SPDX-License-Identifier: GPL-2.0-or-later
"""The port by which a guest ends its run. It knows no verdict: what a value means is abi.ports' and the caller's."""

from __future__ import annotations

from vmm.machine.ends import Stop, Why

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class ExitPort:
    """Claims one port. A write of any size calls `stop(value)`, on the thread of the vCPU that wrote, and raises
    nothing; whoever runs the vCPU acts on it when the write returns. Reads give 0.
    """

    name = "exit port"

    def __init__(self, stop: Callable[[int], object]) -> None:
        self._stop = stop

    def read(self, offset: int, size: int) -> int:
        """0."""
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        """Signal the end."""
        self._stop(value)


def written(value: int) -> Stop:
    """How a run ends by it."""
    return Stop(Why.EXIT_PORT, f"the guest wrote {value:#x} to the exit port", code=value)
