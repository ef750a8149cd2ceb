# SPDX-License-Identifier: GPL-2.0-or-later
"""The plugin's rules, one by one: what the marker may say, when a test is skipped or fails, what is attached to
a report. Whole runs of pytest are in test_skip_rule.py and in tests/kvm/test_plugin_project.py.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from vmm import pytest_plugin as plugin
from vmm.errors import HostError
from vmm.kvm import Kvm
from vmm.payload.outcome import Outcome

SKIPPED, FAILED = pytest.skip.Exception, pytest.fail.Exception


def raised(f: Callable[..., object], *args: Any, **keywords: Any) -> BaseException | None:
    """What f ended with. pytest.raises would let a skip through, and the test would count as skipped."""
    try:
        f(*args, **keywords)
    except (SKIPPED, FAILED) as error:
        return error
    return None


def test_it_is_light() -> None:
    """Every test run of every project that has pyvmm installed imports it."""
    program = "import sys, vmm.pytest_plugin; print(*sorted(n for n in sys.modules if n.split('.')[0] == 'vmm'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["vmm", "vmm.pytest_plugin"]


@pytest.mark.parametrize(
    ("mark", "demands"),
    [
        (pytest.mark.kvm, {"features": (), "caps": (), "cpus": 1}),
        (pytest.mark.kvm(features=["A"], cpus=2), {"features": ["A"], "caps": (), "cpus": 2}),
        (pytest.mark.kvm(caps=("B",)), {"features": (), "caps": ("B",), "cpus": 1}),
    ],
)
def test_demands(mark: Any, demands: dict[str, Any]) -> None:
    assert plugin._demands(mark.mark) == demands


@pytest.mark.parametrize(
    "mark",
    [
        pytest.mark.kvm("STEAL_TIME"),
        pytest.mark.kvm(features="STEAL_TIME"),
        pytest.mark.kvm(feature=["STEAL_TIME"]),
        pytest.mark.kvm(cpus="2"),
    ],
)
def test_a_marker_that_cannot_be_read_is_a_failure(mark: Any) -> None:
    error = raised(plugin._demands, mark.mark)
    assert isinstance(error, FAILED)
    assert "write it as kvm(features=" in str(error)


@pytest.mark.parametrize(("required", "kind"), [("", SKIPPED), ("1", FAILED)])
def test_refusing(monkeypatch: pytest.MonkeyPatch, required: str, kind: type[BaseException]) -> None:
    monkeypatch.setenv(plugin.REQUIRE, required)
    monkeypatch.setattr(plugin, "_unusable", lambda: "open: it is locked")
    error = raised(plugin._require)
    assert isinstance(error, kind)
    assert "no usable KVM: open: it is locked" in str(error)


def test_the_reason_is_doctors(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cls: Any) -> Any:
        raise HostError("opening /dev/kvm: it is locked", "a key")

    monkeypatch.setattr(Kvm, "open", classmethod(refuse))
    assert plugin._unusable.__wrapped__().startswith("opening /dev/kvm: it is locked")
    assert "try: " in plugin._unusable.__wrapped__()


class Vm:
    """Stands in for a VM, and for /dev/kvm with one CPU feature and no capability."""

    def __enter__(self) -> Vm:
        return self

    def __exit__(self, *_: object) -> None: ...

    def create_vm(self) -> Vm:
        return self

    def get_supported_cpuid(self) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("demands", "kind", "text"),
    [
        ({}, None, "None"),
        ({"cpus": 1}, None, "None"),
        ({"cpus": 1 << 20}, SKIPPED, "this test needs 1048576 host CPUs"),
        ({"features": ["STEAL_TIME"]}, SKIPPED, "does not offer STEAL_TIME, which this test needs"),
        ({"features": ["STEALTIME"]}, FAILED, "the marker kvm: .*did you mean STEAL_TIME"),
    ],
)
def test_require(
    monkeypatch: pytest.MonkeyPatch, demands: dict[str, Any], kind: type[BaseException] | None, text: str
) -> None:
    monkeypatch.setenv(plugin.REQUIRE, "")
    monkeypatch.setattr(Kvm, "open", classmethod(lambda cls: Vm()))
    monkeypatch.setattr(plugin, "_unusable", plugin._unusable.__wrapped__)
    error = raised(plugin._require, **demands)
    assert isinstance(error, kind or type(None))
    assert re.search(text, str(error))


def report_of(guests: list[Any], when: str, failed: bool) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(sections of the report, properties of the test) after the hook."""
    item: Any = SimpleNamespace(stash=pytest.Stash(), user_properties=[])
    if guests:
        item.stash[plugin.GUESTS] = guests
    report: Any = SimpleNamespace(failed=failed, sections=[])
    hook = plugin.pytest_runtest_makereport(item, SimpleNamespace(when=when))  # type: ignore[arg-type]
    next(hook)
    with pytest.raises(StopIteration) as end:
        hook.send(report)
    assert end.value.value is report
    return report.sections, item.user_properties


OUTCOME = Outcome("lesson", "fail", "it went wrong", b"a\x1b[2Jb\n", {"n": 5}, ("n is 5",))


def test_a_failure_gets_sections_and_properties() -> None:
    sections, properties = report_of([OUTCOME], "call", True)
    assert sections[0] == ("guest lesson: console", "a\\x1b[2Jb\n")
    assert sections[1][0] == "guest lesson: outcome"
    assert "failed: n is 5" in sections[1][1]
    assert [name for name, _ in properties] == ["pyvmm.guest lesson.console", "pyvmm.guest lesson.outcome"]


@pytest.mark.parametrize(
    ("guests", "when", "failed"), [([OUTCOME], "call", False), ([OUTCOME], "teardown", True), ([], "call", True)]
)
def test_nothing_else_gets_any(guests: list[Any], when: str, failed: bool) -> None:
    assert report_of(guests, when, failed) == ([], [])


def test_a_guest_that_cannot_be_looked_at_hides_no_failure() -> None:
    (console, _), _, (title, text) = report_of([OUTCOME, object()], "call", True)[0]
    assert console == "guest lesson: console", "what could be looked at before is there"
    assert title == "guest"
    assert text.startswith("pyvmm could not look at the guest: AttributeError")


def test_properties() -> None:
    outcome = Outcome("p", "pass", results={"n": 4096}, evidence={"STEAL_TIME": "works", "odd\nname": b"\x00"})
    assert dict(plugin._properties(outcome)) == {
        "pyvmm.p.outcome": "pass",
        "pyvmm.p.reason": "",
        "pyvmm.p.n": "4096 (0x1000)",
        "pyvmm.p.STEAL_TIME": "works",
        "pyvmm.p.odd name": "b'\\x00'",
    }


@pytest.fixture
def skipper(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """The fixture run_payload with a payload that cannot be shown."""
    from vmm.payload import run

    monkeypatch.setattr(run, "run_payload", lambda payload, options: Outcome(payload.name, "skip", "not here"))
    make: Any = plugin.run_payload
    return make.__wrapped__(request, None)  # type: ignore[no-any-return]


def test_what_cannot_be_shown_skips(skipper: Callable[..., Outcome]) -> None:
    error = raised(skipper, "hello")
    assert isinstance(error, SKIPPED)
    assert str(error) == "payload hello: not here"
    assert raised(skipper, "hello", skip=False) is None
