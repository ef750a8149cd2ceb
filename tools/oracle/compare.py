# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs by their numbers on both sides: how many end in the same state, and why the others do not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tools.oracle.explain import Difference, explained
from tools.oracle.programs import Program, program
from tools.oracle.sides import Kvm, Unicorn


class Comparison:
    """Of one ring. `same` counts; `known` counts by name; `findings` are (number, sentence)."""

    def __init__(self, ring: int) -> None:
        self.ring = ring
        self.ran = self.same = 0
        self.known: Counter[str] = Counter()
        self.findings: list[tuple[int, str]] = []
        self._unicorn = Unicorn()

    def run(self, seed: int, numbers: Iterable[int]) -> None:
        """These programs."""
        with Kvm(self.ring) as kvm:
            for number in numbers:
                self._one(kvm, program(seed, number), number)

    def _one(self, kvm: Kvm, made: Program, number: int) -> None:
        self.ran += 1
        if not self._differs(kvm, made).any:
            self.same += 1
            return
        found = self.first(kvm, made)
        if found is None:
            self.findings.append((number, f"ring {self.ring}: it differed once, and not again"))
        elif name := explained(found):
            self.known[name] += 1
        else:
            self.findings.append((number, found.shown))

    def _differs(self, kvm: Kvm, made: Program) -> Difference:
        return Difference(self.ring, made.insns[-1], None, made, kvm.run(made), self._unicorn.run(made))

    def first(self, kvm: Kvm, made: Program) -> Difference | None:
        """Where a difference begins: at an instruction before which there is none."""
        same, differs = 0, len(made.insns)
        found = self._differs(kvm, made)
        while found.any and differs - same > 1:
            middle = (same + differs) // 2
            tried = self._differs(kvm, made.first(middle))
            if tried.any:
                found, differs = tried, middle
            else:
                same = middle
        if not found.any:
            return None
        return found._replace(before=kvm.run(made.first(same)) if same else None)
