# SPDX-License-Identifier: GPL-2.0-or-later
"""What was expected of a host, and what came. Values in, lines out: a line for each row that is not as expected."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from vmm.report.kut import compared

from .expected import Expected, Wanted
from .junit import Tests

UNLISTED = Wanted(("pass", "skip"))
PASSES = Wanted(("pass",))


def differences(expected: Expected, probe: Mapping[str, Any]) -> list[str]:
    """Of features and topics; also for a row that only one side has."""
    return [
        *_differences(expected.features, {row["name"]: row for row in probe["features"]}),
        *_differences(expected.topics, {row["name"]: row for row in probe.get("topics", [])}),
    ]


def _differences(expected: Mapping[str, Wanted], found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, wanted in expected.items():
        row = found.get(name)
        if row is None:
            yield f"{name}: expected {wanted.should}, and there is no such row"
        else:
            yield from _of_row(name, wanted, row)
    for name, row in found.items():
        if name not in expected:
            yield f"{name}: {row['verdict']}, and the file of expected verdicts has no such row"


def _of_row(name: str, wanted: Wanted, row: Mapping[str, Any]) -> Iterator[str]:
    should, told = wanted.should, row["reason"] or row["summary"]
    if row["outcome"] == "error":
        yield f"{name}: expected {should}, and pyvmm failed: {told}"
        return
    if not wanted.allows(row["verdict"], "works"):
        yield f"{name}: expected {should}, was {row['verdict']}: {told}"
        return
    if fault := wanted.lacks(row["verdict"], "works", _evidence(row)):
        yield (
            f"{name}: expected {should} by the fault {fault.name}, was {row['verdict']} without what shows that "
            f"({fault.shows}): {told}"
        )
    seen = [each["what"] for each in row.get("deviations", [])]
    for each in row.get("deviations", []):
        if each["what"] not in wanted.deviations:
            yield (
                f"{name}: a deviation that was not expected: {each['what']}: {each.get('observed', '?')}, and the ABI "
                f"says {each.get('expected', '?')}"
            )
    for what in wanted.deviations:
        if what not in seen:
            yield f"{name}: an expected deviation did not come: {what}"


def _evidence(row: Mapping[str, Any]) -> str:
    return json.dumps([row["reason"], row["summary"], row.get("evidence")])


def of_tests(expected: Expected, tests: Tests, *, whole: bool = True) -> list[str]:
    """Of the tests: each that failed and should not have, or, where the `whole` of them ran, the other way round."""
    lines = []
    for name, message in tests.failed.items():
        wanted = expected.tests.get(name)
        if wanted is None or "failed" not in wanted.verdicts:
            lines.append(f"{name}: failed: {message}")
        elif fault := wanted.lacks("failed", "passed", message):
            lines.append(f"{name}: failed, but not as the fault {fault.name} shows itself: {message}")
    for name, wanted in expected.tests.items() if whole else ():
        if name not in tests.failed and name not in tests.skipped and not wanted.fault:
            lines.append(f"{name}: expected {wanted.should}, did not fail")
    return lines


def of_selftests(expected: Expected, document: Mapping[str, Any]) -> list[str]:
    """Of the kernel's selftests: one that the file does not have is expected to pass, or to skip itself."""
    found = {each["name"]: each for each in document["selftests"]}
    lines = []
    for name, each in found.items():
        wanted = expected.selftests.get(name, UNLISTED)
        said = " / ".join(each["output"][-2:])
        if not wanted.allows(each["status"], "pass"):
            lines.append(f"selftest {name}: expected {wanted.should}, was {each['status']}: {said}")
        elif fault := wanted.lacks(each["status"], "pass", "\n".join(each["output"])):
            lines.append(f"selftest {name}: {wanted.should}, but not as the fault {fault.name} shows itself: {said}")
    for name, wanted in expected.selftests.items():
        if name not in found:
            lines.append(f"selftest {name}: expected {wanted.should}, was not run")
    return lines


