# SPDX-License-Identifier: GPL-2.0-or-later
"""Which proofs are meant, in which order, and that one that fails costs no other. Host halves here are made up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vmm.abi import deviations, pv
from vmm.errors import HostError, MissingCapability, MissingCpus, UsageError
from vmm.machine.x86.cpuid import CpuidModel
from vmm.payload.catalog import Payload, find, shipped
from vmm.payload.half import HostHalf
from vmm.payload.header import Header
from vmm.payload.proof import lab, probe, prove
from vmm.payload.proof.probe import Probe, Target, select, targets, topics
from vmm.payload.proof.prove import Row
from vmm.payload.proof.verdict import Deviation, Finding, GuestBroke, Refusal, Unproven, Verdict

WORKS = Finding(Verdict.WORKS, summary="seen")


def raises(error: BaseException) -> Callable[[Any], Any]:
    def half(lab: Any) -> Any:
        raise error

    return half


@pytest.fixture
def lessons(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`lessons(a=(("STEAL_TIME",), prove, refusals))`: the only proofs there are."""
    offered = CpuidModel()
    offered.set_kvm_signature()
    offered.enable("STEAL_TIME", "ASYNC_PF")
    monkeypatch.setattr(lab, "supported", lambda: offered)
    monkeypatch.setattr(probe, "supported", lambda: offered)
    monkeypatch.setattr(prove, "check_needs", lambda payload: None)

    installed: dict[str, Any] = {}

    def install(group: str = "pv", **halves: Any) -> None:
        found = {}
        for name, (features, *functions) in halves.items():
            half = HostHalf(prove=functions[0], refusals=functions[1] if len(functions) > 1 else None)
            header = Header(proves=features)
            payload = SimpleNamespace(name=name, host_half=lambda half=half: half, group=group, header=header)
            found |= dict.fromkeys(features, payload)
        by_bit = dict(sorted(found.items(), key=lambda item: pv.order(item[0])))
        installed[group] = by_bit if group == "pv" else found
        monkeypatch.setattr(probe, "proofs", lambda failed=None, group="pv": installed.get(group, {}))

    return install


@pytest.fixture
def some(lessons: Callable[..., None]) -> None:
    def works(lab: Any) -> Finding:
        return WORKS

    lessons(
        apf=(("ASYNC_PF", "ASYNC_PF_INT"), works),
        steal_time=(("STEAL_TIME",), works),
        pairing=(("KVM_HC_CLOCK_PAIRING",), works),
    )


def test_rows_come_in_the_order_of_bits_each_payload_once(lessons: Callable[..., None]) -> None:
    ran: list[str] = []
    started: list[tuple[str, int, int]] = []

    def half(name: str) -> Callable[[Any], Finding]:
        return lambda lab: ran.append(name) or WORKS

    lessons(
        apf=(("ASYNC_PF_INT", "ASYNC_PF"), half("apf")),
        steal_time=(("STEAL_TIME",), half("steal")),
        pairing=(("KVM_HC_CLOCK_PAIRING",), half("pairing")),
    )
    chosen = select(["steal-time", "clock_pairing", "apf"])
    found = Probe(chosen, on_start=lambda payload, done, total: started.append((payload.name, done, total)))
    rows = list(found)
    assert [row.name for row in rows] == ["ASYNC_PF", "STEAL_TIME", "ASYNC_PF_INT", "KVM_HC_CLOCK_PAIRING"]
    assert [row.bit for row in rows] == [4, 5, 14, None]
    assert [row.offered for row in rows[:3]] == [True, True, False]
    assert ran == ["apf", "steal", "pairing"]
    assert started == [("apf", 0, 4), ("steal_time", 1, 4), ("pairing", 3, 4)]
    assert set(found.done) == {row.name for row in rows}


@pytest.mark.usefixtures("some")
def test_without_names_every_feature_has_a_row() -> None:
    names = [target.name for target in select([])]
    assert {row.name for row in pv.FEATURES} <= set(names)
    assert names.index("CLOCKSOURCE") < names.index("HINTS_REALTIME") < names.index("KVM_HC_CLOCK_PAIRING")
    rows = {row.name: row for row in Probe(targets())}
    assert rows["PV_EOI"].verdict is Verdict.UNPROVEN
    assert rows["PV_EOI"].outcome == "skip"
    assert "no payload" in rows["PV_EOI"].finding.reason


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["KVM_FEATURE_STEAL_TIME"], ["STEAL_TIME"]),
        (["steal_time", "STEAL_TIME"], ["STEAL_TIME"]),
        (["apf"], ["ASYNC_PF", "ASYNC_PF_INT"]),
        (["async_pf"], ["ASYNC_PF"]),
        (["KVM_HC_CLOCK_PAIRING"], ["KVM_HC_CLOCK_PAIRING"]),
        (["clock-pairing"], ["KVM_HC_CLOCK_PAIRING"]),
        (["realtime", "pv_eoi"], ["PV_EOI", "HINTS_REALTIME"]),
    ],
)
def test_names(words: list[str], names: list[str]) -> None:
    assert [target.name for target in select(words)] == names


