# SPDX-License-Identifier: GPL-2.0-or-later
"""Interrupts and exceptions of one watched machine, told as they are seen: at their gates and as KVM has them
(KVM_GET_VCPU_EVENTS) while the guest is stepped, and as the host raises them. It injects nothing.

What KVM's own controllers and what C code raises (an ioeventfd, a disk's thread) is not seen until a step shows it.
"""

from __future__ import annotations

from collections.abc import Callable

from vmm.abi.x86 import vector_name
from vmm.machine.machine import Machine
from vmm.machine.run.cpu import Cpu
from vmm.machine.run.gate_entry import Entry
from vmm.observe.postmortem import source, where
from vmm.observe.trace import Event

EXCEPTIONS, NMI = 32, 2


class Events:
    """`emit` takes each as a record; `now` gives its time."""

    def __init__(self, machine: Machine, guest: int, now: Callable[[], int], emit: Callable[[Event], object]) -> None:
        self._machine, self._guest, self._now, self._emit = machine, guest, now, emit
        self._waited: dict[int, tuple[tuple[str, int | None], ...]] = {}  # by vCPU, what was told already

    def listen(self) -> None:
        """From now on, tell what the host raises."""
        self._machine.vm.raised = self._raised
        self._machine.lane.uart_is_pythons()  # whose line the core may have moved until now
        for cpu in self._machine.cpus:
            cpu.vcpu.raised = lambda kind, number, index=cpu.index: self._raised(kind, number, index)

    def entered(self, cpu: Cpu, entry: Entry) -> None:
        """A step ended in a handler."""
        alone = entry.vectors[0] if len(entry.vectors) == 1 else None
        if alone is None:
            name = f"an exception or interrupt (vectors {', '.join(map(hex, entry.vectors[:4]))}...)"
        else:
            name = vector_name(alone) if alone < EXCEPTIONS else f"interrupt {alone:#x}"
        code = "" if entry.error_code is None else f", error code {entry.error_code:#x}"
        at, written = where(self._machine, entry.rip), source(self._machine, entry.rip)
        handler = where(self._machine, entry.handler) or hex(entry.handler)
        before = f"before {entry.rip:#x} {at}".rstrip() + (f" ({written})" if written else "")
        kind = "interrupt" if alone is None or alone >= EXCEPTIONS else "nmi" if alone == NMI else "exception"
        self._waited.pop(cpu.index, None)
        ran = ", whose first instruction ran with it" if entry.inside else ""
        self._tell(cpu.index, "gate", kind, alone, entry.error_code, f"{name}{code}, {before}: handler {handler}{ran}")

    def waiting(self, cpu: Cpu) -> None:
        """What KVM will deliver with the vCPU's next entry, each once."""
        events = cpu.vcpu.get_vcpu_events()
        found: list[tuple[str, int | None]] = []
        if events.exception_injected or events.exception_pending:
            found.append(("exception", events.exception_nr))
        if events.interrupt_injected:
            found.append(("interrupt", events.interrupt_nr))
        if events.nmi_injected or events.nmi_pending:
            found.append(("nmi", NMI))
        told = self._waited.get(cpu.index, ())
        self._waited[cpu.index] = tuple(found)
        for kind, vector in found:
            if (kind, vector) not in told:
                name = f"interrupt {vector:#x}" if kind == "interrupt" else vector_name(vector or 0)
                code = None
                if kind == "exception" and events.exception_has_error_code:
                    code = events.exception_error_code
                self._tell(cpu.index, "kvm", kind, vector, code, f"KVM is about to deliver {name}")

    def _raised(self, kind: str, number: int, index: int | None = None) -> None:
        words = {
            "line up": f"line (GSI) {number} rises",
            "line down": f"line (GSI) {number} falls",
            "msi": f"a message brings vector {number:#x}",
            "interrupt": f"the host injects interrupt {number:#x}",
            "nmi": "the host sends an NMI",
            "exception": f"the host injects {vector_name(number)}",
        }
        vector = None if kind.startswith("line") else number
        self._tell(index, "host", kind.partition(" ")[0], vector, None, words[kind])

    def _tell(
        self, index: int | None, by: str, kind: str, vector: int | None, error_code: int | None, text: str
    ) -> None:
        who = "" if index is None else f"vCPU {index}: "
        self._emit(Event(self._guest, self._now(), index, by, kind, vector, error_code, who + text))
