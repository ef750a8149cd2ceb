# SPDX-License-Identifier: GPL-2.0-or-later
"""Does a machine that is put back again and again keep anything? Run by `python -m tools.many_resets [ROUNDS]`.

It says, for tenths of the way, what this process has of memory and descriptors, and the median time of a round; the
end is compared with what was there after the first tenth. docs/library.md has the figures of a run of 10^6.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median
from time import perf_counter_ns

from vmm import Machine
from vmm.bench import guests, sides

SAMPLES = 2000  # rounds that are timed, of each tenth


def kept() -> tuple[int, int]:
    """KiB of this process in memory, exactly; open descriptors."""
    for line in Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]), len(list(Path("/proc/self/fd").iterdir()))
    raise SystemExit("/proc/self/smaps_rollup tells no Rss")


def main(count: int) -> int:
    """0: nothing grew by more than a page for each thousand rounds, or by a descriptor."""
    with Machine() as machine:
        machine.load(guests.writes(sides.PAGES))
        rows = []
        times = [0] * SAMPLES  # made before: no part of what grows
        with machine.rounds(machine.snapshot()) as rounds:
            for tenth in range(10):
                for number in range(count // 10):
                    begin = perf_counter_ns()
                    rounds.run()
                    times[number % SAMPLES] = perf_counter_ns() - begin
                rows.append((*kept(), median(times)))
                rss, fds, time = rows[-1]
                print(
                    f"{count // 10 * (tenth + 1):>8} rounds: {rss} KiB, {fds} descriptors, {time / 1000:.1f} us a round"
                )
    grown = rows[-1][0] - rows[0][0]
    print(f"grown since the first tenth: {grown} KiB, {rows[-1][1] - rows[0][1]} descriptors")
    return int(grown > 4 * count / 1000 or rows[-1][1] != rows[0][1])


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
