# SPDX-License-Identifier: GPL-2.0-or-later
"""The one vocabulary of verdicts, and what carries one: a finding with its evidence, its deviations and refusals.

Values only. A *deviation* is a detail that is not as the ABI says, of a feature whose effect was shown: it is told and
counted apart, and the verdict stays. What contradicts the effect itself is `broken`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from vmm.abi import deviations as facts


class Verdict(StrEnum):
    """What a proof says of a feature on this host. Never a guess: a finding carries the numbers."""

    WORKS = "works"
    SERVICED = "serviced"
    INERT = "inert"
    ADVERTISED = "advertised"
    ABSENT = "absent"
    UNPROVEN = "unproven"
    BROKEN = "broken"

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]

    @property
    def outcome(self) -> str:
        """The outcome of `pyvmm run` for a payload that ends with this verdict."""
        if self in (Verdict.WORKS, Verdict.SERVICED, Verdict.ADVERTISED):
            return "pass"
        return "fail" if self is Verdict.BROKEN else "skip"

    @property
    def usable(self) -> bool:
        """A guest can rely on the feature: works, serviced or advertised."""
        return self.outcome == "pass"


# From best to worst, for comparing hosts: who gives the effect (KVM, then pyvmm, then nobody can see it), then what is
# not there in a known way, then what nobody knows, and last what is wrong.
ORDER = (
    Verdict.WORKS,
    Verdict.SERVICED,
    Verdict.ADVERTISED,
    Verdict.INERT,
    Verdict.ABSENT,
    Verdict.UNPROVEN,
    Verdict.BROKEN,
)
_MEANINGS = {
    Verdict.WORKS: "the guest saw the defined effect",
    Verdict.SERVICED: "pyvmm answered, because this host never hands the hypercall to KVM",
    Verdict.INERT: "accepted, but the effect never shows here",
    Verdict.ADVERTISED: "a hint with nothing to observe; the guest reads what was set",
    Verdict.ABSENT: "not offered",
    Verdict.UNPROVEN: "a precondition is missing",
    Verdict.BROKEN: "contradicts the ABI",
}


@dataclass(frozen=True)
class Deviation:
    """A detail: what was done, what the ABI says, what was seen. Where it is known, `kernels` says which do so and
    `commit` is the subject of the change that ended it; both explain, and neither is asked for the verdict.
    """

    what: str
    expected: str
    observed: str
    kernels: str = ""
    commit: str = ""

    @property
    def line(self) -> str:
        """All of it in one line."""
        known = "; ".join([self.kernels] * bool(self.kernels) + [f'changed by "{self.commit}"'] * bool(self.commit))
        return f"{self.what}: {self.observed}, and the ABI says {self.expected}" + (f" ({known})" if known else "")


@dataclass(frozen=True)
class Finding:
    """A verdict, why (empty for a plain `works`), the evidence in numbers, one line that sums it up, and which details
    deviate.
    """

    verdict: Verdict
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""
    deviations: tuple[Deviation, ...] = ()

    @property
    def line(self) -> str:
        """One line of evidence for a table, with the number of deviations."""
        told = [text for text in (self.reason or self.summary, counted(self.deviations)) if text]
        return "; ".join(told)

    def of(self, feature: str) -> Finding:
        """The finding with what the facts know of its deviations."""
        return replace(self, deviations=tuple(_explained(feature, each) for each in self.deviations))


def counted(deviations: Sized) -> str:
    """`1 deviation`, `2 deviations`; empty for none."""
    number = len(deviations)
    return f"{number} deviation{'s' * (number != 1)}" if number else ""


def _explained(feature: str, deviation: Deviation) -> Deviation:
    row = facts.find(feature, deviation.what, deviation.observed)
    return replace(deviation, kernels=row.kernels, commit=row.commit) if row else deviation


@dataclass(frozen=True)
class Refusal:
    """One thing that must be refused (or must still work, as a control): what was done, what must and what did come.

    `kind`: masked (hidden, not enforced: still active), enforced (refused), control (present and enforced: works),
    reserved, address, argument.
    """

    kind: str
    what: str
    expected: str
    observed: str

    @property
    def holds(self) -> bool:
        return self.expected == self.observed


def broken_refusals(refusals: list[Refusal]) -> list[Refusal]:
    """Those that did not come as the ABI says."""
    return [each for each in refusals if not each.holds]


def with_refusals(finding: Finding, refusals: list[Refusal]) -> Finding:
    """The finding, and each refusal that did not come as the ABI says as a deviation of it.

    A `control` is no refusal: what must work when the feature is shown and enforced. If it does not, the effect is not
    given there and the refusals prove nothing: `broken`.
    """
    wrong = broken_refusals(refusals)
    if not wrong or finding.verdict in (Verdict.ABSENT, Verdict.UNPROVEN, Verdict.BROKEN):
        return finding
    controls = [each for each in wrong if each.kind == "control"]
    if controls:
        first = controls[0]
        more = f" (and {len(wrong) - 1} more)" * (len(wrong) > 1)
        reason = f"{first.what}: {first.observed}, and the ABI says {first.expected}{more}"
        return Finding(Verdict.BROKEN, reason, finding.evidence)
    deviations = (Deviation(f"{each.kind}: {each.what}", each.expected, each.observed) for each in wrong)
    return replace(finding, deviations=(*finding.deviations, *deviations))


class Unproven(Exception):
    """A precondition of a proof is missing: a permission, a second CPU, ... The message names it."""


class GuestBroke(Exception):
    """The guest of a proof ended in a way that the ABI does not allow: a crash, a hang, a missing result."""
