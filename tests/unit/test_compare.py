# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm diff` and `pyvmm baseline` on made-up documents: Intel, AMD, neither, an old kernel; and on everything
that is no document.
"""

from __future__ import annotations

import copy
import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm import cli
from vmm.abi import pv
from vmm.errors import UsageError
from vmm.payload.proof.verdict import ORDER, Verdict
from vmm.report import baseline as common
from vmm.report import compare, compare_text
from vmm.report.annotations import annotation
from vmm.report.snapshot import LADDER, Snapshot, rank, read, usable
from vmm.report.style import Style

WITHOUT_BIT = ("KVM_HC_CLOCK_PAIRING", "KVM_CPUID_SIGNATURE")
OFFERED = 0x01007EFB


def refusal(kind: str, what: str, observed: str, expected: str = "") -> dict[str, Any]:
    expected = expected or observed
    return {"kind": kind, "what": what, "expected": expected, "observed": observed, "holds": expected == observed}


def row(name: str, verdict: str = "works", offered: bool | None = None, reason: str = "") -> dict[str, Any]:
    found = pv.find(name) if name not in WITHOUT_BIT else None
    by_kvm = found is None or found.offered_by == "kvm"
    outcomes = {"works": "pass", "serviced": "pass", "advertised": "pass", "broken": "fail"}
    return {
        "name": name,
        "bit": found.bit if found else None,
        "register": found.register if found else "",
        "offered": by_kvm if offered is None else offered,
        "verdict": verdict,
        "outcome": outcomes.get(verdict, "skip"),
        "reason": reason,
        "summary": "",
        "evidence": {"khz": 2596152},
        "refusals": [refusal("enforced", "WRMSR", "#GP")],
        "payload": name.lower(),
        "elapsed_s": 0.1,
        "error": None,
    }


def document(
    backend: str, hypercall: str, kernel: str = "6.12.1", ring0: str = "native", **changes: Any
) -> dict[str, Any]:
    """Every feature works; `changes` are verdicts by name, or (verdict, offered), or None to leave the row out."""
    verdicts: dict[str, Any] = dict.fromkeys([*(each.name for each in pv.FEATURES), *WITHOUT_BIT], "works")
    verdicts |= {"MMU_OP": "absent", "NOP_IO_DELAY": "advertised", "HINTS_REALTIME": "advertised"} | changes
    rows = []
    eax = OFFERED
    for name, value in verdicts.items():
        if value is None:
            continue
        verdict, offered = value if isinstance(value, tuple) else (value, None)
        rows.append(row(name, verdict, offered, f"{name} is {verdict} here" if verdict not in ("works",) else ""))
        found = pv.find(name)
        if found and found.register == "eax" and not rows[-1]["offered"]:
            eax &= ~found.mask
    return {
        "schema": 1,
        "host": {
            "text": f"{backend}; ring 0 is {ring0}",
            "kernel": kernel,
            "machine": "x86_64",
            "api_version": 12,
            "backend": backend,
            "modules": [f"kvm_{backend}"],
            "ring0": ring0,
            "hypercall": hypercall,
            "nested": None if backend == "pvm" else False,
            "cpus": 4,
            "clocksource": "tsc",
            "userfaultfd": True,
            "parameters": {"kvm.ignore_msrs": "N"},
            "pv_features": {"eax": eax, "edx": 0},
        },
        "options": {"mask": [], "enforce": False, "refusals": True},
        "features": rows,
        "counts": {},
        "broken": 0,
        "errors": 0,
        "interrupted": False,
        "not_run": [],
        "elapsed_s": 1.0,
    }


VMX = document("vmx", "vmcall")
SVM = document("svm", "vmmcall")
PVM = document(
    "pvm", "none", "6.18.0", "emulated", PV_EOI="inert", PV_UNHALT="serviced", PV_SEND_IPI="serviced",
    KVM_HC_CLOCK_PAIRING="serviced", HC_MAP_GPA_RANGE="serviced",
)  # fmt: skip
OLD = document("vmx", "vmcall", "5.4.0", ASYNC_PF_INT=("absent", False), MIGRATION_CONTROL=None)


def changed(doc: dict[str, Any], name: str, **values: Any) -> dict[str, Any]:
    """A copy of the document with other values in one row."""
    made = copy.deepcopy(doc)
    next(each for each in made["features"] if each["name"] == name).update(values)
    return made


def snap(doc: Any, file: str = "a.json") -> Snapshot:
    return read(json.loads(json.dumps(doc)), file)


def diff(a: Any, b: Any, *require: str, strict: bool = False) -> dict[str, Any]:
    return compare.diff(snap(a, "a.json"), snap(b, "b.json"), require, strict=strict)


def baseline(*docs: Any, require: tuple[str, ...] = ()) -> dict[str, Any]:
    return common.baseline([snap(doc, f"{number}.json") for number, doc in enumerate(docs, 1)], require)


def of(doc: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in doc["features"] if each["name"] == name)
    return found


# The ladder -------------------------------------------------------------------------------------------------------


def test_the_order_holds_every_verdict_once() -> None:
    assert sorted(ORDER) == sorted(Verdict)
    assert len(set(LADDER)) == len(LADDER) == len(Verdict) + 2
    assert [state for state in LADDER if usable(state)] == ["works", "serviced", "advertised"] == list(LADDER[:3])
    assert LADDER[-1] == "broken"


@pytest.mark.parametrize(("before", "after"), list(itertools.product(Verdict, repeat=2)))
def test_every_step_is_what_the_order_says(before: Verdict, after: Verdict) -> None:
    a, b = changed(VMX, "STEAL_TIME", verdict=str(before)), changed(VMX, "STEAL_TIME", verdict=str(after))
    doc = diff(a, b)
    worse = rank(after) > rank(before) and (before.usable or after is Verdict.BROKEN)
    assert doc["regressions"] == (["STEAL_TIME"] if worse else [])
    assert doc["exit_code"] == int(worse)
    better = rank(after) < rank(before) and (after.usable or before is Verdict.BROKEN)
    assert doc["improvements"] == (["STEAL_TIME"] if better else [])
    assert len(doc["features"]) == int(before != after)


# diff -------------------------------------------------------------------------------------------------------------


def test_the_same_host_twice_is_no_change(follows: Callable[[str, Any], Any]) -> None:
    other = changed(VMX, "STEAL_TIME", evidence={"khz": 1}, summary="another number", elapsed_s=9.0)
    doc = follows("diff", diff(VMX, other))
    assert (doc["host"], doc["features"], doc["exit_code"]) == ([], [], 0)
    assert doc["unchanged"] == len(VMX["features"])


def test_from_hardware_to_software(follows: Callable[[str, Any], Any]) -> None:
    doc = follows("diff", diff(SVM, PVM))
    assert doc["regressions"] == [
        "PV_EOI", "PV_UNHALT", "PV_SEND_IPI", "HC_MAP_GPA_RANGE", "KVM_HC_CLOCK_PAIRING",
    ]  # fmt: skip
    assert doc["exit_code"] == 1
    assert of(doc, "PV_EOI")["why"] == "inert on b.json: PV_EOI is inert here"
    facts = {each["what"]: (each["a"], each["b"]) for each in doc["host"]}
    assert facts["hypercall"] == ("vmmcall", "none")
    assert facts["nested"] == ("no", "not known")
    assert "text" not in facts
    back = follows("diff", diff(PVM, SVM))
    assert back["improvements"] == doc["regressions"]
    assert back["exit_code"] == 0


def test_an_older_kernel(follows: Callable[[str, Any], Any]) -> None:
    doc = follows("diff", diff(VMX, OLD))
    assert doc["regressions"] == ["ASYNC_PF_INT", "MIGRATION_CONTROL"]
    assert of(doc, "ASYNC_PF_INT")["b"] == {
        "state": "absent", "offered": False, "reason": "ASYNC_PF_INT is absent here",
    }  # fmt: skip
    assert of(doc, "MIGRATION_CONTROL")["b"] is None, "what nobody looked at does not pass a gate"
    assert {"what": "pv_features.eax", "a": "0x01007efb", "b": "0x01003efb"} in doc["host"]
    newer = diff(OLD, VMX)
    assert of(newer, "MIGRATION_CONTROL")["change"] == "added"
    assert (newer["improvements"], newer["exit_code"]) == (["ASYNC_PF_INT"], 0)


def test_added_and_broken_is_a_regression() -> None:
    assert diff(OLD, changed(VMX, "MIGRATION_CONTROL", verdict="broken"))["regressions"] == ["MIGRATION_CONTROL"]


def test_an_error_of_pyvmm_is_no_pass() -> None:
    doc = diff(VMX, changed(VMX, "STEAL_TIME", verdict="unproven", outcome="error", reason="pyvmm error: KeyError"))
    assert of(doc, "STEAL_TIME")["b"]["state"] == "error"
    assert doc["exit_code"] == 1


def test_refusals_that_came_otherwise() -> None:
    other = changed(
        VMX, "STEAL_TIME", refusals=[refusal("enforced", "WRMSR", "accepted"), refusal("masked", "new", "0")]
    )
    found = of(diff(VMX, other), "STEAL_TIME")
    assert found["change"] == "changed"
    assert found["refusals"] == [{"kind": "enforced", "what": "WRMSR", "a": "#GP", "b": "accepted"}]
    unasked = copy.deepcopy(other)
    unasked["options"]["refusals"] = False
    doc = diff(VMX, unasked)
    assert doc["features"] == []
    assert doc["b"]["notes"] == ["refusals were not asked for: --no-refusals"]


def deviation(what: str = "enforced: WRMSR", observed: str = "accepted") -> dict[str, str]:
    return {"what": what, "expected": "#GP", "observed": observed, "kernels": "", "commit": ""}


def test_a_new_deviation_is_told_and_is_a_regression_when_strict(follows: Callable[[str, Any], Any]) -> None:
    other = changed(
        VMX, "STEAL_TIME", deviations=[deviation()], refusals=[refusal("enforced", "WRMSR", "accepted")]
    )  # fmt: skip
    doc = follows("diff", diff(VMX, other))
    found = of(doc, "STEAL_TIME")
    assert (found["change"], doc["exit_code"], doc["strict"]) == ("changed", 0, False)
    assert found["deviations"] == [{"what": "enforced: WRMSR", "a": None, "b": "accepted", "expected": "#GP"}]
    text = compare_text.diff_text(doc, Style())
    assert text.count("WRMSR") == 1, "the refusal is the deviation"
    assert "      deviates: enforced: WRMSR: accepted, and the ABI says #GP\n" in text
    assert text.endswith("1 otherwise changed, 1 new deviation, 20 unchanged\n")
    assert (
        "- STEAL\\_TIME: deviates: enforced: WRMSR: accepted, and the ABI says \\#GP\n"
        in compare_text.diff_markdown(doc)
    )
    strict = follows("diff", diff(VMX, other, strict=True))
    assert (strict["regressions"], strict["exit_code"], strict["strict"]) == (["STEAL_TIME"], 1, True)
    assert "deviates: enforced: WRMSR" in dict(compare_text.failures(strict))["STEAL_TIME"]
    assert diff(VMX, other, "STEAL_TIME", strict=True)["exit_code"] == 1
    assert diff(VMX, other, "PV_EOI", strict=True)["exit_code"] == 0
    assert diff(other, other, strict=True)["features"] == []


def test_a_deviation_that_is_gone_or_another_is_told(follows: Callable[[str, Any], Any]) -> None:
    before = changed(VMX, "STEAL_TIME", deviations=[deviation()])
    gone = follows("diff", diff(before, VMX, strict=True))
    assert (of(gone, "STEAL_TIME")["change"], gone["exit_code"]) == ("changed", 0)
    assert "deviates no more: enforced: WRMSR\n" in compare_text.diff_text(gone, Style())
    other = changed(VMX, "STEAL_TIME", deviations=[deviation(observed="#UD")])
    text = compare_text.diff_text(diff(before, other), Style())
    assert "deviates: enforced: WRMSR: #UD, and the ABI says #GP (before: accepted)\n" in text
    unasked = copy.deepcopy(VMX)
    unasked["options"]["refusals"] = False
    assert diff(before, unasked)["features"] == [], "who did not ask cannot say that it is gone"
    assert diff(unasked, before)["features"] != []


def test_deviations_of_a_baseline(follows: Callable[[str, Any], Any]) -> None:
    doc = follows("baseline", baseline(VMX, changed(VMX, "STEAL_TIME", deviations=[deviation()])))
    found = of(doc, "STEAL_TIME")
    assert found["in_baseline"]
    assert [each["observed"] for each in found["deviations"]] == ["accepted"]
    told = f"deviation: STEAL_TIME on {found['deviations'][0]['file']}: enforced: WRMSR: accepted, and the ABI says #GP"
    assert told in doc["notes"]
    assert told in compare_text.baseline_text(doc, Style())


def test_topics_of_the_api_count_where_both_asked(follows: Callable[[str, Any], Any]) -> None:
    topic = {key: value for key, value in row("irqfd").items() if key not in ("bit", "register", "offered")}
    a, b = VMX | {"topics": [topic]}, VMX | {"topics": [topic | {"verdict": "absent"}]}
    assert follows("diff", diff(a, b))["regressions"] == ["api irqfd"]
    assert diff(a, VMX)["features"] == diff(VMX, b)["features"] == []
    assert diff(a, b, "api irqfd")["exit_code"] == 1
    assert of(follows("baseline", baseline(a, a)), "api irqfd")["in_baseline"]
    assert "api irqfd" not in {each["name"] for each in baseline(a, VMX)["features"]}
    with pytest.raises(UsageError, match=r"topics\[0\].verdict"):
        snap(VMX | {"topics": [topic | {"verdict": "x"}]})


def test_a_bit_no_longer_offered_is_shown() -> None:
    doc = diff(VMX, changed(VMX, "STEAL_TIME", offered=False))
    assert of(doc, "STEAL_TIME")["change"] == "changed"
    text = compare_text.diff_text(doc, Style())
    assert re.search(r"STEAL_TIME +5 +works +-> +works, not offered +changed", text)
    assert text.endswith("0 regressions, 0 improvements, 1 otherwise changed, 20 unchanged\n")


def test_require_is_the_gate() -> None:
    assert diff(SVM, PVM, "STEAL_TIME")["exit_code"] == 0, "other regressions are shown and do not count"
    doc = diff(SVM, PVM, "kvm_feature_pv_eoi", "steal-time", "PV_EOI")
    assert doc["required"] == ["PV_EOI", "STEAL_TIME"]
    assert doc["failed"] == [{"name": "PV_EOI", "why": "inert on b.json: PV_EOI is inert here"}]
    assert doc["exit_code"] == 1
    assert diff(PVM, PVM, "PV_EOI")["exit_code"] == 1, "unusable all along is not usable"
    served = diff(SVM, PVM, "PV_UNHALT")
    assert served["failed"] == [{"name": "PV_UNHALT", "why": "serviced on b.json: PV_UNHALT is serviced here"}]
    assert diff(OLD, OLD, "MIGRATION_CONTROL")["failed"] == [
        {"name": "MIGRATION_CONTROL", "why": "not probed on b.json"}
    ]  # fmt: skip
    assert diff(VMX, VMX, "kvm_hc_clock_pairing")["required"] == ["KVM_HC_CLOCK_PAIRING"]
    with pytest.raises(
        UsageError, match="--require: no paravirtual feature is called 'STEALTIME'; did you mean STEAL_T"
    ):
        diff(VMX, VMX, "STEALTIME")


# baseline ---------------------------------------------------------------------------------------------------------


def test_baseline_of_hardware_hosts(follows: Callable[[str, Any], Any]) -> None:
    doc = follows("baseline", baseline(VMX, SVM))
    assert doc["kvm"] == {"eax": OFFERED, "edx": 0}
    assert doc["with_vmm"] == {"eax": OFFERED | 0b111 << 15, "edx": 1}
    assert [each["name"] for each in doc["features"] if not each["in_baseline"]] == ["MMU_OP"]
    assert of(doc, "MSI_EXT_DEST_ID")["by"] == "vmm"
    assert of(doc, "MSI_EXT_DEST_ID")["duty"].startswith("move address bits")
    assert of(doc, "KVM_CPUID_SIGNATURE")["in_baseline"]
    assert of(doc, "KVM_CPUID_SIGNATURE")["by"] == ""
    assert [note for note in doc["notes"] if "hypercall instruction differs (vmcall, vmmcall)" in note]


def test_baseline_of_all(follows: Callable[[str, Any], Any]) -> None:
    doc = follows("baseline", baseline(VMX, SVM, PVM, OLD))
    left_out = {each["name"]: each["why"] for each in doc["features"] if not each["in_baseline"]}
    assert left_out == {
        "MMU_OP": "absent on 1.json: MMU_OP is absent here",
        "PV_EOI": "inert on 3.json: PV_EOI is inert here",
        "ASYNC_PF_INT": "absent on 4.json: ASYNC_PF_INT is absent here",
        "MIGRATION_CONTROL": "not probed on 4.json",
    }
    assert doc["kvm"]["eax"] == OFFERED & ~(1 << 6 | 1 << 14)
    assert doc["with_vmm"]["eax"] == doc["kvm"]["eax"] | 1 << 15 | 1 << 16
    assert of(doc, "PV_UNHALT")["states"] == ["works", "works", "serviced", "works"]
    assert any(note.startswith("serviced: PV_UNHALT, PV_SEND_IPI") for note in doc["notes"])
    assert any(note.startswith("ring 0 is native on some") for note in doc["notes"])
    assert baseline(VMX)["notes"] == []


def test_a_bit_that_kvm_lacks_somewhere_is_left_out() -> None:
    doc = baseline(VMX, changed(SVM, "STEAL_TIME", offered=False))
    assert of(doc, "STEAL_TIME")["why"] == "KVM does not offer the bit on 2.json"
    assert not doc["kvm"]["eax"] & 1 << 5


def test_bits_without_a_name_are_told() -> None:
    unnamed = copy.deepcopy(VMX)
    unnamed["host"]["pv_features"]["eax"] |= 1 << 30
    assert baseline(unnamed)["notes"] == ["all offer EAX 0x40000000, which pyvmm has no name for; it is left out"]
    assert baseline(unnamed, VMX)["notes"] == []


def test_baseline_gate() -> None:
    assert baseline(VMX, SVM, require=("PV_EOI",))["exit_code"] == 0
    doc = baseline(VMX, PVM, require=("STEAL_TIME", "PV_EOI"))
    assert (doc["exit_code"], [each["name"] for each in doc["failed"]]) == (1, ["PV_EOI"])
    assert baseline(OLD, require=("MIGRATION_CONTROL",))["failed"] == [
        {"name": "MIGRATION_CONTROL", "why": "not probed"}
    ]  # fmt: skip


# Text and Markdown ------------------------------------------------------------------------------------------------


def test_diff_text() -> None:
    text = compare_text.diff_text(diff(SVM, PVM, "PV_EOI"), Style())
    assert text.startswith("A a.json: Linux 6.12.1; svm; ring 0 is native\nB b.json: Linux 6.18.0; pvm;")
    assert re.search(r"^  hypercall +vmmcall +-> +none$", text, re.M)
    assert re.search(r"^  PV_EOI +6 +works +-> +inert +regression +PV_EOI is inert here$", text, re.M)
    assert "required: PV_EOI: inert on b.json" in text
    assert text.splitlines()[-1].startswith("5 regressions (PV_EOI, PV_UNHALT,")
    coloured = compare_text.diff_text(diff(SVM, PVM, "PV_EOI"), Style(True))
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == text


def test_baseline_text() -> None:
    text = compare_text.baseline_text(baseline(VMX, PVM, require=("STEAL_TIME",)), Style())
    assert "what KVM offers everywhere  EAX 0x01007ebb  EDX 0x00000000" in text
    assert re.search(r"^  PV_EOI +6 +inert on 2.json", text, re.M)
    assert re.search(r"^  PV_UNHALT +7 +works, serviced$", text, re.M)
    assert text.endswith("required: STEAL_TIME: all there\n")


HOSTILE = "evil|\n::error::x\x1b[2J<b>`@me"


@pytest.mark.parametrize("form", [compare_text.diff_text, compare_text.diff_markdown])
def test_text_of_a_document_cannot_break_out(form: Callable[..., str], follows: Callable[[str, Any], Any]) -> None:
    bad = changed(PVM, "PV_EOI", reason=HOSTILE)
    bad["features"].append(row("KVM_HC_CLOCK_PAIRING") | {"name": HOSTILE, "verdict": "broken"})
    bad["host"]["kernel"] = bad["host"]["text"] = bad["host"]["backend"] = HOSTILE
    bad["host"]["parameters"] = {HOSTILE: HOSTILE}
    doc = follows("diff", diff(VMX, bad))
    text = form(doc, Style()) if form is compare_text.diff_text else form(doc)
    assert "\x1b" not in text
    assert not re.search(r"^\s*::", text, re.M)
    if form is compare_text.diff_markdown:
        assert "<b>" not in text.replace("\\<", "")
        rows = [line for line in text.splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {4, 7}, "of three and of six cells"
    for name, why in compare_text.failures(doc):
        assert "\n" not in annotation("error", name, why)


def test_markdown_tables_hold() -> None:
    for text in (compare_text.diff_markdown(diff(SVM, PVM)), compare_text.baseline_markdown(baseline(VMX, SVM, PVM))):
        tables = [line for line in text.splitlines() if line.startswith("|")]
        counts = [len(re.findall(r"(?<!\\)\|", line)) for line in tables]
        widths = [len(list(group)) for _, group in itertools.groupby(counts)]
        assert len(widths) == 2, "each of the two tables has rows of one width"
    assert "| **regression** |" in compare_text.diff_markdown(diff(SVM, PVM))


@given(st.text(st.characters()))
def test_an_annotation_is_one_command(text: str) -> None:
    made = annotation("error", text, text)
    assert made.count("\n") == made.count("\r") == 0
    title = made.removeprefix("::error title=").partition("::")[0]
    assert "," not in title
    assert ":" not in title
    assert annotation("warning", "a: b", "50 %\nx") == "::warning title=a%3A b::50 %25 x"


# What is no document ----------------------------------------------------------------------------------------------


def spoiled(**changes: Any) -> dict[str, Any]:
    """VMX with values at dotted paths replaced; `...` removes the key."""
    made = copy.deepcopy(VMX)
    for path, value in changes.items():
        *parents, last = path.split("__")
        here: Any = made
        for key in parents:
            here = here[int(key) if key.isdigit() else key]
        if value is ...:
            del here[last]
        else:
            here[int(last) if last.isdigit() else last] = value
    return made


BAD_DOCUMENTS = {
    "list": ([], "the document is a list, and should be an object"),
    "number": (5, "the document is a whole number"),
    "null": (None, "the document is null"),
    "nothing": ({}, "not a document of `pyvmm probe --json`"),
    "doctor": ({"schema": 1, "usable": True}, "not a document of `pyvmm probe --json` but of `pyvmm doctor`"),
    "run": ({"schema": 1, "payload": "x"}, "but of `pyvmm run`"),
    "diff": (diff(VMX, VMX) | {"features": []}, "it has no options"),
    "schema": (spoiled(schema=2), "schema 2, and this pyvmm reads schema 1"),
    "schema text": (spoiled(schema="1"), "schema is text, and should be a whole number"),
    "schema true": (spoiled(schema=True), "schema is true or false"),
    "no schema": (spoiled(schema=...), "it has no schema"),
    "features": (spoiled(features={}), "features is an object, and should be a list"),
    "row": (spoiled(features=[1]), "features[0] is a whole number"),
    "name": (spoiled(features__0__name=...), "it has no features[0].name"),
    "verdict": (spoiled(features__0__verdict="fine"), "features[0].verdict is 'fine', which this pyvmm does not know"),
    "verdict list": (spoiled(features__0__verdict=[]), "features[0].verdict is a list"),
    "bit": (spoiled(features__0__bit=32), "features[0].bit is 32"),
    "bit float": (spoiled(features__0__bit=1.5), "features[0].bit is a number, and should be a whole number or null"),
    "register": (spoiled(features__0__register="ecx"), "features[0].register is 'ecx'"),
    "offered": (spoiled(features__0__offered=1), "features[0].offered is a whole number"),
    "refusals": (spoiled(features__0__refusals=[{}]), "it has no features[0].refusals[0].kind"),
    "host": (spoiled(host="x"), "host is text"),
    "hypercall": (spoiled(host__hypercall=...), "it has no host.hypercall"),
    "eax": (spoiled(host__pv_features__eax=1 << 32), "host.pv_features.eax does not fit in 32 bits"),
    "twice": (spoiled(features=[row("PV_EOI"), row("PV_EOI")]), "features[1] is PV_EOI a second time"),
}


@pytest.mark.parametrize("case", BAD_DOCUMENTS)
def test_a_wrong_document_names_the_file_and_the_place(case: str) -> None:
    doc, message = BAD_DOCUMENTS[case]
    with pytest.raises(UsageError) as caught:
        snap(doc, "some.json")
    first = str(caught.value).splitlines()[0]
    assert first.startswith("some.json: ")
    assert message in first


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner)
                    | st.dictionaries(st.text() | st.sampled_from(sorted(VMX)), inner), max_leaves=20)  # fmt: skip


@given(
    JSON, st.sampled_from(["host", "options", "features", "features__0", "features__0__refusals", "host__pv_features"])
)
def test_any_json_anywhere_is_refused_or_read(value: Any, place: str) -> None:
    try:
        found = read(spoiled(**{place: value}), "f")
    except UsageError:
        pass
    else:
        compare_text.diff_markdown(compare.diff(found, snap(VMX)))
        compare_text.baseline_text(common.baseline([found, snap(VMX)]), Style())


# The commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, doc in (("vmx", VMX), ("svm", SVM), ("pvm", PVM), ("old", OLD)):
        Path(f"{name}.json").write_text(json.dumps(doc), encoding="utf-8")
    return tmp_path


@pytest.fixture
def pyvmm(files: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(arguments)
        return status, *capsys.readouterr()

    return run


def test_commands_and_forms(pyvmm: Callable[..., tuple[int, str, str]], follows: Callable[[str, Any], Any]) -> None:
    assert pyvmm("diff", "vmx.json", "vmx.json")[0] == 0
    assert pyvmm("diff", "vmx.json", "old.json")[0] == 1
    assert pyvmm("diff", "old.json", "vmx.json")[0] == 0
    assert pyvmm("diff", "vmx.json", "old.json", "--require", "STEAL_TIME", "PV_EOI")[0] == 0
    assert pyvmm("baseline", "vmx.json", "pvm.json")[0] == 0
    assert pyvmm("baseline", "vmx.json", "pvm.json", "--require", "PV_EOI")[0] == 1
    for command, names in (("diff", ("vmx.json", "pvm.json")), ("baseline", ("vmx.json", "svm.json", "pvm.json"))):
        _, out, err = pyvmm(command, *names, "--json")
        assert follows(command, out)["schema"] == 1
        assert err == ""
        assert pyvmm(command, *names, "--markdown")[1].startswith("### ")
        assert pyvmm(command, *names)[1].count("Linux 6.12.1") == len(names) - 1


def test_annotations(pyvmm: Callable[..., tuple[int, str, str]]) -> None:
    _, _, err = pyvmm("diff", "vmx.json", "old.json", "--ci")
    assert err.splitlines() == [
        "::error title=KVM feature ASYNC_PF_INT::works -> absent on old.json: ASYNC_PF_INT is absent here",
        "::error title=KVM feature MIGRATION_CONTROL::works -> not probed on old.json",
    ]
    assert pyvmm("diff", "old.json", "vmx.json", "--ci")[2] == ""
    _, _, err = pyvmm("baseline", "vmx.json", "pvm.json", "--ci", "--require", "PV_EOI")
    assert err.startswith("::error title=KVM feature PV_EOI::inert on pvm.json")


def test_standard_input(pyvmm: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        buffer = io.BytesIO(json.dumps(OLD).encode())

    monkeypatch.setattr(sys, "stdin", Input)
    status, out, _ = pyvmm("diff", "vmx.json", "-")
    assert status == 1
    assert "B standard input: Linux 5.4.0" in out
    assert "can be read once only" in pyvmm("diff", "-", "-")[2]


BAD_FILES = {
    "missing": (None, "No such file or directory"),
    "empty": (b"", "not JSON: it is empty"),
    "text": (b"hello\nworld", "not JSON: line 1 column 1"),
    "cut": (json.dumps(VMX).encode()[:-9], "not JSON: line 1 column"),
    "latin": (b'{"a": "\xe9"}', "not UTF-8 text at byte 7"),
    "deep": (b"[" * 100_000, "no document of pyvmm's: maximum recursion"),
    "digits": (b"1" * 10_000, "no document of pyvmm's: Exceeds the limit"),
    "two": (b"{} {}", "line 1 column 4"),
    "doctor": (b'{"schema": 1, "usable": false}', "but of `pyvmm doctor`"),
    "schema": (json.dumps(spoiled(schema=7)).encode(), "schema 7"),
}


@pytest.mark.parametrize("case", BAD_FILES)
@pytest.mark.parametrize("command", ["diff", "baseline"])
def test_a_bad_file_is_one_message(
    pyvmm: Callable[..., tuple[int, str, str]], files: Path, command: str, case: str
) -> None:
    data, message = BAD_FILES[case]
    if data is not None:
        (files / "bad.json").write_bytes(data)
    for names in (("vmx.json", "bad.json"), ("bad.json", "vmx.json")):
        status, out, err = pyvmm(command, *names)
        assert (status, out) == (2, "")
        first, *more = err.splitlines()
        assert "bad.json" in first
        assert message in first
        assert all(line.startswith("  try: ") for line in more)


def test_a_directory_a_huge_file_and_one_without_end(
    pyvmm: Callable[..., tuple[int, str, str]], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pyvmm("diff", "vmx.json", ".") == (2, "", "pyvmm: reading '.': Is a directory (EISDIR)\n")
    monkeypatch.setattr("vmm.cli.files.MAX_JSON", 1 << 20)
    (files / "huge.json").write_bytes(b" " * ((1 << 20) + 1))
    for name in ("huge.json", "/dev/zero"):
        status, out, err = pyvmm("baseline", name)
        assert (status, out) == (2, "")
        assert f"{name}: too large for a document of pyvmm's, which has at most 1 MiB" in err
    assert "reading 'a\\x00b'" in pyvmm("diff", "vmx.json", "a\0b")[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diff", "vmx.json"], "the following arguments are required: B.json"),
        (["baseline"], "the following arguments are required"),
        (["diff", "vmx.json", "svm.json", "--require", "STEALTIME"], "did you mean STEAL_TIME"),
        (["diff", "vmx.json", "svm.json", "--json", "--markdown"], "not allowed with"),
    ],
)
def test_bad_arguments(pyvmm: Callable[..., tuple[int, str, str]], arguments: list[str], message: str) -> None:
    status, out, err = pyvmm(*arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_it_needs_neither_kvm_nor_the_binding(files: Path) -> None:
    program = (
        "import sys; from vmm import cli; status = cli.main(['diff', 'vmx.json', 'pvm.json', '--markdown']); "
        "floors = ('vmm.kvm', 'vmm.machine', 'vmm.asm', 'vmm.observe'); "
        "assert not [name for name in sys.modules if name.startswith(floors)]; "
        "sys.exit(status + 40)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 41, done.stderr
