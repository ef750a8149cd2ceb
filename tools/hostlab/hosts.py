# SPDX-License-Identifier: GPL-2.0-or-later
"""The hosts that there are: a name says which CPU (svm, vmx) and which kernel (6.1, 6.12, newest), then what differs
from the usual host of that name: `svm-6.1-amd64-1cpu`.

A kernel is a Debian release: Debian's names of its packages tell the version. AMD SVM is QEMU's TCG; Intel VMX is
Bochs, built with VMX, which no package of it has.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import kut
from .errors import LabError

# Kernel series -> the Debian release that has it. `newest` is whatever sid has today, and is named by its version then.
RELEASES = {"6.1": "bookworm", "6.12": "trixie", "newest": "sid"}
KNOWN = ("bookworm", "trixie", "forky", "sid")  # a name that the mirror does not have would only be skipped
KINDS = {"svm": "qemu", "vmx": "bochs"}
DEFAULT = ("svm-newest", "svm-6.1", "vmx-6.1")
ROOT_RELEASE = "bookworm"  # Python 3.11, the oldest that pyvmm supports
FLAVOUR = "cloud-amd64"
NAME = re.compile(
    r"(?P<kind>svm|vmx)-(?P<kernel>newest|\d+\.\d+)(?:-(?P<flavour>amd64|rt-amd64|cloud-amd64))?"
    r"(?:-(?P<release>[a-z]+(?:-backports)?))?(?:-(?P<cpus>\d)cpu)?"
)
# Files of tools/hostlab/steps/: those of every host, and what one host does beside them, by its name.
ALWAYS = ("doctor", "probe", "tests")
STEPS: dict[str, tuple[str, ...]] = {"svm-6.1": ("user", "action")}


@dataclass(frozen=True)
class Host:
    """One emulated host. `model` is the emulator's name of a CPU, "" for the lab's own choice.

    `extra` names further steps, files of tools/hostlab/steps/; `only` those that run in place of the usual ones.
    `tests` selects tests of the step of that name, as pytest's -k does; "" is all that are meant for a host.
    `guests` are kernels, as in a host's name, that Linux guests have beside the host's own.
    `counted`: its clock counts instructions, where the emulator can do that. `mended`: its emulator is a copy without
    a fault that its steps do not bear. `xsave`: its kernel uses XSAVE, and its guests may. `images` is what its step
    `kut` starts.
    """

    kind: str
    kernel: str
    cpus: int = 2
    model: str = ""
    flavour: str = FLAVOUR
    release: str = ""
    extra: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    tests: str = ""
    guests: tuple[str, ...] = ()
    counted: bool = False
    mended: bool = False
    xsave: bool = True
    images: kut.Request | None = None

    @property
    def variant(self) -> tuple[str, ...]:
        """What differs from the usual host: ("amd64", "bookworm-backports", "1cpu", "EPYC-Rome-svm")."""
        parts = []
        if self.flavour != FLAVOUR:
            parts.append(self.flavour)
        if self.release and self.release != RELEASES.get(self.kernel, "sid"):
            parts.append(self.release)
        if self.cpus != 2:
            parts.append(f"{self.cpus}cpu")
        if self.model:
            parts.append(re.sub(r"[^A-Za-z0-9]+", "-", self.model).strip("-"))
        return tuple(parts)

    @property
    def name(self) -> str:
        """`svm-6.1`; what differs from the usual is part of it: `svm-6.1-amd64-1cpu-EPYC`."""
        return "-".join((self.usual, *self.variant))

    @property
    def usual(self) -> str:
        """The host of the lab's own choices that this one is a variant of: its expected verdicts are the start."""
        return f"{self.kind}-{self.kernel}"

    @property
    def emulator(self) -> str:
        return KINDS[self.kind]

    @property
    def suite(self) -> str:
        """The Debian release whose kernel runs there."""
        return self.release or RELEASES.get(self.kernel, "sid")

    @property
    def steps(self) -> tuple[str, ...]:
        """What runs there, in order: the usual steps, its own, then those asked for."""
        usual = self.only or (*ALWAYS, *STEPS.get(self.usual, ()))
        return tuple(dict.fromkeys((*usual, *self.extra)))

    @property
    def shares(self) -> tuple[tuple[str, ...], ...]:
        """The steps of each machine that is started for this host, side by side.

        Bochs has one thread: on two CPUs the tests, half of its time, need not wait for the rest.
        """
        rest = tuple(step for step in self.steps if step != "tests")
        if self.emulator == "bochs" and rest and "tests" in self.steps:
            return rest, ("tests",)
        return (self.steps,)


def parse(
    word: str, *, cpus: int = 2, model: str = "", flavour: str = FLAVOUR, release: str = "",
    extra: tuple[str, ...] = (), only: tuple[str, ...] = (), tests: str = "", guests: tuple[str, ...] = (),
    images: kut.Request | None = None,
) -> Host:  # fmt: skip
    """`svm-6.12` -> Host. A kernel that no release is known for is looked for in sid: `svm-7.2`. What the word itself
    says goes before what is given beside it.

    Raises:
        LabError: it is no name of a host.
    """
    found = NAME.fullmatch(word)
    if found is None:
        known = " ".join(f"{kind}-{kernel}" for kind in KINDS for kernel in RELEASES)
        raise LabError(
            f"{word}: no host of the lab",
            hint=f"{known}, or another kernel version that Debian's sid has; "
            "behind it -amd64, -bookworm-backports, -1cpu",
        )
    cpus = int(found["cpus"] or cpus)
    if not 1 <= cpus <= 8:
        raise LabError(f"HOSTS_CPUS={cpus}: give 1 to 8")
    flavour, release = found["flavour"] or flavour, found["release"] or release
    if release and release.removesuffix("-backports") not in KNOWN:
        raise LabError(f"{release}: no release of Debian that the lab knows", hint=f"{', '.join(KNOWN)}, or -backports")
    return Host(
        found["kind"], found["kernel"], cpus, model, flavour, release, extra, only, tests, guests, images=images
    )  # fmt: skip


def one_emulator(hosts: Sequence[Host]) -> None:
    """Raises: LabError, for a CPU model that two emulators would have to know."""
    models = {host.model for host in hosts if host.model}
    if models and len({host.kind for host in hosts}) > 1:
        raise LabError(
            f"HOSTS_CPU={models.pop()}: QEMU (svm) and Bochs (vmx) name CPUs differently",
            hint="svm hosts and vmx hosts in two runs",
        )


def settled(host: Host, version: str) -> Host:
    """`newest` replaced by the series of the version that the registry has: 7.2.13-1 -> 7.2."""
    if host.kernel != "newest":
        return host
    series = ".".join(re.findall(r"\d+", version)[:2])
    # The release is said if it is not the one that a host of this series would be looked for in.
    return replace(host, kernel=series, release=host.suite)
