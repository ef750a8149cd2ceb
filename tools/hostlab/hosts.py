# SPDX-License-Identifier: GPL-2.0-or-later
"""The hosts that there are: a name says which CPU (svm, vmx) and which kernel (6.1, 6.12, newest).

A kernel is a Debian release: Debian's names of its packages tell the version. AMD SVM is QEMU's TCG; Intel VMX is
Bochs, built with VMX, which no package of it has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import LabError

# Kernel series -> the Debian release that has it. `newest` is whatever sid has today, and is named by its version then.
RELEASES = {"6.1": "bookworm", "6.12": "trixie", "newest": "sid"}
KINDS = {"svm": "qemu", "vmx": "bochs"}
DEFAULT = ("svm-newest", "svm-6.1", "vmx-6.1")
ROOT_RELEASE = "bookworm"  # Python 3.11, the oldest that pyvmm supports
FLAVOUR = "cloud-amd64"


@dataclass(frozen=True)
class Host:
    """One emulated host. `model` is the emulator's name of a CPU, "" for the lab's own choice.

    `extra` names further steps, files of tools/hostlab/steps/.
    """

    kind: str
    kernel: str
    cpus: int = 2
    model: str = ""
    flavour: str = FLAVOUR
    release: str = ""
    extra: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`svm-6.1`; what differs from the usual is part of it: `svm-6.1-amd64-1cpu-EPYC`."""
        parts = [self.kind, self.kernel]
        if self.flavour != FLAVOUR:
            parts.append(self.flavour)
        if self.release and self.release != RELEASES.get(self.kernel, RELEASES["newest"]):
            parts.append(self.release)
        if self.cpus != 2:
            parts.append(f"{self.cpus}cpu")
        if self.model:
            parts.append(re.sub(r"[^A-Za-z0-9]+", "-", self.model).strip("-"))
        return "-".join(parts)

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


def parse(
    word: str, *, cpus: int = 2, model: str = "", flavour: str = FLAVOUR, release: str = "", extra: tuple[str, ...] = ()
) -> Host:
    """`svm-6.12` -> Host. A kernel that no release is known for is looked for in sid: `svm-7.2`.

    Raises:
        LabError: it is not KIND-KERNEL.
    """
    kind, dash, kernel = word.partition("-")
    if kind not in KINDS or not dash or not re.fullmatch(r"newest|\d+\.\d+", kernel):
        known = " ".join(f"{kind}-{kernel}" for kind in KINDS for kernel in RELEASES)
        raise LabError(f"{word}: no host of the lab\n  try: {known}, or another kernel version that Debian's sid has")
    if not 1 <= cpus <= 8:
        raise LabError(f"HOSTS_CPUS={cpus}: give 1 to 8")
    return Host(kind, kernel, cpus, model, flavour, release, extra)
