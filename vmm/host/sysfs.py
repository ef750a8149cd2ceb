# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host's /sys and /proc say about KVM: modules, parameters, clock, container. It opens no device.

Everything here is shown, and nothing is decided by it: whether KVM works is found out by using it (measured.py). A file
that is absent or unreadable is None. `root` stands in for / in the tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

BACKENDS = {
    "kvm_intel": ("vmx", "Intel VMX"),
    "kvm_amd": ("svm", "AMD SVM"),
    "kvm_pvm": ("pvm", "software-backed, no VMX or SVM used"),
}


class Parameter(NamedTuple):
    """One module parameter that changes what a guest sees of the paravirtual interface."""

    module: str
    name: str
    meaning: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


PARAMETERS = (
    Parameter("kvm", "ignore_msrs", "Y: an unknown MSR reads 0 and takes writes, instead of #GP"),
    Parameter("kvm", "halt_poll_ns", "longest poll before a halted vCPU sleeps; a guest may refuse it"),
    Parameter("kvm", "enable_pmu", "Y: guests have performance counters"),
    Parameter("kvm", "force_emulation_prefix", "not 0: guests can ask for the emulation of an instruction"),
    Parameter("kvm_intel", "enable_apicv", "Y: the CPU ends interrupts itself, so PV EOI has nothing to do"),
    Parameter("kvm_intel", "ple_gap", "0: a spinning vCPU is never noticed"),
    Parameter("kvm_intel", "nested", "Y: guests may run KVM"),
    Parameter("kvm_amd", "avic", "Y: the CPU ends interrupts itself, so PV EOI has nothing to do"),
    Parameter("kvm_amd", "pause_filter_count", "0: a spinning vCPU is never noticed"),
    Parameter("kvm_amd", "nested", "1: guests may run KVM"),
)


@dataclass(frozen=True, slots=True)
class Backend:
    """Which module does KVM's work. `kind`: vmx, svm, pvm, several or unknown; `modules` are the names found."""

    kind: str
    modules: tuple[str, ...]

    @property
    def text(self) -> str:
        names = ", ".join(self.modules)
        if self.kind == "several":
            return f"one of several ({names})"
        if self.kind == "unknown":
            return f"unknown ({names or 'module built in?'})"
        return f"{BACKENDS[self.modules[0]][1]} ({names})"


@dataclass(frozen=True, slots=True)
class Nested:
    """Whether the host is itself a guest (None: not known), and how that is known."""

    guest: bool | None
    how: str


class HostFiles:
    """Reads below `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def read(self, path: str) -> str | None:
        """The stripped text of a small file, or None."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def backend(self) -> Backend:
        """By /sys/module, where a module built into the kernel shows too once it has a parameter."""
        try:
            modules = sorted(entry.name for entry in (self.root / "sys/module").glob("kvm_*"))
        except OSError:
            modules = []
        known = [name for name in modules if name in BACKENDS]
        if len(known) > 1:
            return Backend("several", tuple(known))
        return Backend(BACKENDS[known[0]][0], tuple(known)) if known else Backend("unknown", tuple(modules))

    def nested(self) -> Nested:
        """CPUID 1.ECX[31] as the host's kernel tells it; a KVM clock tells who is below."""
        hypervisor = self.read("sys/hypervisor/type")
        if hypervisor:
            return Nested(True, f"/sys/hypervisor/type says {hypervisor}")
        flags = next((line for line in (self.read("proc/cpuinfo") or "").splitlines() if line.startswith("flags")), "")
        if not flags:
            return Nested(None, "/proc/cpuinfo has no flags to read")
        if "hypervisor" not in flags.split():
            return Nested(False, "no hypervisor bit (CPUID 1.ECX[31], by /proc/cpuinfo)")
        below = ", and there is a kvm-clock: on KVM" if "kvm-clock" in self.clocksources() else ""
        return Nested(True, f"hypervisor bit (CPUID 1.ECX[31], by /proc/cpuinfo){below}")

    def clocksource(self) -> str | None:
        return self.read("sys/devices/system/clocksource/clocksource0/current_clocksource")

    def clocksources(self) -> tuple[str, ...]:
        """All that the host's kernel could use, best first."""
        return tuple((self.read("sys/devices/system/clocksource/clocksource0/available_clocksource") or "").split())

    def parameters(self) -> dict[str, str]:
        """The values of PARAMETERS that this host has, as the kernel writes them: `kvm.ignore_msrs` -> `N`."""
        found = {str(row): self.read(f"sys/module/{row.module}/parameters/{row.name}") for row in PARAMETERS}
        return {name: value for name, value in found.items() if value is not None}

    def container(self) -> str | None:
        """What marks this as a container, or None. A hint for a person only: many containers leave no mark."""
        for mark in (".dockerenv", "run/.containerenv"):
            if (self.root / mark).exists():
                return f"/{mark}"
        kind = self.read("run/systemd/container")
        return f"/run/systemd/container says {kind}" if kind else None

    def udev(self) -> bool:
        """Whether a udev runs here, by its control socket: it sets owner, group and mode of device nodes."""
        return (self.root / "run/udev/control").exists()

    def device_number(self) -> int | None:
        """The minor number of the kernel's kvm device (its major is 10), by /proc/misc; None without the driver."""
        for line in (self.read("proc/misc") or "").splitlines():
            minor, _, name = line.strip().partition(" ")
            if name == "kvm" and minor.isdigit():
                return int(minor)
        return None
