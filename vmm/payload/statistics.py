# SPDX-License-Identifier: GPL-2.0-or-later
"""KVM's statistics over the runs of a payload's guests: by how much each rose, with its unit; and the paravirtual MSRs
that a guest has switched on. It prints nothing.

Source: KVM_GET_STATS_FD, api.rst 4.133. They are read when a guest is made and just before its machine is closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from vmm.errors import VmmError
from vmm.kvm.stats import Stats
from vmm.payload.pv_used import used

if TYPE_CHECKING:
    from vmm.machine.machine import Machine
    from vmm.payload.guest import Guest


class Statistics:
    """Pass `watch` as Options.watch; `rows` then has one for the VM and one for each vCPU of every guest."""

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []
        self._guests = 0

    def watch(self, guest: Guest) -> None:
        """Read the statistics of this guest's machine now, and again when it is closed.

        Raises:
            MissingCapability: this KVM has no binary statistics (Linux 5.14).
        """
        machine = guest.machine
        machine.vm.require("BINARY_STATS_FD", "--stats")
        self._guests += 1
        with ExitStack() as stack:  # what has been opened is closed if the next cannot be
            opened = [("VM", stack.enter_context(machine.vm.get_stats()))]
            for cpu in machine.cpus:
                opened.append((f"vCPU {cpu.index}", stack.enter_context(cpu.vcpu.get_stats())))
            before = [stats.snapshot() for _, stats in opened]
            guest.on_close.append(partial(self._read, machine, self._guests, opened, before, stack.pop_all()))

    def _read(
        self,
        machine: Machine,
        guest: int,
        opened: list[tuple[str, Stats]],
        before: list[dict[str, int]],
        stack: ExitStack,
    ) -> None:
        with stack:
            for number, ((of, stats), earlier) in enumerate(zip(opened, before, strict=True)):
                try:
                    values = [
                        {"name": name, "value": value, "kind": row.kind, "unit": row.label}
                        for name, value in stats.rise(earlier).items()
                        for row in (stats.descriptors[name],)
                    ]
                    if number:
                        values += _paravirtual(used(machine, machine.cpus[number - 1]))
                except VmmError:
                    continue  # the machine went before its guest: nothing can be read any more
                self._rows.append({"guest": guest, "of": of, "values": values})

    @property
    def rows(self) -> tuple[Mapping[str, Any], ...]:
        """`guest` (from 1, in the order they were made), `of`, and `values`: only those that changed."""
        return tuple(self._rows)


def _paravirtual(found: Mapping[str, int]) -> list[dict[str, Any]]:
    """Rows of MSRs, and of what KVM wrote into the page of steal time."""
    return [
        {
            "name": name,
            "value": value,
            "kind": "msr" if name.startswith("MSR_") else "instant",
            "unit": "ns" if name == "steal" else "",
        }
        for name, value in found.items()
    ]
