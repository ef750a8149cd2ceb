# SPDX-License-Identifier: GPL-2.0-or-later
"""The binding: one class per KVM file descriptor, one method per ioctl. The only floor that touches C."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmm.kvm.system import Kvm as Kvm
    from vmm.kvm.vcpu import Vcpu as Vcpu
    from vmm.kvm.vm import Vm as Vm


def __getattr__(name: str) -> object:
    """Kvm, Vcpu and Vm, loaded by who asks for them here: a plain machine needs none (vmm/machine/plain.py)."""
    home = {"Kvm": "system", "Vcpu": "vcpu", "Vm": "vm"}.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{home}"), name)
