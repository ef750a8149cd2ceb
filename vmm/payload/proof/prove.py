# SPDX-License-Identifier: GPL-2.0-or-later
"""A proof from its payload to its rows: offered or not, proven, refusals asked. It prints nothing.

What goes wrong inside a proof becomes a verdict with its reason: a missing permission or capability is `unproven`, a
guest that crashed or hung is `broken`. Errors of pyvmm itself are raised.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vmm.abi import pv
from vmm.errors import MissingCapability, MissingCpus, PayloadError, UsageError
from vmm.payload.catalog import Payload, find, shipped
from vmm.payload.header import MissingResult
from vmm.payload.needs import check_needs
from vmm.payload.options import Options
from vmm.payload.outcome import Outcome
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Deviation, Finding, GuestBroke, Refusal, Unproven, Verdict, with_refusals

if TYPE_CHECKING:
    from vmm.payload.half import Prove, Refuse


@dataclass(frozen=True)
class Row:
    """One feature's line in the table of `pyvmm probe`. `elapsed` in seconds, for the payload that proves it.

    `error` is the traceback of a mistake in pyvmm itself, which kept the proof from ending; the verdict is `unproven`
    then, and the outcome `error`.
    """

    name: str
    bit: int | None
    register: str
    offered: bool
    finding: Finding
    refusals: tuple[Refusal, ...]
    payload: str
    elapsed: float
    error: str = ""
    group: str = "pv"  # of the payload: a paravirtual feature, or "api", a topic of the KVM API
    strict: bool = False  # a deviation fails

    @property
    def topic(self) -> bool:
        """A topic of the KVM API, which has no bit."""
        return self.group == "api"

    @property
    def verdict(self) -> Verdict:
        return self.finding.verdict

    @property
    def outcome(self) -> str:
        """pass, fail, skip or error."""
        if self.error:
            return "error"
        return "fail" if self.strict and self.deviations else self.verdict.outcome

    @property
    def deviations(self) -> tuple[Deviation, ...]:
        """Details that are not as the ABI says, of an effect that was shown."""
        return self.finding.deviations

    def as_json(self) -> dict[str, Any]:
        """An element of `features`, or of `topics`, which have no bit (schema 1)."""
        bit = {} if self.topic else {"bit": self.bit, "register": self.register, "offered": self.offered}
        return {
            "name": self.name,
            **bit,
            "verdict": str(self.verdict),
            "outcome": self.outcome,
            "reason": self.finding.reason,
            "summary": self.finding.summary,
            "evidence": dict(self.finding.evidence),
            "refusals": [
                {"kind": r.kind, "what": r.what, "expected": r.expected, "observed": r.observed, "holds": r.holds}
                for r in self.refusals
            ],
            "deviations": [asdict(each) for each in self.deviations],
            "payload": self.payload,
            "elapsed_s": round(self.elapsed, 4),
            "error": self.error or None,
        }


def proofs(failed: dict[str, Exception] | None = None, group: str = "pv") -> dict[str, Payload]:
    """Feature name -> the payload that proves it, in the order of the bits; rows without a bit come last. With group
    "api", topics of the KVM API, by payload.

    A payload whose header or host half is at fault goes into `failed` by name; without that dict it is raised. So does
    one that proves what another one does.
    """
    by_feature: dict[str, Payload] = {}
    for name, path in shipped().items():
        if path.parent.name != group:
            continue
        try:
            payload = find(name)
            if payload.header.proves:
                payload.host_half()
            for feature in payload.header.proves:
                if feature in by_feature:
                    raise PayloadError(f"proves: {by_feature[feature].name} proves {feature}, too", file=payload.file)
        except Exception as error:
            if failed is None:
                raise
            failed[name] = error
            continue
        by_feature |= dict.fromkeys(payload.header.proves, payload)
    if group == "api":
        return by_feature
    return dict(sorted(by_feature.items(), key=lambda item: pv.order(item[0])))


def prove(
    payload: Payload,
    options: Options | None = None,
    *,
    enforce: bool = False,
    refusals: bool = True,
    strict: bool = False,
) -> list[Row]:
    """Run one payload's proof: a Row for each feature that it proves. `strict` makes a deviation fail."""
    half = payload.host_half()
    if half is None or half.prove is None:
        raise UsageError(f"payload {payload.name} proves no feature; `pyvmm run {payload.name}` runs it")
    lab = Lab(payload, options or Options(), enforce)
    begin = time.monotonic()
    names = payload.header.proves
    findings = _findings(half.prove, lab, names)
    asked: Mapping[str, list[Refusal]] = {}
    if refusals and half.refusals and any(_askable(each) for each in findings.values()):
        asked = _refusals(half.refusals, lab, names, findings)
    elapsed = time.monotonic() - begin
    rows = []
    for name in names:
        feature = bit_of(name, payload.group)
        own = list(asked.get(name, ()))
        rows.append(
            Row(
                name=name,
                bit=feature.bit if feature else None,
                register=feature.register if feature else "",
                offered=lab.offered(name) if feature else True,
                finding=with_refusals(findings[name], own).of(name),
                refusals=tuple(own),
                payload=payload.name,
                elapsed=elapsed,
                group=payload.group,
                strict=strict,
            )
        )
    return rows


