# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin `pyvmm`: guests in tests, a skip with the reason where this host has no KVM, and what a failed
test's guests left behind.

It is loaded with every test run of every project that has pyvmm installed. So it imports nothing of pyvmm before a test
asks for it, and asks for /dev/kvm only where a test has the marker or a fixture of its own.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from vmm.kvm import Kvm
    from vmm.machine.snapshot import Snapshot
    from vmm.payload.outcome import Outcome
    from vmm.report.failure import WatchedMachine
    from vmm.report.guest_functions import GuestFunctions

NO_KVM = "no usable KVM"
REQUIRE = "PYVMM_REQUIRE_KVM"
MARKER = (
    "kvm(features=[...], caps=[...], cpus=1): needs a usable /dev/kvm that offers these CPUID or paravirtual features "
    f"and capabilities, and so many host CPUs; a skip with the reason, or an error where {REQUIRE}=1"
)
DEBUG = "--pyvmm-debug"
DEBUG_HELP = "where a test with guests fails, leave its machines open at a prompt: step, registers, memory, ..."
IN_WORKERS = f"{DEBUG} needs a terminal, and the workers of pytest-xdist have none; run it with -n 0"
PACKAGE = Path(__file__).resolve().parent
GUESTS = pytest.StashKey[list[Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("pyvmm").addoption(DEBUG, action="store_true", help=DEBUG_HELP)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)
    if config.getoption(DEBUG) and (getattr(config.option, "tx", None) or hasattr(config, "workerinput")):
        raise pytest.UsageError(IN_WORKERS)


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(
    node: pytest.Item | pytest.Collector,
    call: pytest.CallInfo[Any],
    report: pytest.CollectReport | pytest.TestReport,
) -> None:
    """With --pyvmm-debug, a prompt. After all others: pytest-timeout and faulthandler stop their clocks here."""
    if not node.config.getoption(DEBUG) or not isinstance(report, pytest.TestReport):
        return
    from vmm.report.failure import left_open

    assert call.excinfo is not None
    frames = [each.frame.f_locals for each in call.excinfo.traceback]
    opened, closed = left_open(node.stash.get(GUESTS, []), [getattr(node, "funcargs", {}), *frames])
    if not opened and not closed:
        return  # a test without guests
    capture = node.config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    try:
        lines = [f"\n\n{node.nodeid}: {call.excinfo.exconly()}", *closed]
        lines += [
            f"captured {title}:\n{text}"
            for title, text in ((each, getattr(report, f"cap{each}")) for each in ("stdout", "stderr"))
            if text
        ]
        sys.stdout.write("\n".join(lines) + "\n")
        if opened:
            from vmm.debug.prompt.prompt import Open, prompt

            if prompt([Open(*each) for each in opened], dict(frames[-1])):
                pytest.exit(f"ended at the prompt of {DEBUG}", pytest.ExitCode.INTERRUPTED)
    finally:
        if capture is not None:
            capture.resume_global_capture()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("kvm"):
        _require(**_demands(mark))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the guests of a failed test to its report, while they are still there: teardown closes them. An error that
    says itself what is wrong is shown at the test's line, and not through pyvmm's own.
    """
    raised = getattr(call, "excinfo", None)
    if raised is not None and type(raised.value).__module__ == "vmm.errors":
        shown = _without_ours(raised.tb)
        if shown is not None:
            raised.traceback = type(raised.traceback)(shown)
            raised.value.__cause__, raised.value.__suppress_context__ = None, True
    report = yield
    functions: Any = getattr(item, "funcargs", {}).get("guest_function")
    if report.failed and call.when == "call" and hasattr(functions, "again") and (last := functions.again()):
        _guests(item).append(last)  # the smallest that failed is what hypothesis has called last
        item.addfinalizer(last.close)
    guests = item.stash.get(GUESTS, [])
    if guests and report.failed and call.when != "teardown":
        for title, text in _sections(guests):
            report.sections.append((title, text))
            item.user_properties.append((f"pyvmm.{title.replace(': ', '.')}", text))
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """What the test's functions had of the thread is the next test's."""
    functions: Any = getattr(item, "funcargs", {}).get("guest_function")
    if hasattr(functions, "rest"):
        functions.rest()
        functions.called = None


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """The same, without the frames of this package; None if nothing else is in it."""
    kept = []
    while trace is not None:
        if PACKAGE not in Path(trace.tb_frame.f_code.co_filename).parents:
            kept.append(trace)
        trace = trace.tb_next
    made = None
    for each in reversed(kept):
        made = TracebackType(made, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return made


@pytest.fixture
def kvm() -> Iterator[Kvm]:
    """/dev/kvm, opened."""
    _require()
    from vmm.kvm import Kvm

    with Kvm.open() as opened:
        yield opened


@pytest.fixture
def machine_factory(request: pytest.FixtureRequest, kvm: Kvm) -> Iterator[Callable[..., WatchedMachine]]:
    """Makes machines with the arguments of vmm.Machine; each is closed after the test."""
    from vmm.report.failure import WatchedMachine

    made = _guests(request.node)
    with ExitStack() as stack:

        def make(*args: Any, **options: Any) -> WatchedMachine:
            machine = stack.enter_context(WatchedMachine(*args, kvm=kvm, **options))
            made.append(machine)
            return machine

        yield make


@pytest.fixture
def machine(machine_factory: Callable[..., WatchedMachine]) -> WatchedMachine:
    """A fresh machine with one vCPU and the default memory; `machine.call(name, ...)` calls a function in it."""
    return machine_factory()


@pytest.fixture(scope="module")
def guest_image(request: pytest.FixtureRequest) -> Any:
    """What `fresh_machine` and `guest_function` load: the module's GUEST, which is assembly text, bytes, a Program, or
    the name of an .asm, .c or .bin file beside the module. A project may have its own.
    """
    image = getattr(request.module, "GUEST", None)
    if image is None:
        pytest.fail("this module has no GUEST: assembly text, or the name of a file beside it", pytrace=False)
    name = str(image) if isinstance(image, str | Path) else ""
    if not name.endswith((".asm", ".c", ".bin")) or "\n" in name:
        return image
    from vmm.payload.catalog import find
    from vmm.payload.guest import assemble

    return assemble(find(str(request.path.parent / name)), {})


@pytest.fixture(scope="module")
def _loaded(guest_image: Any) -> Iterator[tuple[WatchedMachine, Snapshot]]:
    """A machine with the module's GUEST, and how it was then."""
    _require()
    from vmm.report.failure import WatchedMachine

    with WatchedMachine() as machine:
        machine.load(guest_image)
        with machine.snapshot() as snapshot:
            yield machine, snapshot


@pytest.fixture
def fresh_machine(request: pytest.FixtureRequest, _loaded: tuple[WatchedMachine, Snapshot]) -> WatchedMachine:
    """A machine with the module's GUEST, loaded once, and put back for each test: in microseconds, not milliseconds."""
    machine, snapshot = _loaded
    machine.reset(snapshot)
    machine.sink.clear()
    machine.last = None
    _guests(request.node).append(machine)
    return machine


@pytest.fixture(scope="module")
def guest_function(guest_image: Any) -> Iterator[GuestFunctions]:
    """`guest_function(name)`: a function of the module's GUEST, to be called from a property test thousands of times,
    each time in the machine as it was loaded; numbers, and bytes, of which it gets the address. A failure shows console
    and post-mortem of the last call: the smallest that failed.
    """
    _require()
    from vmm.kvm import Kvm
    from vmm.report.guest_functions import GuestFunctions

    with Kvm.open() as kvm:
        functions = GuestFunctions(kvm, guest_image)
        try:
            yield functions
        finally:
            functions.close()


@pytest.fixture
def run_payload(request: pytest.FixtureRequest, kvm: Kvm) -> Callable[..., Outcome]:
    """`run_payload(name, **options)`: a shipped payload, or an .asm, .c or .bin file beside the test, run to its end.

    Options are those of vmm.payload.options.Options. The outcome, results and evidence become properties of the test in
    the JUnit file. What this host cannot show (outcome `skip`) skips the test, unless skip=False.
    """
    from vmm.payload.catalog import find
    from vmm.payload.options import Options
    from vmm.payload.run import run_payload

    made = _guests(request.node)

    def run(name: str | Path, *, skip: bool = True, **options: Any) -> Outcome:
        beside = request.path.parent / name
        is_file = beside.suffix in (".asm", ".c", ".bin") and beside.is_file()
        outcome = run_payload(find(str(beside if is_file else name)), Options(**options))
        made.append(outcome)
        request.node.user_properties.extend(_properties(outcome))
        if skip and outcome.outcome == "skip":
            pytest.skip(f"payload {outcome.payload}: {outcome.reason}")
        return outcome

    return run


def _guests(node: Any) -> list[Any]:
    found: list[Any] = node.stash.setdefault(GUESTS, [])
    return found


def _sections(guests: list[Any]) -> list[tuple[str, str]]:
    from vmm.report.failure import sections

    found = []
    try:
        for section in sections(guests):
            found.append(section)
    except Exception as error:  # the test's own failure must not be lost for a guest that cannot be looked at
        found.append(("guest", f"pyvmm could not look at the guest: {type(error).__name__}: {error}"))
    return found


def _properties(outcome: Outcome) -> Iterator[tuple[str, str]]:
    from vmm.report.columns import number, one_line

    found = {"outcome": outcome.outcome, "reason": outcome.reason, **outcome.results, **outcome.evidence}
    for name, value in found.items():
        yield f"pyvmm.{one_line(outcome.payload)}.{one_line(str(name))}", number(value)


def _demands(mark: pytest.Mark) -> dict[str, Any]:
    """The marker's arguments, checked: a misspelt one would ask for nothing."""
    found = {"features": (), "caps": (), "cpus": 1, **mark.kwargs}
    lists = all(isinstance(found[key], list | tuple) for key in ("features", "caps"))
    if mark.args or len(found) > 3 or not lists or not isinstance(found["cpus"], int):
        pytest.fail(f"a marker kvm that cannot be read; write it as {MARKER.partition(':')[0]}", pytrace=False)
    return found


def _require(features: tuple[str, ...] = (), caps: tuple[str, ...] = (), cpus: int = 1) -> None:
    """Skip, or fail where KVM is required, unless this host has all of it."""
    if reason := _unusable():
        _refuse(f"{NO_KVM}: {reason}")
    if features or caps or cpus > 1:
        from vmm.errors import MissingCapability, UsageError
        from vmm.kvm import Kvm
        from vmm.payload.needs import check

        try:
            with Kvm.open() as kvm:
                check(kvm, "this test", caps, features, cpus)
        except MissingCapability as error:
            _refuse(str(error))
        except UsageError as error:
            pytest.fail(f"the marker kvm: {error}", pytrace=False)


def _refuse(reason: str) -> None:
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{REQUIRE}=1, and: {reason}", pytrace=False)
    pytest.skip(reason)


@functools.cache
def _unusable() -> str:
    """Why no VM can be made here, in doctor's words; empty if one can. An extension that was not built is an error."""
    from vmm.errors import HostError
    from vmm.kvm import Kvm

    try:
        with Kvm.open() as kvm, kvm.create_vm():
            return ""
    except HostError as error:
        from vmm.host.unusable import why_unusable

        return why_unusable(error).one_line
