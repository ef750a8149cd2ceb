# SPDX-License-Identifier: GPL-2.0-or-later
"""What several probes have in common, and so what a guest may use and still be migrated among their hosts: a document
for programs, from snapshots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vmm.abi import pv
from vmm.errors import EXIT_FAIL, EXIT_PASS
from vmm.payload.proof.verdict import Verdict
from vmm.report.compare import Document, host_of, names_of, required_names, unusable_of
from vmm.report.snapshot import NOT_PROBED, Snapshot

SCHEMA = 1


def baseline(every: Sequence[Snapshot], require: Sequence[str] = ()) -> Document:
    """What all of them have (schemas/baseline.schema.json).

    A feature is in the baseline if every host proved it usable, and either KVM offers its bit everywhere (`by` is
    "kvm") or it is one that the VMM adds after its duty ("vmm"). Rows without a bit are there by being usable.

    Raises:
        UsageError: a required name is none of a feature.
    """
    required = required_names(require, every)
    features = [_common(name, every) for name in names_of(*every)]
    have = {each["name"]: each for each in features if each["in_baseline"]}
    failed = [
        {"name": name, "why": next((each["why"] for each in features if each["name"] == name), NOT_PROBED)}
        for name in required
        if name not in have
    ]
    kvm = [each for each in have.values() if each["by"] == "kvm"]
    return {
        "schema": SCHEMA,
        "hosts": [host_of(each) for each in every],
        "features": features,
        "kvm": _registers(kvm),
        "with_vmm": _registers(have.values()),
        "notes": [*_served(have.values()), *_deviating(have.values()), *_differences(every)],
        "required": required,
        "failed": failed,
        "exit_code": EXIT_FAIL if failed else EXIT_PASS,
    }


def _common(name: str, every: Sequence[Snapshot]) -> Document:
    entries = [each.entries.get(name) for each in every]
    known = next(entry for entry in entries if entry)
    why = next((each["why"] for each in unusable_of([name], every)), "")
    by = ""
    if not why and known.bit is not None:
        by, why = _giver(name, every)
    return {
        "name": name,
        "bit": known.bit,
        "register": known.register,
        "states": [each.state(name) for each in every],
        "deviations": [
            {"file": each.file, "what": what, "observed": observed, "expected": expected}
            for each, entry in zip(every, entries, strict=True)
            if entry
            for what, (observed, expected) in entry.deviations.items()
        ],
        "in_baseline": not why,
        "by": by,
        "duty": row.duty if (row := pv.find(name)) else "",
        "why": why,
    }


def _giver(name: str, every: Sequence[Snapshot]) -> tuple[str, str]:
    """(who puts the bit into CPUID, why it cannot be there) for a feature that is usable everywhere."""
    lacking = [each for each in every if not each.entries[name].offered]
    if not lacking:
        return "kvm", ""
    row = pv.find(name)
    if row and row.offered_by == "vmm":
        return "vmm", ""
    return "", f"KVM does not offer the bit on {lacking[0].file}"


def _registers(features: Iterable[Document]) -> dict[str, int]:
    found = {"eax": 0, "edx": 0}
    for each in features:
        if each["bit"] is not None:
            found[each["register"]] |= 1 << each["bit"]
    return found


def _served(features: Iterable[Document]) -> Iterator[str]:
    found = [each["name"] for each in features if Verdict.SERVICED in each["states"]]
    if found:
        yield (
            f"serviced: {', '.join(found)}: on a host where no hypercall reaches KVM, only a VMM that answers it as "
            "pyvmm does gives these to a guest"
        )


def _deviating(features: Iterable[Document]) -> Iterator[str]:
    for feature in features:
        for each in feature["deviations"]:
            yield (
                f"deviation: {feature['name']} on {each['file']}: {each['what']}: {each['observed']}, and the ABI says "
                f"{each['expected']}"
            )


def _differences(every: Sequence[Snapshot]) -> Iterator[str]:
    """What a migration meets beside the features."""
    calls = dict.fromkeys(each.host["hypercall"] for each in every)
    if len(calls) > 1:
        yield (
            f"the hypercall instruction differs ({', '.join(calls)}): a guest chooses it once, at its start, and after "
            "a migration needs a KVM that rewrites it, or a VMM that answers"
        )
    if len({each.host["ring0"] for each in every}) > 1:
        yield "ring 0 is native on some and emulated on others: instructions that run here may fail there"
    for word, register in (("EAX", "eax"), ("EDX", "edx")):
        unnamed = _everywhere(every, register) & ~sum(row.mask for row in pv.FEATURES if row.register == register)
        if unnamed:
            yield f"all offer {word} {unnamed:#x}, which pyvmm has no name for; it is left out"


def _everywhere(every: Sequence[Snapshot], register: str) -> int:
    found = (1 << 32) - 1
    for each in every:
        found &= each.host["pv_features"][register]
    return found