def bit_of(name: str, group: str) -> pv.Feature | None:
    """The feature's row in the facts; a topic of the KVM API has none, whatever it is called."""
    return pv.find(name) if group != "api" else None


def _askable(finding: Finding) -> bool:
    return finding.verdict not in (Verdict.ABSENT, Verdict.UNPROVEN)


def _findings(prove: Prove, lab: Lab, names: tuple[str, ...]) -> dict[str, Finding]:
    try:
        check_needs(lab.payload)
    except MissingCapability as error:
        # A topic is what it needs, so without that it is absent; a feature has a bit that says what is offered.
        absent = lab.payload.group == "api" and not isinstance(error, MissingCpus)
        return dict.fromkeys(names, Finding(Verdict.ABSENT if absent else Verdict.UNPROVEN, str(error)))
    try:
        found = prove(lab)
    except (Unproven, MissingCapability) as error:
        found = Finding(Verdict.UNPROVEN, str(error))
    except (GuestBroke, MissingResult) as error:
        found = Finding(Verdict.BROKEN, str(error))
    if not isinstance(found, Mapping):
        return dict.fromkeys(names, found)
    if found.keys() != set(names):
        raise ValueError(f"prove() of {lab.payload.name} finds {sorted(found)}, and its header proves {sorted(names)}")
    return dict(found)


def _refusals(
    refusals: Refuse, lab: Lab, names: tuple[str, ...], findings: dict[str, Finding]
) -> Mapping[str, list[Refusal]]:
    """What was refused. A guest that broke while it was asked makes the findings `broken`; what cannot be asked for
    want of a permission is left out.
    """
    try:
        found = refusals(lab)
    except (Unproven, MissingCapability):
        return {}
    except (GuestBroke, MissingResult) as error:
        for name, finding in findings.items():
            if _askable(finding):
                findings[name] = Finding(Verdict.BROKEN, f"while asking for refusals: {error}", finding.evidence)
        return {}
    return found if isinstance(found, Mapping) else {names[0]: found}


def outcome_of(payload: Payload, rows: list[Row]) -> Outcome:
    """The rows of one payload as the outcome of `pyvmm run`: the worst decides."""
    worst = max(rows, key=lambda row: _SEVERITY[row.outcome])
    evidence: dict[str, Any] = {}
    for row in rows:
        evidence[row.name] = f"{row.verdict}" + (f": {row.finding.line}" if row.finding.line else "")
        evidence |= {f"{row.name}.{key}": value for key, value in row.finding.evidence.items()}
        if row.refusals:
            evidence[f"{row.name}.refusals"] = (
                f"{sum(r.holds for r in row.refusals)} of {len(row.refusals)} as the ABI says"
            )
        evidence |= {f"{row.name}.deviation.{n}": each.line for n, each in enumerate(row.deviations, 1)}
    deviates = worst.outcome != worst.verdict.outcome  # which only a strict proof tells apart
    why = f" and deviates: {worst.deviations[0].line}" if deviates else f": {worst.finding.line}"
    return Outcome(
        payload=payload.name,
        outcome=worst.outcome,
        reason=f"{worst.name} {worst.verdict}{why}",
        evidence=evidence,
        wall_ms=worst.elapsed * 1e3,
    )


_SEVERITY = {"pass": 0, "skip": 1, "fail": 2}
