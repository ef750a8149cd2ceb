# SPDX-License-Identifier: GPL-2.0-or-later
"""What the host halves were given on hosts with VMX and SVM, judged again: recorded, where the tests of each feature
make evidence up to see every way to be wrong. tests/evidence/record.py wrote it.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from vmm.payload.catalog import find
from vmm.payload.proof.verdict import Finding

FILES = sorted((Path(__file__).resolve().parents[1] / "evidence").glob("*.json"))
HOSTS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in FILES}
CASES = [
    pytest.param(name, note, id=f"{host}-{name}-{number}")
    for host, document in HOSTS.items()
    for name, notes in document["proofs"].items()
    for number, note in enumerate(notes)
]


def value(module: Any, text: str) -> Any:
    """An argument of `judge`, from its text: values of the host half's own types, and of those it names."""
    names = {key: each for other in [*sys.modules.values()] if other is not None for key, each in _types(other)}
    return eval(text, names | vars(module))


def _types(module: Any) -> list[tuple[str, type]]:
    if not str(getattr(module, "__name__", "")).startswith("vmm."):
        return []
    return [(key, each) for key, each in vars(module).items() if isinstance(each, type)]


@pytest.mark.parametrize(("name", "note"), CASES)
def test_recorded_evidence_is_judged_as_it_was(name: str, note: dict[str, Any]) -> None:
    module: Any = importlib.import_module(f"guest_payloads.{find(name).group}.{name}")
    found = module.judge(*(value(module, text) for text in note["judged"]))
    each = {"": found} if isinstance(found, Finding) else found
    assert {feature: str(finding.verdict) for feature, finding in each.items()} == note["verdicts"]


OF_KVM = ("hypercalls", "map_gpa_range", "migration_control", "pv_eoi", "pv_unhalt", "send_ipi", "tlb_flush")


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", OF_KVM)
def test_there_kvm_itself_gives_the_effect(host: str, name: str) -> None:
    for note in HOSTS[host]["proofs"][name]:
        assert set(note["verdicts"].values()) == {"works"}


def test_hosts_with_vmx_and_with_svm_are_there() -> None:
    assert {document["host"]["backend"] for document in HOSTS.values()} == {"svm", "vmx"}
    for document in HOSTS.values():
        assert document["host"]["ring0"] == "native"
        assert len(document["proofs"]) > 15
