# SPDX-License-Identifier: GPL-2.0-or-later
"""The one vocabulary of verdicts, and what carries one: a finding with its evidence, and refusals. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


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
class Finding:
    """A verdict, why (empty for a plain `works`), the evidence in numbers, and one line that sums it up."""

    verdict: Verdict
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""

    @property
    def line(self) -> str:
        """One line of evidence for a table."""
        return self.reason or self.summary


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
    """The finding, made `broken` if a refusal contradicts the ABI: a feature that cannot be hidden is not right."""
    wrong = broken_refusals(refusals)
    if not wrong or finding.verdict in (Verdict.ABSENT, Verdict.UNPROVEN, Verdict.BROKEN):
        return finding
    first = wrong[0]
    return Finding(
        Verdict.BROKEN,
        f"{first.what}: {first.observed}, and the ABI says {first.expected}"
        + f" (and {len(wrong) - 1} more)" * (len(wrong) > 1),
        finding.evidence,
    )


class Unproven(Exception):
    """A precondition of a proof is missing: a permission, a second CPU, ... The message names it."""


class GuestBroke(Exception):
    """The guest of a proof ended in a way that the ABI does not allow: a crash, a hang, a missing result."""
