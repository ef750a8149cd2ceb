# SPDX-License-Identifier: GPL-2.0-or-later
"""What changed from one probe to another: a document for programs, from snapshots. And the gate of `--require`.

A *regression* is a step down the ladder (vmm.report.snapshot.LADDER) from a state that a guest can rely on, or any step
to `broken`. A feature that was not probed the second time is one too: a gate that did not look must not pass. A detail
that did not deviate before is told; in a strict comparison it is a regression.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from vmm.abi import pv
from vmm.base import names
from vmm.errors import EXIT_FAIL, EXIT_PASS, UsageError
from vmm.payload.proof.verdict import Verdict
from vmm.report.snapshot import NOT_PROBED, Entry, Snapshot, rank, usable

SCHEMA = 1
Document = dict[str, Any]


def diff(a: Snapshot, b: Snapshot, require: Sequence[str] = (), *, strict: bool = False) -> Document:
    """From `a` (before, or the known good) to `b` (schemas/diff.schema.json).

    `require` narrows the gate to these features, which must be usable in `b` and no worse than in `a`. `strict`: a new
    deviation is a regression.

    Raises:
        UsageError: a required name is none of a feature.
    """
    required = required_names(require, (a, b))
    changes = [change for name in names_of(a, b) if (change := _change(name, a, b, strict)) is not None]
    worse = [each["name"] for each in changes if each["change"] == "regression"]
    failed = unusable_of(required, (b,))
    told = {each["name"] for each in failed}
    failed += [{"name": name, "why": _why(name, changes)} for name in worse if name in required and name not in told]
    return {
        "schema": SCHEMA,
        "a": host_of(a),
        "b": host_of(b),
        "host": list(_facts(a.host, b.host)),
        "features": changes,
        "unchanged": len(names_of(a, b)) - len(changes),
        "regressions": worse,
        "improvements": [each["name"] for each in changes if each["change"] == "improvement"],
        "strict": strict,
        "required": required,
        "failed": failed,
        "exit_code": EXIT_FAIL if (failed if required else worse) else EXIT_PASS,
    }


def names_of(*every: Snapshot) -> list[str]:
    """The names of all documents, in the order of the bits; topics of the API only where every probe asked for them."""
    topics = all(each.topics_asked for each in every)
    found = {name for each in every for name, entry in each.entries.items() if topics or not entry.topic}
    return sorted(found, key=pv.order)


def required_names(words: Iterable[str], every: Sequence[Snapshot]) -> list[str]:
    """Plain names, in the order they were asked for."""
    probed = {name.upper(): name for name in names_of(*every)}
    found = []
    for word in words:
        feature = pv.find(word)
        name = feature.name if feature else probed.get(word.strip().upper())
        if name is None:
            known = list(dict.fromkeys([*(row.name for row in pv.FEATURES), *probed.values()]))
            raise UsageError(f"--require: {names.unknown('paravirtual feature', word, known)}")
        found.append(name)
    return list(dict.fromkeys(found))


def unusable_of(required: Iterable[str], every: Sequence[Snapshot]) -> list[dict[str, str]]:
    failed = []
    for name in required:
        bad = next((each for each in every if not usable(each.state(name))), None)
        if bad:
            failed.append({"name": name, "why": _state_text(bad, name)})
    return failed


def _why(name: str, changes: list[Document]) -> str:
    return str(next(each["why"] for each in changes if each["name"] == name))


def _state_text(found: Snapshot, name: str) -> str:
    """`absent on b.json: KVM does not offer it`."""
    entry = found.entries.get(name)
    reason = f": {entry.reason}" if entry and entry.reason else ""
    return f"{found.state(name)} on {found.file}{reason}"


# diff -------------------------------------------------------------------------------------------------------------


def _change(name: str, a: Snapshot, b: Snapshot, strict: bool) -> Document | None:
    """What changed of one feature; None if nothing did. Numbers of the evidence differ always, and are not compared."""
    before, after = a.entries.get(name), b.entries.get(name)
    refusals = _refusals(before, after) if a.refusals_asked and b.refusals_asked else []
    asked = b.refusals_asked or not a.refusals_asked  # most deviations are of refusals: unasked, they are not gone
    deviations = [each for each in _deviations(before, after) if asked or each["b"] is not None]
    known = after or before
    assert known is not None
    same = before and after and (before.state, before.offered) == (after.state, after.offered)
    if same and not refusals and not deviations:
        return None
    kind = _kind(a.state(name), b.state(name))
    if strict and kind == "changed" and any(each["a"] is None for each in deviations):
        kind = "regression"
    return {
        "name": name,
        "bit": known.bit,
        "register": known.register,
        "change": kind,
        "why": "; ".join([_state_text(b, name), *map(deviation_text, deviations)]),
        "a": _entry(before),
        "b": _entry(after),
        "refusals": refusals,
        "deviations": deviations,
    }


def _kind(before: str, after: str) -> str:
    """regression, improvement, added (nobody had asked before), or changed."""
    if rank(after) > rank(before) and (usable(before) or after == Verdict.BROKEN):
        return "regression"
    if before == NOT_PROBED:
        return "added"
    if rank(after) < rank(before) and (usable(after) or before == Verdict.BROKEN):
        return "improvement"
    return "changed"


def _entry(entry: Entry | None) -> Document | None:
    if entry is None:
        return None
    return {"state": entry.state, "offered": entry.offered, "reason": entry.reason}


def _refusals(before: Entry | None, after: Entry | None) -> list[dict[str, str]]:
    """Those asked both times that came otherwise."""
    if not before or not after:
        return []
    return [
        {"kind": kind, "what": what, "a": observed, "b": after.refusals[kind, what]}
        for (kind, what), observed in before.refusals.items()
        if after.refusals.get((kind, what), observed) != observed
    ]


def _deviations(before: Entry | None, after: Entry | None) -> list[dict[str, str | None]]:
    """Those of one only, and those that deviate otherwise now; null where a detail is as the ABI says."""
    first = before.deviations if before else {}
    second = after.deviations if after else {}
    return [
        {"what": what, "a": _observed(first, what), "b": _observed(second, what), "expected": expected}
        for what, (_, expected) in {**first, **second}.items()
        if _observed(first, what) != _observed(second, what)
    ]


def _observed(found: Mapping[str, tuple[str, str]], what: str) -> str | None:
    return found[what][0] if what in found else None


def deviation_text(each: Mapping[str, str | None]) -> str:
    """`deviates: WHAT: accepted, and the ABI says #GP`; `deviates no more: WHAT`."""
    if each["b"] is None:
        return f"deviates no more: {each['what']}"
    before = f" (before: {each['a']})" if each["a"] is not None else ""
    return f"deviates: {each['what']}: {each['b']}, and the ABI says {each['expected']}{before}"


def _facts(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[dict[str, str | None]]:
    """Facts of the host that differ, in the order of the document; null where a document lacks one."""
    before, after = dict(_flat(a)), dict(_flat(b))
    for what in dict.fromkeys([*before, *after]):
        if before.get(what) != after.get(what):
            yield {"what": what, "a": before.get(what), "b": after.get(what)}


def _flat(host: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in host.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif prefix or key != "text":  # the text is made of the others
            yield f"{prefix}{key}", _fact(key, value)


def _fact(key: str, value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "not known"
        case int() if key in ("eax", "edx"):
            return f"{value:#010x}"
        case list():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def host_of(found: Snapshot) -> Document:
    return {
        "file": found.file,
        "kernel": found.host["kernel"],
        "text": found.host["text"],
        "pv_features": {key: found.host["pv_features"][key] for key in ("eax", "edx")},
        "notes": list(found.notes),
    }
