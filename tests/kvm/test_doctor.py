# SPDX-License-Identifier: GPL-2.0-or-later
"""`doctor` on the device: what it says of ring 0 and of hypercalls agrees with KVM, ends in time, and repeats."""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import pytest

from tests.left_behind import files_before, open_files
from vmm.abi import caps, pv
from vmm.cli import doctor
from vmm.errors import HostError
from vmm.host import hypercall_insn as hypercall_probe
from vmm.host import measured as host
from vmm.host import ring0
from vmm.kvm.system import Kvm
from vmm.report import doctor as report

HANG = b"\xeb\xfe"  # jmp to itself


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    with Kvm.open() as opened:
        yield opened


def run(*arguments: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    out = io.StringIO()
    return doctor.run(parser.parse_args(arguments), out), out.getvalue()


def test_ring0_kind_agrees_with_the_statistics(kvm: Kvm) -> None:
    """A loop twice as long: an emulated ring 0 emulates twice as much, a native one still next to nothing."""
    measured = ring0.measure(kvm)
    assert measured.kind in ("native", "emulated")
    if measured.emulated is None:
        pytest.skip("this KVM has no statistic insn_emulation to compare with")
    with ring0.Machine(kvm=kvm) as machine:
        ring0._count(machine)  # tables and a first run
        with machine.cpus[0].vcpu.get_stats() as stats:
            before = stats[ring0.STATISTIC]
            assert ring0._run(machine, 2 * ring0.COUNTED_TURNS, 0) is not None
            rise = stats[ring0.STATISTIC] - before
    if measured.kind == "emulated":
        assert rise == pytest.approx(ring0.instructions(2 * ring0.COUNTED_TURNS), rel=0.02)
    else:
        assert rise <= 40
    assert measured.slowdown is not None
    assert (measured.slowdown > ring0.EMULATED_SLOWDOWN) == (measured.kind == "emulated")


def test_the_same_verdicts_twice(kvm: Kvm) -> None:
    first, second = host.measure(kvm), host.measure(kvm)
    assert first.ring0.kind == second.ring0.kind
    assert first.hypercall == second.hypercall
    assert first.capabilities == second.capabilities
    assert first.pv == second.pv


def test_every_hypercall_attempt_ends_with_an_outcome(kvm: Kvm) -> None:
    begin = time.monotonic()
    measured = hypercall_probe.measure(kvm)
    assert time.monotonic() - begin < 2 * hypercall_probe.TIME_LIMIT + 1
    assert measured.attempts.keys() == hypercall_probe.HYPERCALL_INSTRUCTIONS.keys()
    for attempt in measured.attempts.values():
        assert attempt.outcome != "failed", attempt.evidence
    if measured.quirk_off:
        assert not any("rewrote" in attempt.evidence for attempt in measured.attempts.values())


def test_without_the_quirk_switched_off_it_ends_too(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a software-backed host KVM then re-executes for ever; on hardware it rewrites the other vendor's."""
    monkeypatch.setattr(hypercall_probe, "TIME_LIMIT", 0.2)
    begin = time.monotonic()
    seen = [hypercall_probe._try(kvm, code, 0) for code in hypercall_probe.HYPERCALL_INSTRUCTIONS.values()]
    assert time.monotonic() - begin < 2 * 0.2 + 1
    outcomes = {hypercall_probe.classify(each).outcome for each in seen}
    assert outcomes <= {"delivered", "rewritten", "hangs", "elsewhere", "#UD"}


def test_a_guest_that_hangs_is_a_hang(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercall_probe, "TIME_LIMIT", 0.1)
    monkeypatch.setattr(hypercall_probe, "HYPERCALL_INSTRUCTIONS", {"vmcall": HANG, "vmmcall": b"\x0f\x0b"})  # ud2
    measured = hypercall_probe.measure(kvm)
    assert {name: attempt.outcome for name, attempt in measured.attempts.items()} == {
        "vmcall": "hangs",
        "vmmcall": "#UD",
    }


def test_a_guest_that_answers_itself_is_not_taken_for_kvm(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kvm.check_extension("BINARY_STATS_FD"):
        pytest.skip("only the statistics can tell")
    monkeypatch.setattr(
        hypercall_probe, "HYPERCALL_INSTRUCTIONS", {"vmcall": b"\x31\xc0", "vmmcall": b"\x90"}
    )  # xor eax, eax; nop
    assert [each.outcome for each in hypercall_probe.measure(kvm).attempts.values()] == ["elsewhere"] * 2


def test_a_ring_that_cannot_run_our_loop_is_no_usable_kvm(kvm: Kvm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring0, "program", lambda turns: HANG)
    monkeypatch.setattr(ring0, "TIME_LIMIT", 0.1)
    with pytest.raises(HostError, match="does not run to its end"):
        ring0.measure(kvm)


def test_capabilities_and_features_are_what_kvm_says(kvm: Kvm) -> None:
    found = host.measure(kvm)
    assert found.capabilities["USER_MEMORY"] == 1
    assert found.capabilities["NR_VCPUS"] == kvm.check_extension("NR_VCPUS")
    assert found.capabilities.keys() == {row.name for row in caps.CAPS}
    leaf = next((entry for entry in kvm.get_supported_cpuid() if entry.function == 0x40000001), None)
    assert leaf is not None
    assert (found.pv.eax, found.pv.edx) == (leaf.eax, leaf.edx)
    assert found.pv.features.keys() == {row.name for row in pv.FEATURES}


def test_measuring_leaves_nothing_open(kvm: Kvm) -> None:
    host.measure(kvm)
    before = files_before()
    host.measure(kvm)
    assert open_files() == before


def test_command_says_usable() -> None:
    status, printed = run("--json")
    doc = json.loads(printed)
    schema = json.loads((Path(report.__file__).parent / "schemas" / "doctor.schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(doc, schema, cls=jsonschema.Draft202012Validator)
    assert status == 0
    assert doc["usable"] is True
    status, printed = run()
    assert status == 0
    assert printed.startswith(f"KVM is usable: {doc['reason']}\n")
