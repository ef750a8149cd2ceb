# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents of `pyvmm probe --api --json` that emulated hosts handed back, and what is read
from them: the made-up documents of test_compare.py show what else may come.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tools.hostlab.keep import KEPT, kept
from vmm.abi import deviations
from vmm.report import baseline, compare, compare_text
from vmm.report.snapshot import Snapshot, read
from vmm.report.style import Style

OLD, NEW = "svm-6.1", "svm-7.2"
HOSTS = [path.stem for path in kept() if path.stem != "software-backed"]


def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((KEPT / f"{name}.json").read_text(encoding="utf-8"))
    return found


def snapshot(name: str) -> Snapshot:
    return read(document(name), f"{name}.json")


@pytest.mark.parametrize("name", HOSTS)
def test_a_recorded_document_follows_the_schema_and_counts_its_rows(
    name: str, follows: Callable[[str, Any], Any]
) -> None:
    found = follows("probe", document(name))
    assert found["host"]["backend"] == name.partition("-")[0]
    assert found["host"]["ring0"] == "native"
    assert sum(found["counts"].values()) == len(found["features"])
    broken = [row["name"] for row in (*found["features"], *found["topics"]) if row["verdict"] == "broken"]
    assert broken == (["ring3_ports"] if name.startswith("svm") else []), "that is QEMU's, which lends SVM"
    assert found["broken"] == len(broken)


def test_the_deviations_of_an_old_kernel_are_explained_by_the_facts() -> None:
    """The words of a row of the facts are those of the proof, or nothing would be explained."""
    rows = [each for each in document(OLD)["features"] if each["deviations"]]
    assert [(row["name"], row["verdict"]) for row in rows] == [("PV_UNHALT", "works"), ("ASYNC_PF_VMEXIT", "works")]
    for row in rows:
        (found,) = row["deviations"]
        known = deviations.find(row["name"], found["what"], found["observed"])
        assert known is not None
        assert (found["kernels"], found["commit"]) == (known.kernels, known.commit)


def test_from_the_old_kernel_to_the_new_one_and_back(follows: Callable[[str, Any], Any]) -> None:
    doc = follows("diff", compare.diff(snapshot(OLD), snapshot(NEW)))
    assert doc["regressions"] == []
    assert doc["improvements"] == ["api guest_memfd", "api memory_fault_memfd"]
    assert "deviates no more: argument: the bit with HLT exits disabled" in compare_text.diff_text(doc, Style())
    back = compare.diff(snapshot(NEW), snapshot(OLD), ["PV_UNHALT"])
    assert back["exit_code"] == 0
    strict = follows("diff", compare.diff(snapshot(NEW), snapshot(OLD), ["PV_UNHALT"], strict=True))
    assert [each["name"] for each in strict["failed"]] == ["PV_UNHALT"]


def test_the_deviation_is_noted_in_a_baseline(follows: Callable[[str, Any], Any]) -> None:
    doc = follows("baseline", baseline.baseline([snapshot(OLD), snapshot(NEW)]))
    (row,) = (each for each in doc["features"] if each["name"] == "PV_UNHALT")
    assert row["in_baseline"]
    assert [each["file"] for each in row["deviations"]] == [f"{OLD}.json"]
    assert any(note.startswith("deviation: PV_UNHALT on svm-6.1.json: ") for note in doc["notes"])