@pytest.mark.usefixtures("some")
@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("STEALTIME", "did you mean STEAL_TIME"),
        ("KVM_FEATURE_STEELTIME", "did you mean STEAL_TIME"),
        ("", "is called ''"),
        ("hello", "proves no feature; `pyvmm run hello`"),
        ("../etc/passwd", "is called"),
    ],
)
def test_unknown_names(word: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        select(["STEAL_TIME", word])


@pytest.mark.parametrize("error", [ZeroDivisionError("by nought"), HostError("the device is gone"), KeyError("slot")])
def test_an_error_of_ours_costs_no_other_row(lessons: Callable[..., None], error: Exception) -> None:
    lessons(apf=(("ASYNC_PF", "ASYNC_PF_INT"), raises(error)), steal_time=(("STEAL_TIME",), lambda lab: WORKS))
    rows = {row.name: row for row in Probe(select(["apf", "steal_time"]))}
    assert rows["STEAL_TIME"].outcome == "pass"
    for name in ("ASYNC_PF", "ASYNC_PF_INT"):
        assert rows[name].outcome == "error"
        assert rows[name].verdict is Verdict.UNPROVEN
        assert rows[name].finding.reason.startswith("pyvmm error: ")
        assert str(error) in rows[name].finding.reason
        assert "Traceback" in rows[name].error


def test_a_proof_finds_what_its_header_says_and_nothing_else(lessons: Callable[..., None]) -> None:
    lessons(apf=(("ASYNC_PF", "ASYNC_PF_INT"), lambda lab: {"ASYNC_PF": WORKS}))
    rows = list(Probe(select(["ASYNC_PF"])))
    assert {row.outcome for row in rows} == {"error"}
    assert "its header proves ['ASYNC_PF', 'ASYNC_PF_INT']" in rows[0].finding.reason


def test_what_two_prove_is_the_fault_of_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(name: str) -> Payload:
        found = find(name)
        return replace(found, header=replace(found.header, proves=("STEAL_TIME",))) if name == "pv_eoi" else found

    monkeypatch.setattr(prove, "find", twice)
    failed: dict[str, Exception] = {}
    assert prove.proofs(failed)["STEAL_TIME"].name == "pv_eoi"
    assert str(failed["steal_time"]).endswith("steal_time.asm: proves: pv_eoi proves STEAL_TIME, too")


def test_a_host_half_that_cannot_be_imported_is_a_row(monkeypatch: pytest.MonkeyPatch, some: None) -> None:
    def broken(failed: dict[str, Exception]) -> dict[str, Any]:
        failed["typo"] = SyntaxError("invalid syntax")
        return {}

    monkeypatch.setattr(probe, "proofs", broken)
    row = list(Probe(targets()))[-1]
    assert (row.name, row.outcome, row.bit) == ("typo", "error", None)
    assert row.finding.reason == "pyvmm error: SyntaxError: invalid syntax"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (Unproven("no second CPU"), Verdict.UNPROVEN),
        (MissingCapability("lacks KVM_CAP_X"), Verdict.UNPROVEN),
        (GuestBroke("triple fault"), Verdict.BROKEN),
    ],
)
def test_what_a_proof_says_of_the_host_is_a_verdict(
    lessons: Callable[..., None], error: Exception, verdict: Verdict
) -> None:
    lessons(steal_time=(("STEAL_TIME",), raises(error)))
    (row,) = Probe(select(["STEAL_TIME"]))
    assert (row.verdict, row.finding.reason, row.error) == (verdict, str(error), "")


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(Unproven("no permission"), Verdict.WORKS), (GuestBroke("triple fault"), Verdict.BROKEN)],
)
def test_what_happens_while_asking_for_refusals(
    lessons: Callable[..., None], error: Exception, verdict: Verdict
) -> None:
    lessons(steal_time=(("STEAL_TIME",), lambda lab: WORKS, raises(error)))
    (row,) = Probe(select(["STEAL_TIME"]))
    assert (row.verdict, row.refusals, row.error) == (verdict, (), "")
    (row,) = Probe(select(["STEAL_TIME"]), refusals=False)
    assert row.verdict is Verdict.WORKS


