# SPDX-License-Identifier: GPL-2.0-or-later
"""pyvmm as a library: `from vmm import Machine`. Names are loaded when first used, so that importing costs nothing.

with Machine(memory="2M") as m:
    m.load("mov al, 0x41; out 0xe9, al; hlt")
    m.on_port_write(0x80, print)
    print(m.run(timeout=1).text)
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from typing import Any

    from vmm.errors import HostError, PayloadError, UsageError, VmmError
    from vmm.kvm.system import Kvm
    from vmm.kvm.vcpu import Vcpu
    from vmm.kvm.vm import Vm
    from vmm.machine.context import Context
    from vmm.machine.ends import Result, Stop, Why
    from vmm.machine.machine import Machine

_HOMES = {
    "Context": "vmm.machine.context",
    "HostError": "vmm.errors",
    "Kvm": "vmm.kvm.system",
    "Machine": "vmm.machine.machine",
    "PayloadError": "vmm.errors",
    "Result": "vmm.machine.ends",
    "Stop": "vmm.machine.ends",
    "UsageError": "vmm.errors",
    "Vcpu": "vmm.kvm.vcpu",
    "Vm": "vmm.kvm.vm",
    "VmmError": "vmm.errors",
    "Why": "vmm.machine.ends",
}

__all__ = [
    "Context",
    "HostError",
    "Kvm",
    "Machine",
    "PayloadError",
    "Result",
    "Stop",
    "UsageError",
    "Vcpu",
    "Vm",
    "VmmError",
    "Why",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vmm' has no attribute {name!r}")
    import importlib

    from vmm.base.hints import prepare

    value = getattr(importlib.import_module(_HOMES[name]), name)
    prepare()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Renamed:
    """Asked for a module that nobody else has found: has it another name now? (base/renamed.py)"""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if not name.startswith("vmm."):
            return None
        from vmm.base.renamed import find

        return find(name)


sys.meta_path.append(_Renamed)
