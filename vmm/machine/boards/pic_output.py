# SPDX-License-Identifier: GPL-2.0-or-later
"""The INT pin of our own 8259s at vCPU 0: where KVM has no PIC, the VMM is the one that acknowledges and injects.

With irqchip=none KVM_INTERRUPT injects the vector itself; with split it is what the local APIC's LINT0 gets as ExtINT,
and KVM says by the same flag whether it can be taken. Either may be done only while kvm_run.ready_for_interrupt_
injection says so, that is after an exit on the vCPU's own thread. So who raises the pin elsewhere has the vCPU come out
(request_interrupt_window, and a kick, for one that is halted in the kernel opens no window). A vector is chosen as late
as that: the guest may have masked it by then. Without local APICs HLT exits, and the vCPU waits here.

Source: api.rst, KVM_INTERRUPT, KVM_CAP_SPLIT_IRQCHIP and kvm_run.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from vmm.kvm.lean import ACCESSES
from vmm.machine.run.cpu import current
from vmm.machine.run.limits import HEARTBEAT

if TYPE_CHECKING:
    from vmm.kvm.exits import Exit
    from vmm.machine.devices.pic import Pics
    from vmm.machine.run.cpu import Cpu
    from vmm.machine.whole import Whole


class PicOutput:
    """`raised(level)` is what the 8259s' output calls."""

    def __init__(self, machine: Whole, pics: Pics) -> None:
        self._machine, self._pics = machine, pics
        self._changed = threading.Event()
        self._observing = False
        machine.platform.on_irq_window.append(self._here)
        machine.platform.on_halt.append(self._wait)
        machine.all_cpus.on_tick.append(self._hand_over)

    def raised(self, level: bool) -> None:
        """The pin has changed, on any thread."""
        if not level or not self._machine.cpus:
            return
        self._changed.set()
        cpu = self._machine.cpus[0]
        if current() is cpu:
            # In an exit of its own: what it asks for may change more yet, so this is looked at when the exit is served.
            cpu.vcpu.request_interrupt_window(True)
            self._observe(True)
        else:
            self._machine.all_cpus.open_window(cpu)

    def _here(self) -> None:
        cpu = current()
        if cpu is not None:
            self._hand_over(cpu)

    def _observed(self, cpu: Cpu, exit: Exit) -> None:
        self._hand_over(cpu)

    def _observe(self, on: bool) -> None:
        """While something waits, look at accesses, too: some hosts open the window late."""
        if on != self._observing:
            self._observing = on
            if on:
                self._machine.all_cpus.add_observer(self._observed, ACCESSES)
            else:
                self._machine.all_cpus.remove_observer(self._observed)

    def _hand_over(self, cpu: Cpu) -> bool:
        """On the vCPU's own thread: give it the vector, or ask KVM to say when it can take one."""
        if cpu.index:
            return False
        vcpu = cpu.vcpu
        given = False
        if self._pics.pending and vcpu.ready_for_interrupt and not vcpu.get_vcpu_events().interrupt_injected:
            vcpu.interrupt_vector(self._pics.acknowledge())
            given = True
        vcpu.request_interrupt_window(self._pics.pending)
        self._observe(self._pics.pending)
        return given

    def _wait(self) -> bool:
        """A vCPU has halted, with irqchip=none. False: with interrupts off, nothing wakes it."""
        cpu = current()
        if cpu is None or cpu.index or not cpu.vcpu.interrupts_enabled:
            return False
        control = self._machine.all_cpus
        while not control.stopping:
            self._changed.clear()
            if self._hand_over(cpu) or cpu.vcpu.get_vcpu_events().interrupt_injected:
                return True
            self._changed.wait(HEARTBEAT)
            control.tick(cpu)
        return True