def of_kut(wanted: Mapping[str, Wanted], found: Mapping[str, Any]) -> list[str]:
    """Of `pyvmm kut --qemu --json`: each test that QEMU passes there and pyvmm does not, unless that is expected; an
    error of pyvmm's own in any of them. Where nothing passes in QEMU nothing is shown, and that is a line too.
    """
    lines, theirs = [], 0
    for each in found["tests"]:
        name, verdict = each["name"], each["verdict"]
        beside = (each.get("qemu") or {}).get("verdict")
        theirs += beside == "pass"
        should = wanted.get(name, PASSES)
        said = " ".join(str(each["reason"] or each["summary"]).split())
        if verdict == "error":
            lines.append(f"kut {name}: pyvmm failed: {said}")
        elif beside == "pass" and not should.allows(verdict, "pass"):
            lines.append(f"kut {name}: passes in QEMU, and in pyvmm it is {verdict}: {said}")
        elif fault := should.lacks(verdict, "pass", said) if beside == "pass" else None:
            lines.append(f"kut {name}: {verdict}, but not as the fault {fault.name} shows itself: {said}")
    return lines if theirs else [*lines, "kut: no test passes in QEMU there, so nothing was compared"]


def of_doctor(kind: str, doctor: Mapping[str, Any]) -> list[str]:
    """Whether KVM is usable there, by the CPU that the host has."""
    backend = doctor.get("backend") or {}
    if not doctor.get("usable"):
        return [f"doctor: KVM is not usable: {doctor.get('reason')}"]
    if backend.get("kind") != kind:
        return [f"doctor: expected backend {kind}, was {backend.get('kind')}: {backend.get('text')}"]
    return []


def of_checks(step: str, found: Mapping[str, Any]) -> list[str]:
    """Of a step's own list: each that is not as it should be. An empty list shows nothing, and is a line too."""
    lines = [f"{step}: {each['what']}: {each['seen']}" for each in found["checks"] if each["ok"] is not True]
    return lines if found["checks"] else [f"{step}: nothing was checked"]


def counted_checks(step: str, found: Mapping[str, Any]) -> str:
    """`user 30 checks ok`, `user 29 checks ok, 1 not`."""
    good = sum(each["ok"] is True for each in found["checks"])
    bad = len(found["checks"]) - good
    return f"{step} {good} checks ok" + (f", {bad} not" if bad else "")


def counts(probe: Mapping[str, Any]) -> str:
    """`25 features: 22 works, 2 advertised, 1 absent, 0 broken, 1 deviation; 84 topics: ...`."""
    return "; ".join(_counted(kind, probe[kind]) for kind in ("features", "topics") if probe.get(kind))


def _counted(kind: str, rows: list[dict[str, Any]]) -> str:
    found = Counter("error" if row["outcome"] == "error" else row["verdict"] for row in rows)
    found.setdefault("broken", 0)
    parts = [f"{number} {verdict}" for verdict, number in found.most_common()]
    deviations = sum(len(row.get("deviations", [])) for row in rows)
    if deviations:
        parts.append(f"{deviations} deviation{'s' * (deviations != 1)}")
    return f"{len(rows)} {kind}: {', '.join(parts)}"


def counts_of_selftests(document: Mapping[str, Any]) -> str:
    """`selftests: 14 pass, 2 skip, 1 fail`."""
    found = Counter(each["status"] for each in document["selftests"])
    return f"selftests: {', '.join(f'{number} {status}' for status, number in found.most_common()) or 'none'}"


def counts_of_kut(found: Mapping[str, Any]) -> str:
    """`kut 40 tests: QEMU passes 21, pyvmm 20 of those and 3 more; 2 not run`."""
    n = compared((each["verdict"], each["qemu"]["verdict"]) for each in found["tests"] if each.get("qemu"))
    left = f"; {len(found['not_run'])} not run" if found["not_run"] else ""
    return f"kut {len(found['tests'])} tests: QEMU passes {n.theirs}, pyvmm {n.ours} of those and {n.more} more{left}"
