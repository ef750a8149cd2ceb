# SPDX-License-Identifier: GPL-2.0-or-later
"""Which names of the library are public, and on which page of the reference each is: what docs/ tells people to use.

A test says that this list is whole (`vmm.__all__`, the fixtures, each name that a guide names), and another goes over
every name of it for shapes, units, errors and source.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NamedTuple

LIGHT = "vmm.base.light"  # stands for classes of the standard library, which has their documentation


class Page(NamedTuple):
    """A page of the reference. `names` are classes and functions by where they are imported from, or whole modules."""

    name: str
    title: str
    about: str
    names: tuple[str, ...]


PAGES = (
    Page(
        "machine", "Machine", "A virtual machine in one object: [library.md](/library.md) shows it.", ("vmm.Machine",)
    ),
    Page(
        "results", "Results and states", "What `run` returns, and what `save` gives.",
        ("vmm.Result", "vmm.Stop", "vmm.Why", "vmm.Context", "vmm.machine.bus.unclaimed.Missed"),
    ),
    Page("errors", "Errors", "Everything that pyvmm raises on purpose; the types follow who can act.", ("vmm.errors",)),
    Page(
        "cpu", "vCPUs and registers", "`m.cpus`, `m.regs`, `m.cpus[i].lapic`, and what `cpuid=` is given: "
        "[cpu.md](/cpu.md).",
        (
            "vmm.machine.run.cpu.Cpu", "vmm.machine.x86.registers.Registers", "vmm.machine.x86.lapic.Lapic",
            "vmm.machine.x86.cpuid.CpuidModel", "vmm.machine.x86.modes", "vmm.machine.run.debug.Debugger",
        ),
    ),
    Page(
        "memory", "Memory", "`m.memory`, and pages that come late: [memory.md](/memory.md).",
        (
            "vmm.machine.memory.slots.GuestMemory", "vmm.machine.memory.slots.Memslot", "vmm.machine.memory.on_demand",
            "vmm.machine.extra.dirty_pages",
        ),
    ),
    Page(
        "services", "Services that are there when asked for", "Devices and services that a machine gets with a call; "
        "[interrupts.md](/interrupts.md), [virtio.md](/virtio.md), [cpu.md](/cpu.md).",
        (
            "vmm.machine.extra.split_irqchip", "vmm.machine.extra.ioeventfd", "vmm.machine.extra.injector",
            "vmm.machine.extra.syscalls", "vmm.machine.extra.folder", "vmm.machine.migration",
        ),
    ),
    Page(
        "images", "Images and programs", "Text, ELF files and kernels to guest memory: [images.md](/images.md).",
        (
            "vmm.machine.images.load.load_image", "vmm.machine.images.recognise.read_image",
            "vmm.machine.images.place.plan",
            "vmm.asm.assembler.assemble", "vmm.asm.program.Program", "vmm.asm.elf_out.elf",
        ),
    ),
    Page("debug", "Debugging", "Breakpoints, steps and the way back from a script: [debug.md](/debug.md).",
         ("vmm.debug.session.Session",)),
    Page("plugin", "Fixtures of the pytest plugin", "What a test asks for: [testing.md](/testing.md).",
         ("vmm.pytest_plugin", "vmm.payload.outcome.Outcome")),
    Page("kvm", "/dev/kvm", "The ioctls of the system and of a VM, a method each.", ("vmm.Kvm", "vmm.Vm")),
    Page("vcpu", "vCPU", "The ioctls of a vCPU, a method each; the values they take and give.",
         ("vmm.Vcpu", "vmm.kvm.state", "vmm.kvm.inject", "vmm.kvm.sync")),
    Page("interrupts", "Interrupt controllers, eventfds, page faults", "The ioctls of interrupts and of userfaultfd.",
         ("vmm.kvm.irqchip", "vmm.kvm.events", "vmm.kvm.userfaultfd")),
    Page("kvm-exits", "Exits", "What KVM_RUN came back with, as values: `observe` gets them.", ("vmm.kvm.exits",)),
)  # fmt: skip


class Name(NamedTuple):
    """A public thing: where it is imported from, what it is, and the class that it belongs to."""

    full: str
    value: Any
    owner: type | None = None


def fetch(full: str) -> Any:
    """The module, class or function of that dotted name. ImportError or AttributeError where there is none."""
    try:
        return importlib.import_module(full)
    except ImportError:
        module, _, name = full.rpartition(".")
        return getattr(importlib.import_module(module), name)


def things(full: str) -> list[Name]:
    """The classes and functions of an entry: itself, or what a module defines for others."""
    value = fetch(full)
    if not isinstance(value, ModuleType):
        return [Name(full, value)]
    found = [(name, each) for name, each in vars(value).items() if not name.startswith("_")]
    return [
        Name(f"{full}.{name}", each)
        for name, each in found
        if (inspect.isclass(each) or inspect.isfunction(each)) and each.__module__ == full and not _hook(name)
    ]


def _hook(name: str) -> bool:
    return name.startswith("pytest_")


def fixtures() -> dict[str, Any]:
    """Fixture -> its function."""
    from vmm import pytest_plugin

    found = {name: getattr(each, "_get_wrapped_function", None) for name, each in vars(pytest_plugin).items()}
    return {name: get() for name, get in found.items() if get is not None}


def names() -> Iterator[Name]:
    """Every public class, function, method and property."""
    for page in PAGES:
        for entry in page.names:
            for thing in things(entry):
                yield thing
                if inspect.isclass(thing.value):
                    yield from members(thing)
    for name, function in fixtures().items():
        yield Name(f"vmm.pytest_plugin.{name}", function)


def members(thing: Name) -> Iterator[Name]:
    """Public methods and properties of a class, those it inherits from classes of ours too."""
    seen: set[str] = set()
    for owner in thing.value.__mro__:
        if not owner.__module__.startswith("vmm.") or owner.__module__ == LIGHT:
            continue
        for name, value in vars(owner).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            if isinstance(value, (staticmethod, classmethod)):
                value = value.__func__
            ours = not isinstance(value, property) or getattr(value.fget, "__module__", "").startswith("vmm.")
            if (inspect.isfunction(value) or isinstance(value, property)) and ours:  # `value` of an enum is Python's
                yield Name(f"{thing.full}.{name}", value, owner)
