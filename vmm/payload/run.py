# SPDX-License-Identifier: GPL-2.0-or-later
"""A payload from its name to its outcome: needs checked, guest built, run, results compared. It prints nothing."""

from __future__ import annotations

from vmm.abi.ports import DEBUG_EXIT_SKIP, EXIT, EXIT_VALUE_FAIL, EXIT_VALUE_PASS, EXIT_VALUE_SKIP
from vmm.base.record import replace
from vmm.errors import MissingCapability, UsageError
from vmm.machine.ends import Result, Stop, Why
from vmm.payload.catalog import Payload
from vmm.payload.guest import AnyGuest, Guest
from vmm.payload.header import MissingResult
from vmm.payload.options import Options
from vmm.payload.outcome import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.asm.program import Program
    from vmm.payload.half import HostHalf

END_RUN = "end_run"  # of the runtime of a guest in C (guest_payloads/c), whose main ends in it
EXIT_PORTS = ("exit_port", hex(EXIT), str(EXIT))


def run_payload(
    payload: Payload, options: Options | None = None, *, live: Callable[[bytes], object] | None = None
) -> Outcome:
    """Run a payload once.

    Raises:
        HostError, UsageError, PayloadError: it could not be run at all. What the guest does is never raised.
    """
    half = payload.host_half()
    outcome = _run(payload, half, options or Options(), live)
    notes = payload.header.notes + (() if half else payload.overlooked()) + outcome.notes
    return replace(outcome, notes=notes) if notes else outcome


def _run(payload: Payload, half: HostHalf | None, options: Options, live: Callable[[bytes], object] | None) -> Outcome:
    if payload.header.asks:
        from vmm.payload.needs import check_needs

        try:
            check_needs(payload)
        except MissingCapability as error:
            return Outcome(payload.name, "skip", str(error))
    if half and half.prove:
        from vmm.payload.proof.prove import outcome_of, prove

        if options.nets:
            raise UsageError(
                f"--net {options.nets[0]}: {payload.name} makes its machines itself, with what it is to prove",
                "a payload that proves nothing, as `pyvmm run ping --net ...`",
            )
        return outcome_of(payload, prove(payload, options, strict=options.strict))
    with Guest(payload, options, live=live) as guest:
        if half and half.setup:
            half.setup(guest)
        if half and half.drive:
            half.drive(guest)
        else:
            guest.run()
        result = guest.result
        if result is None:
            raise UsageError(f"the host half of {payload.name} never ran its guest")
        return _outcome(guest, result, *conclude(guest, result, half))


def conclude(guest: AnyGuest, result: Result, half: HostHalf | None) -> tuple[str, str]:
    """(outcome, reason): how the run ended, what the host half finds, and whether every result was stored."""
    kind, reason = judge(result, guest.header.ends)
    if result.stop.why is Why.HALT and guest.header.ends is None and _has_verdict(guest.program):
        return (
            "fail",
            f"{result.stop.text}, and it was to end by PASS, FAIL or SKIP: its text has an OUT to the exit port",
        )
    if kind == "pass" and half and half.check:
        kind, reason = _check(half.check, guest)
    return _all_stored(guest, reason) if kind == "pass" else (kind, reason)


def _has_verdict(program: Program) -> bool:
    """Can the guest say how it went? Then a HLT is no pass: a panic ends in one, too."""
    if END_RUN in program.symbols:
        return True
    for line in program.lines:
        name, _, operands = line.text.partition(" ")
        if name == "out" and operands.split(",")[0].strip().lower() in EXIT_PORTS:
            return True
    return False


def judge(result: Result, meant: Why | None = None) -> tuple[str, str]:
    """(outcome, reason) by how the run ended alone, before the host half has compared anything.

    `meant` is the header's `ends`: a guest that should end otherwise has not passed. A crash stays one, meant or not.
    """
    kind, reason = _by_end(result.stop)
    if kind == "pass" and meant not in (None, result.stop.why):
        return "fail", f"{result.stop.text}; it was meant to end by: {meant}"
    return kind, reason


def _by_end(stop: Stop) -> tuple[str, str]:
    match stop.why:
        case Why.EXIT_PORT if stop.code == EXIT_VALUE_PASS:
            return "pass", ""
        case Why.EXIT_PORT if stop.code == EXIT_VALUE_SKIP:
            return "skip", "the guest says that this host cannot show it"
        case Why.EXIT_PORT:
            return (
                "fail",
                "the guest reports failure" if stop.code == EXIT_VALUE_FAIL else f"the guest reports {stop.code:#x}",
            )
        case Why.HALT | Why.STOPPED | Why.POWER_OFF | Why.RESET:
            return "pass", stop.text
        case Why.DEBUG_EXIT if stop.code == DEBUG_EXIT_SKIP:
            return "skip", "the guest says that this host cannot show it"
        case Why.DEBUG_EXIT:
            return ("pass", "") if stop.code == 0 else ("fail", stop.text)
        case Why.TIME_LIMIT:
            return "timeout", stop.text
        case Why.FAIL_ENTRY if hosts_fault(stop):
            return "error", stop.text
        case _:
            return "fail", stop.text


def hosts_fault(stop: Stop) -> bool:
    """Did the CPU refuse the entry for what KVM has set up, and not for the guest's registers?"""
    from vmm.kvm.exits import FailEntry

    if not isinstance(stop.exit, FailEntry):
        return False
    from vmm.abi.entry import entry_failure

    return not entry_failure(stop.exit.reason).guest_state


def _check(check: Callable[[AnyGuest], object], guest: AnyGuest) -> tuple[str, str]:
    try:
        check(guest)
    except MissingResult as error:
        guest.failures.append(str(error))
    if guest.failures:
        more = f" (and {len(guest.failures) - 1} more)" if len(guest.failures) > 1 else ""
        return "fail", guest.failures[0] + more
    return "pass", ""


def _all_stored(guest: AnyGuest, reason: str) -> tuple[str, str]:
    """A declared result that was never stored is a failure: silence is no proof."""
    missing = [name for name, value in guest.results.items() if value is None]
    if missing:
        return "fail", f"the guest stored no result {', '.join(missing)}"
    return "pass", reason


def _outcome(guest: Guest, result: Result, kind: str, reason: str) -> Outcome:
    postmortem = None
    if result.stop.crashed or result.stop.limited:
        from vmm.observe.postmortem import examine

        postmortem = examine(guest.machine, result)
    status = None
    if guest.payload.text is None and result.stop.why is Why.DEBUG_EXIT:
        from vmm.payload.endings import debug_exit_status

        status = debug_exit_status(result.stop)
    return Outcome(
        payload=guest.payload.name,
        outcome=kind,
        status=status,
        reason=reason,
        console=result.console,
        results=guest.results,
        failures=tuple(guest.failures),
        evidence=guest.evidence,
        exits=dict(sorted(result.counts.items())),
        unclaimed=result.unclaimed,
        missed=result.missed,
        not_taken=guest.machine.cpuid_not_taken,
        notes=guest.notes,
        wall_ms=result.wall * 1e3,
        postmortem=postmortem,
    )
