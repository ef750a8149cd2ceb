# SPDX-License-Identifier: GPL-2.0-or-later
"""What a header asks of the machine beyond its shape: quirks off, capabilities on, devices. It reads no header."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmm.abi import caps, quirks
from vmm.errors import MissingCapability

if TYPE_CHECKING:
    from vmm.machine.machine import Machine
    from vmm.payload.header import Header
    from vmm.payload.options import Options

PATCHING = "FIX_HYPERCALL_INSN"
HYPERCALLS = "hypercalls"
CONSOLE = "virtio_console"


def before_vcpus(machine: Machine, header: Header, *, serve: bool) -> None:
    """Quirks and capabilities of the VM. `serve`: a hypercall instruction must be #UD where it is the other vendor's.

    Raises:
        MissingCapability: this KVM cannot, and the header asks for it.
    """
    off, offered = 0, machine.vm.check_extension("DISABLE_QUIRKS2") if header.quirks or serve else 0
    for name in header.quirks:
        row = quirks.quirk(name)
        if not offered & row.value:
            raise MissingCapability(f"switching off {row.name}: this KVM cannot (KVM_CAP_DISABLE_QUIRKS2)")
        off |= row.value
    patching = quirks.find(PATCHING)
    if serve and patching is not None:
        off |= offered & patching.value
    if off:
        machine.vm.enable_cap("DISABLE_QUIRKS2", off)
    for name, arguments in header.enable:
        if _of_vm(name):
            machine.vm.require(name, f"enabling KVM_CAP_{name}")
            machine.vm.enable_cap(name, *arguments)


def attach(
    machine: Machine, header: Header, folder: Path, *, serve: bool, options: Options | None = None
) -> dict[str, Any]:
    """Capabilities of the vCPUs, and the devices by name; files are looked for in `folder`. Of those that `options`
    asks for the second of a kind is called virtio_net2, virtio_blk2, ...

    Raises:
        MissingCapability, UsageError: this KVM has not, the machine cannot.
    """
    for name, arguments in header.enable:
        if not _of_vm(name):
            machine.kvm.require(name, f"enabling KVM_CAP_{name}")
            for cpu in machine.cpus:
                cpu.vcpu.enable_cap(name, *arguments)
    made: dict[str, Any] = {}
    links = list(options.nets if options else ())
    for name, file in header.devices:
        if name == "virtio_net":
            made[name] = machine.add_virtio_net(file or (links.pop(0) if links else "none"))
        else:
            made[name] = _device(machine, header, name, str(folder / file))
    for words in links:
        made[_next("virtio_net", made)] = machine.add_virtio_net(words)
    for disk in options.disks if options else ():
        file, readonly = _disk(disk)
        made[_next("virtio_blk", made)] = machine.add_virtio_blk(file, readonly=readonly)
    if options and options.rng:
        made[_next("virtio_rng", made)] = machine.add_virtio_rng()
    if options and options.virtio_console and CONSOLE not in made:
        made[CONSOLE] = machine.add_virtio_console()
    if serve and HYPERCALLS not in made:
        made[HYPERCALLS] = _device(machine, header, HYPERCALLS, "")
    return made


def _next(kind: str, made: dict[str, Any]) -> str:
    number = sum(name.startswith(kind) for name in made) + 1
    return f"{kind}{number}" if number > 1 else kind


def _disk(words: str) -> tuple[str, bool]:
    """(file, whether it may only be read) of `FILE` or `FILE,ro`; a file of just that name goes first."""
    file, comma, way = words.rpartition(",")
    return (file, True) if comma and way == "ro" and not Path(words).exists() else (words, False)


def _of_vm(name: str) -> bool:
    row = caps.find(name)
    return row is not None and row.enable == "vm"


def _device(machine: Machine, header: Header, name: str, file: str) -> Any:
    match name:
        case "ioapic":
            from vmm.machine.extra.split_irqchip import add_ioapic

            return add_ioapic(machine)
        case "hypercalls":
            from vmm.machine.extra.hypercalls import HypercallService

            return HypercallService(machine, enforce="ENFORCE_PV_FEATURE_CPUID" in dict(header.enable))
        case "virtio_rng":
            return machine.add_virtio_rng()
        case "virtio_console":
            return machine.add_virtio_console()
        case "virtio_blk":
            return machine.add_virtio_blk(file, readonly=True)
        case _:
            raise AssertionError(f"{name}: one of the header's DEVICES that nobody makes")
