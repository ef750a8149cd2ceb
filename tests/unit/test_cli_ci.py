# SPDX-License-Identifier: GPL-2.0-or-later
"""`--ci` of doctor and probe: annotations on standard error, 77 where KVM cannot be used, 99 where it must be."""

from __future__ import annotations

import contextlib
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmm import cli
from vmm.errors import HostError, KvmCallError
from vmm.host import measured as host
from vmm.host import unusable
from vmm.host.measured import HostFacts
from vmm.host.node import Node
from vmm.kvm.plain import NotPlain, PlainVm
from vmm.kvm.system import Kvm
from vmm.payload.proof import probe
from vmm.payload.proof.prove import Row
from vmm.payload.proof.verdict import Finding, Verdict

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pyvmm(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.delenv("PYVMM_REQUIRE_KVM", raising=False)

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(arguments)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def no_kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cls: Any, device: str = "") -> Any:
        raise HostError("opening /dev/kvm: it is 50 % open,\nalmost", "a key")

    monkeypatch.setattr(Kvm, "open", classmethod(refuse))


@pytest.mark.usefixtures("no_kvm")
@pytest.mark.parametrize("command", ["doctor", "probe"])
@pytest.mark.parametrize(
    ("required", "status", "level"), [("", 77, "warning"), ("0", 77, "warning"), ("1", 99, "error")]
)
def test_without_kvm(
    pyvmm: Run, monkeypatch: pytest.MonkeyPatch, command: str, required: str, status: int, level: str
) -> None:
    monkeypatch.setenv("PYVMM_REQUIRE_KVM", required)
    got, _, err = pyvmm(command, "--ci")
    assert got == status
    (line,) = err.splitlines()
    assert line.startswith(f"::{level} title=KVM cannot be used here::opening /dev/kvm: it is 50 %25 open, almost")
    assert "; try: " in line


@pytest.mark.usefixtures("no_kvm")
def test_tap_has_an_empty_plan(pyvmm: Run) -> None:
    status, out, _ = pyvmm("probe", "--ci", "--tap")
    assert status == 77
    assert out == "TAP version 14\n1..0 # SKIP opening /dev/kvm: it is 50 % open, almost\n"


@pytest.mark.usefixtures("no_kvm")
def test_without_ci_it_is_99_and_no_annotation(pyvmm: Run) -> None:
    status, _, err = pyvmm("doctor")
    assert (status, err) == (99, "")
    status, _, err = pyvmm("probe")
    assert status == 99
    assert "::" not in err


def row(name: str, finding: Finding, **more: Any) -> Row:
    return Row(name, 5, "eax", True, finding, (), name.lower(), 0.1, **more)


ROWS = (
    row("CLOCKSOURCE", Finding(Verdict.WORKS)),
    row("PV_EOI", Finding(Verdict.INERT, "never shows")),
    row("STEAL_TIME", Finding(Verdict.BROKEN, "it went back\n::error::x")),
    row("POLL_CONTROL", Finding(Verdict.UNPROVEN, "pyvmm error: KeyError"), error="Traceback ..."),
)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch, host_facts: HostFacts) -> None:
    """A probe that finds ROWS."""
    monkeypatch.setattr(Kvm, "open", classmethod(lambda cls: contextlib.nullcontext()))
    monkeypatch.setattr(host, "measure", lambda kvm: host_facts)
    monkeypatch.setattr(probe.Probe, "__iter__", lambda self: iter(ROWS))

    def table(self: Any, facts: HostFacts, *, interrupted: bool = False) -> probe.Table:
        return probe.Table(facts, tuple(each.name for each in ROWS), ROWS, 0.5, self.options, interrupted=interrupted)

    monkeypatch.setattr(probe.Probe, "table", table)


@pytest.mark.usefixtures("rows")
def test_broken_is_an_annotation(pyvmm: Run) -> None:
    _, out, err = pyvmm("probe", "--ci", "--markdown")
    assert out.startswith("### KVM")
    assert err.splitlines() == [
        "::error title=KVM feature STEAL_TIME is broken::it went back ::error::x",
        "::error title=pyvmm failed at POLL_CONTROL::pyvmm error: KeyError",
    ]
    assert pyvmm("probe", "--markdown")[2] == ""


@pytest.mark.usefixtures("rows")
def test_save_is_the_document(pyvmm: Run, tmp_path: Path, follows: Callable[[str, Any], Any]) -> None:
    file = tmp_path / "probe.json"
    pyvmm("probe", "--save", str(file))
    saved = follows("probe", file.read_text(encoding="utf-8"))
    assert saved == json.loads(pyvmm("probe", "--json")[1])
    status, _, err = pyvmm("probe", "--save", str(tmp_path))
    assert status == 2
    assert "Is a directory" in err
    assert pyvmm("diff", str(file), str(file))[0] == 0


@pytest.mark.parametrize("command", [("run", "hello"), ("probe", "STEAL_TIME"), ("cpuid",), ("bench",)])
@pytest.mark.parametrize(("mode", "group"), [("crw-rw----", "kvm"), ("crw-------", "root")])
def test_every_command_gives_doctors_advice(
    pyvmm: Run, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], mode: str, group: str
) -> None:
    def refuse(cls: Any, device: str = "") -> Any:
        raise KvmCallError("open", errno.EACCES, "opening /dev/kvm")

    node = Node("/dev/kvm", "character device", mode, "root", group, (10, 232), "no")

    def not_in_one_call(*_: object) -> None:
        raise NotPlain

    monkeypatch.setattr(Kvm, "open", classmethod(refuse))
    monkeypatch.setattr(PlainVm, "__init__", not_in_one_call)  # C would open the device without asking Kvm
    monkeypatch.setattr(unusable, "look_at_node", lambda path: node)
    _, out, _ = pyvmm("doctor", "--json")
    told = json.loads(out)
    assert told["hints"]
    status, _, err = pyvmm(*command)
    assert status == 99
    assert err == "pyvmm: " + "\n  try: ".join([told["reason"], *told["hints"]]) + "\n"
