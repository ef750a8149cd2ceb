# SPDX-License-Identifier: GPL-2.0-or-later
"""Who runs a machine's vCPUs in place of Machine.run: the shape alone. A debugger is a floor above (vmm/debug)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vmm.machine.ends import Stop
    from vmm.machine.run.cpu import Cpu


class Holder(Protocol):
    """Set as `Machine.holder` it is asked once for each run, and by no exit."""

    def hold(
        self, active: Sequence[Cpu], limit: float | None, exit_limit: int | None
    ) -> tuple[Stop, Cpu | None, float]:
        """Run vCPU 0 and these, in legs (AllCpus.run), on the calling thread, until the guest has ended its run: why it
        ended, by whom, after how many seconds in which it ran. `limit` is None where the caller of run() gave none.
        """