WRONG = Refusal("enforced", "WRMSR", "#GP", "accepted")


@pytest.mark.parametrize("verdict", [Verdict.WORKS, Verdict.SERVICED, Verdict.INERT, Verdict.ADVERTISED])
def test_a_wrong_refusal_is_a_deviation(lessons: Callable[..., None], verdict: Verdict) -> None:
    detail = Deviation("the second word", "0", "1")
    finding = Finding(verdict, summary="seen", deviations=(detail,))
    right = Refusal("masked", "WRMSR", "accepted", "accepted")
    lessons(steal_time=(("STEAL_TIME",), lambda lab: finding, lambda lab: [right, WRONG]))
    (row,) = Probe(select(["STEAL_TIME"]))
    assert (row.verdict, row.outcome) == (verdict, verdict.outcome)
    assert row.deviations == (detail, Deviation("enforced: WRMSR", "#GP", "accepted"))
    assert row.finding.line == "seen; 2 deviations"
    (row,) = Probe(select(["STEAL_TIME"]), strict=True)
    assert (row.verdict, row.outcome) == (verdict, "fail")
    lessons(steal_time=(("STEAL_TIME",), lambda lab: WORKS, lambda lab: [right]))
    (row,) = Probe(select(["STEAL_TIME"]), strict=True)
    assert (row.deviations, row.outcome, row.finding.line) == ((), "pass", "seen")


def test_what_must_work_under_enforcement_and_does_not_is_broken(lessons: Callable[..., None]) -> None:
    control = Refusal("control", "WRMSR", "accepted", "#GP")
    lessons(steal_time=(("STEAL_TIME",), lambda lab: WORKS, lambda lab: [WRONG, control]))
    (row,) = Probe(select(["STEAL_TIME"]))
    assert (row.verdict, row.outcome, row.deviations) == (Verdict.BROKEN, "fail", ())
    assert row.finding.reason == "WRMSR: #GP, and the ABI says accepted (and 1 more)"


