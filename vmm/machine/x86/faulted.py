# SPDX-License-Identifier: GPL-2.0-or-later
"""Registers as they were when an exception struck that a default gate took. It knows the gate's frame, and no vCPU."""

from __future__ import annotations

from vmm.machine.x86.descriptors import FAULT_FRAME_SIZE, FaultFrame
from vmm.machine.x86.virtual import read_virtual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from vmm.kvm.state import Regs, Sregs
    from vmm.machine.memory.slots import GuestMemory


def unwind(memory: GuestMemory, regs: Regs, sregs: Sregs) -> FaultFrame:
    """Change registers of a vCPU that stands in a default gate to those at the exception; of CS and SS the selector and
    its ring.

    Raises:
        GuestMemoryError: its stack is not there; nothing is changed.
    """
    frame = FaultFrame.parse(read_virtual(memory, sregs, regs.rsp, FAULT_FRAME_SIZE))
    regs.rip, regs.rsp, regs.rflags = frame.rip, frame.rsp, frame.rflags
    for segment, selector in ((sregs.cs, frame.cs), (sregs.ss, frame.ss)):
        segment.selector, segment.dpl = selector & 0xFFFF, selector & 3  # KVM has those of the gate's handler
    return frame
