# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a Linux guest takes to the first line of its init, and what it takes of memory, beside QEMU's microvm with
KVM on the same host: the same kernel, initial file system, command line, memory and CPUs, in turns.

The memory that the guest has touched is the same for both, and is told apart: the mapping of its size.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from tools.hostlab.inside import host
from tools.hostlab.inside.session import Session

MEMORY = 256  # MiB of the guest
LINE = b"init: started"
PAIRS = 3
LIMIT = 1500.0  # seconds of one start
BOOT_GOAL, MEMORY_GOAL = 1.1, 0.5
ARGS = "console=ttyS0 quiet"
MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ .*?\nSize: +(\d+) kB.*?\nRss: +(\d+) kB", re.M | re.S)


class Start(NamedTuple):
    """Seconds to the line; KiB resident then, of the program and of its guest's memory."""

    seconds: float
    own: int
    guest: int


def resident(smaps: str, guest: int = MEMORY) -> tuple[int, int]:
    """(of the program itself, of its guest's memory) in KiB, by the text of /proc/PID/smaps. The guest's is what lies
    in mappings of at least half its size.
    """
    found = [(int(size), int(rss)) for size, rss in MAPPING.findall(smaps)]
    large = sum(rss for size, rss in found if size >= guest * 1024 // 2)
    return sum(rss for _, rss in found) - large, large


def commands(folder: Path, cpus: int) -> dict[str, list[str]]:
    """The two programs, by name."""
    kernel, initrd = str(folder / "vmlinuz"), str(folder / "initrd.img")
    return {
        "qemu": [
            "qemu-system-x86_64", "-M", "microvm,acpi=on", "-accel", "kvm", "-cpu", "host", "-m", f"{MEMORY}M",
            "-smp", str(cpus), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
            "-kernel", kernel, "-initrd", initrd, "-append", ARGS,
        ],
        "pyvmm": [
            "pyvmm", "run", kernel, "--initrd", initrd, "--kernel-args", ARGS, "--memory", f"{MEMORY}M",
            "--cpus", str(cpus),
        ],
    }  # fmt: skip


def start(words: list[str], log: Path) -> Start:
    """One start, ended at the line. Raises: Silent."""
    with Session(words, log) as session:
        _, seconds = session.expect(LINE, LIMIT)
        own, guest = resident(Path(f"/proc/{session.process.pid}/smaps").read_text())
        return Start(seconds, own, guest)


def ratio(pairs: list[tuple[float, float]]) -> float:
    """The median of ratios within pairs."""
    return statistics.median(one / other for one, other in pairs)


def main(folder: Path, out: Path) -> int:
    """`folder` is the parcel's; linux_speed.json is left in `out`, and linux_speed-numbers.json beside it."""
    seen = host.Seen()

    def scenes() -> None:
        numbers = {}
        for cpus in (1, 2):
            both = commands(folder, cpus)
            rows: dict[str, list[Start]] = {name: [] for name in both}
            for turn in range(PAIRS + 1):
                for name, words in both.items():
                    found = start(words, out / f"linux_speed-{name}.txt")
                    print(f"{cpus} CPUs, {name}: {found}", flush=True)
                    if turn:  # the first one of each reads files that the next have in memory
                        rows[name].append(found)
            numbers[f"{cpus} CPUs"] = rows
            (out / "linux_speed-numbers.json").write_text(json.dumps(numbers, indent=1) + "\n")
            compare(seen, cpus, rows["pyvmm"], rows["qemu"])

    return seen.tell(scenes, out / "linux_speed.json")


def compare(seen: host.Seen, cpus: int, ours: list[Start], theirs: list[Start]) -> None:
    """The ratios against their goals."""
    boot = ratio([(one.seconds, other.seconds) for one, other in zip(ours, theirs, strict=True)])
    took = [[round(each.seconds, 2) for each in side] for side in (ours, theirs)]
    text = f"{boot:.2f}: {took[0]} s, QEMU {took[1]} s"
    seen(f"{cpus} CPUs: first line of init within {BOOT_GOAL} x QEMU microvm's time", boot <= BOOT_GOAL, text)
    own = ratio([(one.own, other.own) for one, other in zip(ours, theirs, strict=True)])
    whole = ratio([(one.own + one.guest, other.own + other.guest) for one, other in zip(ours, theirs, strict=True)])
    text = (
        f"{own:.2f}: {ours[0].own} KiB, QEMU {theirs[0].own} KiB; with the guest's {ours[0].guest} and "
        f"{theirs[0].guest} KiB {whole:.2f}"
    )
    seen(f"{cpus} CPUs: memory beside the guest's at most {MEMORY_GOAL} x QEMU's", own <= MEMORY_GOAL, text)


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["LAB"]) / "linux", Path(os.environ["OUT"])))