def test_what_is_known_of_a_deviation_is_told_and_decides_nothing(
    lessons: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = deviations.Known("STEAL_TIME", "enforced: WRMSR", "accepted", "Linux before 9.9", "KVM: refuse", "f()")
    monkeypatch.setattr(deviations, "KNOWN", (row, row._replace(observed="lost", kernels="all")))
    lessons(steal_time=(("STEAL_TIME",), lambda lab: WORKS, lambda lab: [WRONG]))
    (found,) = next(iter(Probe(select(["STEAL_TIME"])))).deviations
    assert found.line == (
        'enforced: WRMSR: accepted, and the ABI says #GP (Linux before 9.9; changed by "KVM: refuse")'
    )  # fmt: skip
    assert found == Deviation("enforced: WRMSR", "#GP", "accepted", "Linux before 9.9", "KVM: refuse")
    monkeypatch.setattr(deviations, "KNOWN", (row._replace(feature="PV_EOI"), row._replace(observed="lost")))
    (found,) = next(iter(Probe(select(["STEAL_TIME"])))).deviations
    assert (found.kernels, found.commit) == ("", "")


def test_the_outcome_of_a_run_tells_deviations_and_strict_makes_them_fail() -> None:
    finding = Finding(Verdict.WORKS, summary="seen", deviations=(Deviation("enforced: WRMSR", "#GP", "accepted"),))
    row = prove.Row("STEAL_TIME", 5, "eax", True, finding, (WRONG,), "steal_time", 0.1)
    plain = Row("PV_EOI", 6, "eax", True, Finding(Verdict.UNPROVEN, "no"), (), "steal_time", 0.1)
    payload: Any = SimpleNamespace(name="steal_time")
    outcome = prove.outcome_of(payload, [row])
    assert (outcome.outcome, outcome.reason) == ("pass", "STEAL_TIME works: seen; 1 deviation")
    assert outcome.evidence["STEAL_TIME.deviation.1"] == "enforced: WRMSR: accepted, and the ABI says #GP"
    outcome = prove.outcome_of(payload, [plain, replace(row, strict=True)])
    assert (outcome.outcome, outcome.exit_code) == ("fail", 1)
    assert outcome.reason == "STEAL_TIME works and deviates: enforced: WRMSR: accepted, and the ABI says #GP"


def test_known_deviations_are_those_of_features_and_of_nothing_that_holds() -> None:
    for row in deviations.KNOWN:
        assert any(row.feature == target.name for target in [*targets(), *topics()]), row
        assert all((row.what, row.observed, row.kernels, row.source)), row
    keys = [row[:3] for row in deviations.KNOWN]
    assert len(set(keys)) == len(keys)


def test_what_came_before_an_interruption_is_kept(lessons: Callable[..., None], host_facts: Any) -> None:
    lessons(
        apf=(("ASYNC_PF", "ASYNC_PF_INT"), lambda lab: WORKS),
        steal_time=(("STEAL_TIME",), raises(KeyboardInterrupt())),
    )
    found = Probe(select(["apf", "steal_time"]))
    seen = []
    with pytest.raises(KeyboardInterrupt):
        seen += [row.name for row in found]
    table = found.table(host_facts, interrupted=True)
    assert [row.name for row in table.rows] == ["ASYNC_PF", "ASYNC_PF_INT"]
    assert table.missing == ("STEAL_TIME",)
    assert table.exit_code == 130


def test_an_interruption_in_disguise_is_one(lessons: Callable[..., None]) -> None:
    class Disguise:
        def __set_name__(self, owner: type, name: str) -> None:
            raise KeyboardInterrupt

    def half(lab: Any) -> Finding:
        type("Made", (), {"attribute": Disguise()})
        return WORKS

    lessons(steal_time=(("STEAL_TIME",), half))
    with pytest.raises(KeyboardInterrupt):
        list(Probe(select(["STEAL_TIME"])))


def test_a_target_needs_no_payload() -> None:
    assert Target("X").payload is None


@pytest.mark.usefixtures("some")
def test_topics_come_after_the_features_and_only_when_asked_for(lessons: Callable[..., None]) -> None:
    lessons("api", irqfds=(("irqfd", "steal"), lambda lab: WORKS))
    assert not any(target.group == "api" for target in select([]))
    chosen = select([], api=True)
    assert [target.name for target in chosen if target.group == "api"] == ["irqfd", "steal"]
    assert [target.group for target in chosen] == sorted((target.group for target in chosen), reverse=True)
    chosen = select(["irqfds", "STEAL_TIME"], api=True)
    rows = list(Probe(chosen))
    assert [(row.name, row.topic, row.bit) for row in rows] == [
        ("STEAL_TIME", False, 5),
        ("irqfd", True, None),
        ("steal", True, None),
    ]


def test_without_api_a_topic_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "shipped", lambda: {"irqfd": Path("api/irqfd.asm")})
    with pytest.raises(UsageError, match="pyvmm probe --api irqfd"):
        select(["irqfd"])


@pytest.mark.parametrize(
    ("group", "error", "verdict"),
    [
        ("api", MissingCapability("lacks KVM_CAP_IRQFD (32)"), Verdict.ABSENT),
        ("api", MissingCpus("needs 2 host CPUs"), Verdict.UNPROVEN),
        ("pv", MissingCapability("lacks KVM_CAP_IRQFD (32)"), Verdict.UNPROVEN),
    ],
)
def test_a_topic_that_needs_what_is_not_there_is_absent(
    lessons: Callable[..., None], monkeypatch: pytest.MonkeyPatch, group: str, error: Exception, verdict: Verdict
) -> None:
    lessons(group, irqfd=(("irqfd",), lambda lab: WORKS))
    monkeypatch.setattr(prove, "check_needs", raises(error))
    (row,) = Probe(select(["irqfd"], api=True))
    assert (row.verdict, row.finding.reason, row.outcome) == (verdict, str(error), "skip")


def test_an_error_of_ours_in_a_topic_is_one_row(lessons: Callable[..., None]) -> None:
    lessons("api", irqfd=(("irqfd", "resample"), raises(KeyError("x"))))
    rows = list(Probe(select(["irqfd"], api=True)))
    assert [(row.name, row.topic, row.outcome) for row in rows] == [
        ("irqfd", True, "error"),
        ("resample", True, "error"),
    ]


def test_a_topic_has_no_bit_whatever_it_is_called() -> None:
    row = prove.bit_of("steal_time", "pv")
    assert row is not None
    assert row.name == "STEAL_TIME"
    assert prove.bit_of("steal_time", "api") is None


def test_no_two_payloads_prove_a_row_of_the_same_name() -> None:
    """A word on the command line finds one row, whatever its case."""
    found = [name.upper() for path in shipped().values() for name in find(path.stem).header.proves]
    assert len(found) == len(set(found)), sorted({name for name in found if found.count(name) > 1})
