# SPDX-License-Identifier: GPL-2.0-or-later
"""External interrupts for a machine without an interrupt controller in the kernel (irqchip=none).

The VMM is the controller then. A vector may be handed over (KVM_INTERRUPT) only while the guest can take it: kvm_run's
ready_for_interrupt_injection says so at each exit, and where it does not, request_interrupt_window makes KVM exit as
soon as it does (KVM_EXIT_IRQ_WINDOW_OPEN). HLT exits too, for only the VMM can end it. Source: api.rst, KVM_INTERRUPT
and kvm_run.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from vmm.errors import UsageError
from vmm.kvm.exits import Exit
from vmm.kvm.lean import ACCESSES
from vmm.machine.ends import Result, Why
from vmm.machine.machine import Machine
from vmm.machine.run.cpu import Cpu


class Injector:
    """Delivers vectors to one vCPU, in order, each when the guest can take it.

    Vectors raised in a hook of the vCPU are there at its next entry, if it can take one then. For others KVM is asked
    to say when (Platform.on_irq_window); while one waits, accesses are looked at too, for some hosts open the window
    late. With nothing to deliver, the lean way stays open.

    Raises:
        UsageError: the machine has an interrupt controller in the kernel.
    """

    def __init__(self, machine: Machine, index: int = 0) -> None:
        if machine.irqchip != "none":
            raise UsageError(f"irqchip={machine.irqchip}: KVM injects by itself there; raise a line or send an MSI")
        self._machine, self._cpu = machine, machine.cpus[index]
        self._queue: deque[int] = deque()
        self._lock = threading.Lock()
        self._observing = False
        self.injected: list[int] = []
        machine.platform.on_irq_window.append(self._on_window)

    @property
    def pending(self) -> tuple[int, ...]:
        """The vectors, by number, that were raised and not handed over yet, the next one first."""
        with self._lock:
            return tuple(self._queue)

    def interrupt(self, vector: int) -> None:
        """Raise a vector.

        Raises:
            UsageError: it does not fit in 8 bits.
        """
        if not 0 <= vector <= 0xFF:
            raise UsageError(f"vector {vector:#x} does not fit in 8 bits")
        with self._lock:
            self._queue.append(vector)
            self._observe()
        if self._cpu.thread_id is None or self._machine.current is self._cpu:
            self._hand_over()
        else:
            self._machine.all_cpus.open_window(self._cpu)

    def run(self, idle: Callable[[], int | None], timeout: float | None = None) -> Result:
        """Run the machine; each time the guest halts, `idle()` gives the vector that wakes it, or None to end.

        A guest that halts with interrupts disabled is not asked about: nothing could wake it.
        """
        while True:
            result = self._machine.run(timeout)
            if result.stop.why is not Why.HALT or not self._cpu.vcpu.ready_for_interrupt:
                return result
            self._hand_over()
            if self._given:  # one came while it was halting
                continue
            vector = idle()
            if vector is None:
                return result
            self.interrupt(vector)

    def _on_window(self) -> None:
        if self._machine.current is self._cpu:
            self._hand_over()

    def _on_access(self, cpu: Cpu, exit: Exit) -> None:
        if cpu is self._cpu:
            self._hand_over()

    def _observe(self) -> None:
        """See accesses while something waits, and no longer. Under the lock."""
        if bool(self._queue) != self._observing:
            self._observing = not self._observing
            if self._observing:
                self._machine.observe(self._on_access, *ACCESSES)
            else:
                self._machine.unobserve(self._on_access)

    @property
    def _given(self) -> bool:
        """One was handed over and not taken yet: what kvm_run says is of before that, and KVM holds one at a time."""
        return bool(self._cpu.vcpu.get_vcpu_events().interrupt_injected)

    def _hand_over(self) -> None:
        """What can be given is given; for the rest KVM is asked to say when."""
        vcpu = self._cpu.vcpu
        with self._lock:
            if self._queue and vcpu.ready_for_interrupt and not self._given:
                vector = self._queue.popleft()
                vcpu.interrupt_vector(vector)
                self.injected.append(vector)
            vcpu.request_interrupt_window(bool(self._queue))
            self._observe()
