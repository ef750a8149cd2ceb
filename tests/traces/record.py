# SPDX-License-Identifier: GPL-2.0-or-later
"""Record a trace of hypercall_exits.asm: `python tests/traces/record.py FILE.jsonl`, on a host with VMX or SVM.

What KVM hands over there no software-backed host shows: a hypercall that leaves KVM, with a CPU's own instruction. The
traces beside this file, in a folder per kind of host, are what it wrote there; the others are of `pyvmm run --trace`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from vmm.abi import exits, pv
from vmm.abi.rows import value_of
from vmm.base.version import pyvmm_version
from vmm.observe.trace import Writer
from vmm.payload.catalog import find
from vmm.payload.guest import Guest
from vmm.payload.options import Options
from vmm.payload.replay.recorder import Recording
from vmm.payload.run import run_payload

FILTERED_MSR = 0x4B564D00
ANSWER = 0x1234
LIMIT = 1 << 20


def hand_over(guest: Guest) -> None:
    """Let KVM pass on the hypercall, which nobody answers, and MSRs: one filtered and claimed, the others unknown."""
    machine = guest.machine
    call = pv.find_hypercall("MAP_GPA_RANGE")
    assert call is not None
    machine.vm.enable_cap("EXIT_HYPERCALL", 1 << call.nr)
    machine.vm.enable_cap("X86_USER_SPACE_MSR", value_of(exits.MSR_EXIT_REASONS, "KVM_MSR_EXIT_REASON_UNKNOWN"))
    machine.on_msr_read(FILTERED_MSR, lambda: ANSWER)
    machine.on_port_write(0x500, lambda value: None, 4)


def main(name: str) -> int:
    payload = find(str(Path(__file__).with_name("hypercall_exits.asm")))
    with Path(name).open("wb") as file:
        writer = Writer(file, LIMIT)
        recording = Recording(payload, writer.write, pyvmm=pyvmm_version())

        def watch(guest: Guest) -> None:
            hand_over(guest)
            recording.watch(guest)

        outcome = run_payload(payload, Options(watch=watch))
        recording.end(outcome, outcome.exit_code, recorded=writer.recorded, dropped=writer.dropped)
    sys.stdout.write(f"{outcome.outcome} {outcome.results}: {writer.recorded} exits in {name}\n")
    return outcome.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
