# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's options as settings of a machine: what each means here, what it lacks, and what has no meaning.

It runs nothing. An obstacle is why a test cannot run here; a note is what is otherwise than in QEMU, and lets it run.
Source: QEMU's documentation of its command line (qemu-doc, invocation).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

DEFAULT_MEMORY = "128M"  # QEMU's for a PC

HERE = ("pc-testdev", "isa-debug-exit")  # devices of the testdev board
MACHINES = ("pc", "pc-i440fx", "q35", "pc-q35", "accel")
# Options without a meaning for a test that only prints: what they take, in words.
QUIET = {
    "-nodefaults": 0, "-nographic": 0, "-no-reboot": 0, "-no-shutdown": 0, "-enable-kvm": 0, "-no-hpet": 0, "-S": 0,
    "-vnc": 1, "-display": 1, "-serial": 1, "-monitor": 1, "-name": 1, "-vga": 1, "-parallel": 1, "-d": 1, "-D": 1,
    "-no-acpi": 0, "-rtc": 1, "-boot": 1, "-action": 1,
}  # fmt: skip
# Properties of -cpu that are no features, and change nothing here: the guest's CPUID is what KVM offers.
QUIET_PROPERTIES = frozenset(
    ("migratable", "host_phys_bits", "host_cache_info", "l3_cache", "check", "enforce", "fill_mtrr_mask", "pmu",
     "level", "xlevel", "family", "model", "stepping", "model_id", "tcg_cpuid", "kvm_pv_enforce_cpuid")
)  # fmt: skip


@dataclass(frozen=True)
class CpuChoice:
    """`-cpu`: a model's name ("" for none), features by name, on or off, and the properties that change CPUID."""

    model: str = ""
    features: tuple[tuple[str, bool], ...] = ()
    vendor: str = ""
    phys_bits: int = 0


@dataclass
class Settings:
    """What a test's parameters ask of a machine."""

    cpus: int = 1
    memory: str = DEFAULT_MEMORY
    args: str = ""
    cpu: CpuChoice = field(default_factory=CpuChoice)
    irqchip: str = "kernel"
    initrd: str = ""
    cpu_pm: bool = False
    notes: list[str] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)


def settings_of(params: Sequence[str], *, cpus: int = 1, args: str | None = None) -> Settings:
    """The settings that these options give; `args` are `test_args`, which come before an -append."""
    found = Settings(cpus=cpus, args=args or "")
    rest = list(params)
    while rest:
        given = rest.pop(0)
        option = "-" + given.lstrip("-") if given.startswith("-") else given
        if option in QUIET:
            del rest[: QUIET[option]]
        elif option in _TAKERS:
            if not rest:
                found.obstacles.append(f"QEMU's option {given} stands without a value")
                break
            _TAKERS[option](found, rest.pop(0))
        else:
            found.obstacles.append(f"QEMU's option {given} has no meaning here")
            while rest and not rest[0].startswith("-"):
                rest.pop(0)
    return found


def _append(found: Settings, value: str) -> None:
    found.args = f"{found.args} {value}".strip()


def _memory(found: Settings, value: str) -> None:
    size = next((part.partition("=")[2] or part for part in value.split(",") if part.startswith("size=")), None)
    size = size or value.split(",")[0]
    if not re.fullmatch(r"\d+[bkmgtBKMGT]?", size):
        found.obstacles.append(f"-m {value}: no size of memory")
        return
    found.memory = size if size[-1].isalpha() else f"{size}M"


def _smp(found: Settings, value: str) -> None:
    number = value.split(",")[0].removeprefix("cpus=")
    if not number.isdecimal() or int(number) < 1:
        found.obstacles.append(f"-smp {value}: no number of CPUs")
        return
    found.cpus = int(number)
    if "," in value:
        found.notes.append(f"-smp {value}: sockets, cores and threads are as KVM offers them")


def _machine(found: Settings, value: str) -> None:
    for part in value.split(","):
        key, _, setting = part.replace("_", "-").partition("=")
        if key == "kernel-irqchip":
            if setting in ("on", "split"):
                found.irqchip = {"on": "kernel", "split": "split"}[setting]
            else:
                found.obstacles.append(f"-machine {part}: kvm-unit-tests need the LAPIC of the kernel")
        elif key in ("accel", "type") or key in MACHINES or key.startswith(("pc-i440fx-", "pc-q35-")):
            if setting == "tcg":
                found.obstacles.append("-machine accel=tcg: there is only KVM here")
            if "q35" in part:
                found.notes.append(f"-machine {part}: the testdev board has no PCI")
        elif (key, setting) == ("pit", "off"):
            found.notes.append(f"-machine {part}: the testdev board has its PIT all the same")
        elif setting == "off" or key in ("smm", "hpet", "usb", "dump-guest-core", "mem-merge", "graphics"):
            continue
        else:
            found.obstacles.append(f"-machine {part}: the testdev board has it not")


def _device(found: Settings, value: str) -> None:
    name = value.split(",")[0].removeprefix("driver=")
    if name == "pci-testdev":
        found.notes.append("-device pci-testdev: the testdev board has no PCI")
    elif name not in HERE:
        found.obstacles.append(f"-device {name}: the testdev board has no such device")


def _accel(found: Settings, value: str) -> None:
    if value.split(",")[0] != "kvm":
        found.obstacles.append(f"-accel {value}: there is only KVM here")


def _overcommit(found: Settings, value: str) -> None:
    if "cpu-pm=on" in value.split(","):
        found.cpu_pm = True


def _initrd(found: Settings, value: str) -> None:
    found.initrd = value


def _global(found: Settings, value: str) -> None:
    if not value.startswith("kvm-pit."):
        found.obstacles.append(f"-global {value}: no device here has such a property")


def _cpu(found: Settings, value: str) -> None:
    model, *parts = value.split(",")
    features: list[tuple[str, bool]] = []
    vendor, bits = "", 0
    for part in filter(None, parts):
        name, _, setting = part.partition("=")
        name = name.replace("-", "_") if part[0] not in "+-" else part[0] + name[1:].replace("-", "_")
        if name.lstrip("+-").startswith("hv_"):
            found.obstacles.append(f"-cpu {part}: pyvmm offers no Hyper-V enlightenments")
        elif name == "vendor":
            vendor = setting
        elif name == "phys_bits" and setting.isdecimal():
            bits = int(setting)
        elif name[0] in "+-":
            features.append((name[1:], name[0] == "+"))
        elif name in QUIET_PROPERTIES:
            continue
        elif setting in ("", "on", "off"):
            features.append((name, setting != "off"))
        else:
            found.obstacles.append(f"-cpu {part}: no such property here")
    if vendor and len(vendor) != 12:
        found.obstacles.append(f"-cpu vendor={vendor}: a vendor has twelve letters")
        vendor = ""
    found.cpu = CpuChoice(model, tuple(features), vendor, bits)


_TAKERS: dict[str, Callable[[Settings, str], None]] = {
    "-append": _append, "-m": _memory, "-smp": _smp, "-machine": _machine, "-M": _machine, "-device": _device,
    "-cpu": _cpu, "-accel": _accel, "-overcommit": _overcommit, "-initrd": _initrd, "-global": _global,
}  # fmt: skip
