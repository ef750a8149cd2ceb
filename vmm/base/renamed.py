# SPDX-License-Identifier: GPL-2.0-or-later
"""Modules by their names of 0.1: they import for one release more, with a DeprecationWarning.

Read by vmm/__init__.py when an import of `vmm.SOMETHING` has found nothing else. Names that are folders now
(machine.bus, machine.memory, payload.replay) are not here.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.abc import Loader as AnyLoader
from importlib.machinery import ModuleSpec
from types import ModuleType

NEW = {
    "abi.bits": "base.bits",
    "abi.light": "base.light",
    "abi.names": "base.names",
    "abi.record": "base.record",
    "kvm.core": "kvm.lean",
    "machine.answers": "machine.bus.answers",
    "machine.boot": "machine.x86.boot",
    "machine.call": "machine.run.call",
    "machine.claims": "machine.bus.claims",
    "machine.conductor": "machine.run.all_cpus",
    "machine.cpuid": "machine.x86.cpuid",
    "machine.debug": "machine.run.debug",
    "machine.board": "machine.boards.own",
    "machine.descriptors": "machine.x86.descriptors",
    "machine.devices.asleep": "machine.devices.on_demand",
    "machine.dirty": "machine.extra.dirty_pages",
    "machine.exposed": "machine.x86.owed_cpuid",
    "machine.fast": "machine.run.lean",
    "machine.folder": "machine.extra.folder",
    "machine.hooks": "machine.run.hooks",
    "machine.hypercalls": "machine.extra.hypercalls",
    "machine.injector": "machine.extra.injector",
    "machine.kicks": "machine.extra.ioeventfd",
    "machine.lapic": "machine.x86.lapic",
    "machine.layout": "machine.memory.layout",
    "machine.limits": "machine.run.limits",
    "machine.loop": "machine.run.handle",
    "machine.modes": "machine.x86.modes",
    "machine.page_tables": "machine.x86.page_edits",
    "machine.paged": "machine.memory.on_demand",
    "machine.paging": "machine.x86.page_entries",
    "machine.passing": "machine.run.handed_over",
    "machine.platform": "machine.bus.platform",
    "machine.raw": "machine.images.raw",
    "machine.reach": "machine.bus.reach",
    "machine.registers": "machine.x86.registers",
    "machine.runner": "machine.run.cpu",
    "machine.split_irqchip": "machine.extra.split_irqchip",
    "machine.stepping": "machine.run.stepping",
    "machine.steps": "machine.ends",
    "machine.syscalls": "machine.extra.syscalls",
    "machine.unclaimed": "machine.bus.unclaimed",
    "machine.virtual": "machine.x86.virtual",
    "machine.walk": "machine.x86.page_walk",
    "machine.watch": "machine.run.watch",
    "machine.wiring": "machine.boards.own",
    "machine.worker": "machine.run.thread",
    "observe.hog": "host.hog",
    "observe.host": "host.measured",
    "observe.hostfiles": "host.sysfs",
    "observe.hypercall_probe": "host.hypercall_insn",
    "observe.node": "host.node",
    "observe.ring0": "host.ring0",
    "observe.schedstat": "host.schedstat",
    "observe.setting": "host.surroundings",
    "observe.site": "observe.location",
    "observe.unbroken": "base.unbroken",
    "observe.unusable": "host.unusable",
    "observe.userfault": "host.userfaultfd",
    "payload.accesses": "payload.proof.accesses",
    "payload.compare": "payload.proof.compare",
    "payload.drivers": "payload.proof.virtio_drivers",
    "payload.ending": "payload.proof.ending",
    "payload.files": "payload.folder",
    "payload.gate": "payload.proof.msr_gate",
    "payload.lab": "payload.proof.lab",
    "payload.nested": "payload.proof.nested",
    "payload.pager": "payload.proof.held_back",
    "payload.probe": "payload.proof.probe",
    "payload.prove": "payload.proof.prove",
    "payload.record": "payload.replay.recorder",
    "payload.replay_seat": "payload.replay.seat",
    "payload.verdict": "payload.proof.verdict",
}


class Loader(AnyLoader):
    """Gives the module of today for its old name; the module itself stays as it is."""

    def __init__(self, new: str) -> None:
        self._new = f"vmm.{new}"

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        warnings.warn(f"{module.__name__} is called {self._new} now", DeprecationWarning, stacklevel=2)
        sys.modules[module.__name__] = importlib.import_module(self._new)


def find(name: str) -> ModuleSpec | None:
    """The spec of an old name; None for any other."""
    new = NEW.get(name.removeprefix("vmm."))
    return ModuleSpec(name, Loader(new)) if new else None
