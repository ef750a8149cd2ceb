# SPDX-License-Identifier: GPL-2.0-or-later
"""The binding: one class per KVM file descriptor, one method per ioctl. The only floor that touches C."""

from vmm.kvm.system import Kvm as Kvm
from vmm.kvm.vcpu import Vcpu as Vcpu
from vmm.kvm.vm import Vm as Vm
