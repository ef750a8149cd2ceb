# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that makes machines, runs each to its first HLT and closes it: pyvmm's side of the row lifecycle, as
`python -m vmm.bench.life CODE`, CODE in hexadecimal. It speaks as bench/floor does: each line on standard input is a
number of lives, and the answer is one line with the ns of each.

It loads nothing beside the machine, as the C program has nothing beside it: KVM_CREATE_VM takes a lock of each mapping
that the process has (mm_take_all_locks, Linux mm/vma.c), and the bench, with all that it loads, has twice as many.
"""

from __future__ import annotations

import sys
import time

from vmm.machine.machine import Machine

now = time.monotonic_ns


def lives(code: bytes, rounds: int) -> list[int]:
    """The ns of each."""
    times: list[int] = []
    for _ in range(rounds):
        begin = now()
        with Machine() as machine:
            machine.load(code)
            machine.run()
        times.append(now() - begin)
    return times


def main() -> None:
    code = bytes.fromhex(sys.argv[1])
    for line in iter(sys.stdin.readline, ""):
        sys.stdout.write(f"{' '.join(map(str, lives(code, int(line))))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
