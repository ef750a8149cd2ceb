# SPDX-License-Identifier: GPL-2.0-or-later
"""What a worker does: plain functions that are called by name over there, and return values. Dask is not known here."""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

from vmm.base.light import cache
from vmm.base.version import pyvmm_version
from vmm.host import measured
from vmm.host.measured import HostFacts
from vmm.kvm.system import Kvm
from vmm.payload.proof.probe import Probe, select
from vmm.payload.proof.prove import Row

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
TEXTS = frozenset((".py", ".asm", ".inc", ".c", ".h", ".S", ".ld"))


@cache
def files() -> str:
    """The sum of all texts of this pyvmm, guests included: two that differ in a line differ in this."""
    found = hashlib.sha256()
    root = Path(__file__).resolve().parents[2]
    for folder in ("vmm", "guest_payloads"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in TEXTS and path.is_file():
                found.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()


def identity() -> dict[str, Any]:
    """Which pyvmm this is, and which host: its name, and what tells two of that name apart."""
    try:
        boot = BOOT_ID.read_text().strip()
    except OSError:
        boot = ""
    return {
        "version": pyvmm_version(),
        "files": files(),
        "name": platform.node() or "unnamed",
        "boot": boot,
        "pid": os.getpid(),
    }


def facts() -> HostFacts:
    """What this host is. HostError: no usable KVM."""
    with Kvm.open() as kvm:
        return measured.measure(kvm)


def proven(names: tuple[str, ...], *, api: bool, refusals: bool, strict: bool) -> list[Row]:
    """The rows of these features and topics, proven here."""
    return list(Probe(select(names, api=api), refusals=refusals, strict=strict))
