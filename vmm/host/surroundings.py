# SPDX-License-Identifier: GPL-2.0-or-later
"""The host around KVM, as far as it is known without opening /dev/kvm. One value, on any host."""

from __future__ import annotations

import os
from dataclasses import dataclass

from vmm.host import sandbox
from vmm.host import userfaultfd as userfault
from vmm.host.sandbox import Sandbox
from vmm.host.sysfs import Backend, HostFiles, Nested
from vmm.host.userfaultfd import Userfault


@dataclass(frozen=True, slots=True)
class Setting:
    """`release` and `machine` as uname tells them; `cpus` are those this process may use.

    `parameters` are values of module parameters, such as `kvm.ignore_msrs`; `container` is what marks this as one.
    """

    release: str
    machine: str
    cpus: int
    backend: Backend
    nested: Nested
    clocksource: str | None
    clocksources: tuple[str, ...]
    parameters: dict[str, str]
    userfault: Userfault
    container: str | None
    sandbox: Sandbox | None = None


def look(files: HostFiles | None = None) -> Setting:
    """Look around. Raises nothing: what cannot be read is None or empty."""
    files = files or HostFiles()
    system = os.uname()
    return Setting(
        release=system.release,
        machine=system.machine,
        cpus=len(os.sched_getaffinity(0)),
        backend=files.backend(),
        nested=files.nested(),
        clocksource=files.clocksource(),
        clocksources=files.clocksources(),
        parameters=files.parameters(),
        userfault=userfault.probe(),
        container=files.container(),
        sandbox=sandbox.probe(),
    )
