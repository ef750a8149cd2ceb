# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest beside QEMU's microvm with KVM on the same host, in turns, with the same kernel, initial file system,
command line, memory, CPUs and devices: seconds to the first line of its init, resident memory then, and what the guest
gets of its virtio disk and network card (../measure.c, which runs in the guest and is the card's other end).

The memory that the guest has touched is the same for both, and is told apart: the mapping of its size. What was
measured is handed back after each start, so a run that is ended keeps it.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tools.hostlab.inside import host
from tools.hostlab.inside.session import PROMPT, Session, Silent

MEMORY = 256  # MiB of the guest
LINE = b"init: started"
PAIRS = {1: 2, 2: 2}  # by the guest's CPUs
SPARE = 2  # starts that may come to nothing, for each number of CPUs
LIMIT = 200.0  # seconds, of the host's own, for a step of one start: on an emulated host a boot takes 5 of them
BOOT_GOAL, MEMORY_GOAL, READS_GOAL = 1.1, 0.5, 0.7
ARGS = "console=ttyS0 quiet panic=-1"  # a kernel that panics ends its start
MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ .*?\nSize: +(\d+) kB.*?\nRss: +(\d+) kB", re.M | re.S)
MEASURED = re.compile(r"^measured (\w+) (\d+) (\d+) (\d+)", re.M)
DISK_SIZE = 16 << 20
ADDRESS, OWN_ADDRESS = "10.0.2.2", "10.0.2.15"
# What the guest does with its devices: kind -> (the device's word, how often, what one of them is).
WORK = {
    "disk": ("/dev/vda", 300, "reads of 4 KiB at random, one at a time"),
    "stream": ("/dev/vda", 40, "reads of 256 KiB, one at a time"),
    "echo": (ADDRESS, 150, "frames of 60 bytes out and back, one at a time"),
    "flood": (ADDRESS, 300, "frames of 1514 bytes out and back, 8 under way"),
}
GOALS = {"disk": READS_GOAL}


class Start(NamedTuple):
    """Seconds to the line; KiB resident then, of the program and of its guest's memory; what the guest did a second
    with its devices, and the median of one in microseconds, by the kinds of WORK.
    """

    seconds: float
    own: int
    guest: int
    rates: dict[str, float]
    medians: dict[str, float]


def resident(smaps: str, guest: int = MEMORY) -> tuple[int, int]:
    """(of the program itself, of its guest's memory) in KiB, by the text of /proc/PID/smaps. The guest's is what lies
    in mappings of at least half its size.
    """
    found = [(int(size), int(rss)) for size, rss in MAPPING.findall(smaps)]
    large = sum(rss for size, rss in found if size >= guest * 1024 // 2)
    return sum(rss for _, rss in found) - large, large


def commands(folder: Path, cpus: int, disk: Path, socket: Path) -> dict[str, list[str]]:
    """The two programs, by name."""
    kernel, initrd = str(folder / "vmlinuz"), str(folder / "initrd.img")
    return {
        "qemu": [
            "qemu-system-x86_64", "-M", "microvm,acpi=on", "-accel", "kvm", "-cpu", "host", "-m", f"{MEMORY}M",
            "-smp", str(cpus), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio",
            "-global", "virtio-mmio.force-legacy=false", "-drive", f"if=none,id=d,format=raw,readonly=on,file={disk}",
            "-device", "virtio-blk-device,drive=d", "-netdev", f"stream,id=n,addr.type=unix,addr.path={socket}",
            "-device", "virtio-net-device,netdev=n",
            "-kernel", kernel, "-initrd", initrd, "-append", ARGS,
        ],
        "pyvmm": [
            "pyvmm", "run", kernel, "--initrd", initrd, "--kernel-args", ARGS, "--memory", f"{MEMORY}M",
            "--cpus", str(cpus), "--disk", f"{disk},ro", "--net", f"stream:{socket}",
        ],
    }  # fmt: skip


def start(words: list[str], log: Path) -> Start:
    """One start, ended when all is measured. Raises: Silent."""
    with Session(words, log) as session:
        _, seconds = session.expect(LINE, LIMIT)
        own, guest = resident(Path(f"/proc/{session.process.pid}/smaps").read_text())
        session.expect(PROMPT, LIMIT)
        session.ask(f"ip addr add {OWN_ADDRESS}/24 dev eth0; ip link set eth0 up", LIMIT)
        rates, medians = {}, {}
        for kind, (device, count, _) in WORK.items():
            said = session.ask(f"measure {kind} {device} {count}", LIMIT)
            found = MEASURED.search(said)
            if found is None:
                raise Silent(f"measure {kind} said: {said[-200:]}")
            rates[kind] = round(count * 1e9 / int(found[3]), 1)
            medians[kind] = round(int(found[4]) / 1000, 1)
        return Start(seconds, own, guest, rates, medians)


def ratio(pairs: list[tuple[float, float]]) -> float:
    """The median of ratios within pairs."""
    return statistics.median(one / other for one, other in pairs)


@contextmanager
def peer(folder: Path, socket: Path) -> Iterator[None]:
    """The other end of the network card, a program of its own."""
    with subprocess.Popen([folder / "measure", "peer", socket]) as process:
        try:
            yield
        finally:
            process.kill()


class Turns:
    """Starts of both programs, in turns, and what they came to. `keep` is told after each."""

    def __init__(self, both: dict[str, list[str]], out: Path, keep: Callable[[], object]) -> None:
        self._both, self._out, self._keep = both, out, keep
        self.pairs: list[dict[str, Start]] = []
        self.silent: list[str] = []

    def take(self, pairs: int) -> None:
        """So many pairs, fewer where too many starts come to nothing. Who is first changes from pair to pair."""
        while len(self.pairs) < pairs and len(self.silent) <= SPARE:
            names = list(self._both)
            found: dict[str, Start] = {}
            for name in names if len(self.pairs) % 2 == 0 else reversed(names):
                log = self._out / f"linux_speed-{name}.txt"
                try:
                    found[name] = start(self._both[name], log)
                except Silent as error:
                    self.silent.append(f"{name}: {error}")
                    log.replace(log.with_stem(f"{log.stem}-silent-{len(self.silent)}"))  # the next start has the name
                    print(self.silent[-1], flush=True)
                    break
                print(f"{name}: {found[name]}", flush=True)
            else:
                self.pairs.append(found)
            self._keep()


def main(folder: Path, out: Path) -> int:
    """`folder` is the parcel's; linux_speed.json is left in `out`, and linux_speed-numbers.json beside it."""
    seen, numbers = host.Seen(), dict[str, Turns]()
    disk, socket, file = Path("/tmp/speed.disk"), Path("/tmp/speed.net"), out / "linux_speed.json"

    def keep() -> None:
        told = {
            name: {"pairs": [_told(pair) for pair in each.pairs], "silent": each.silent}
            for name, each in numbers.items()
        }
        (out / "linux_speed-numbers.json").write_text(json.dumps(told, indent=1) + "\n")
        seen.write(file)
        host.hand_back()

    def scenes() -> None:
        disk.write_bytes(os.urandom(DISK_SIZE))
        host.call(["qemu-system-x86_64", "--version"])  # what both read first is in memory
        host.call(["pyvmm", "run", "--help"])
        for cpus, pairs in PAIRS.items():
            if cpus > len(os.sched_getaffinity(0)):
                print(f"{cpus} CPUs: not measured, this host has fewer", flush=True)
                continue
            with peer(folder, socket):
                turns = numbers[f"{cpus} CPUs"] = Turns(commands(folder, cpus, disk, socket), out, keep)
                turns.take(pairs)
            compare(seen, cpus, turns)
            keep()

    return seen.tell(scenes, file)


def _told(pair: dict[str, Start]) -> dict[str, dict[str, object]]:
    return {name: each._asdict() for name, each in pair.items()}


def compare(seen: host.Seen, cpus: int, turns: Turns) -> None:
    """The ratios against their goals."""
    count = f"{cpus} CPU{'s' * (cpus > 1)}"
    ours, theirs = ([pair[name] for pair in turns.pairs] for name in ("pyvmm", "qemu"))
    text = f"{len(turns.pairs)}; came to nothing: {'; '.join(turns.silent) or 'none'}"
    seen(f"{count}: pairs of starts", bool(turns.pairs), text)
    if not turns.pairs:
        return
    boot = ratio([(one.seconds, other.seconds) for one, other in zip(ours, theirs, strict=True)])
    took = [[round(each.seconds, 2) for each in side] for side in (ours, theirs)]
    text = f"{boot:.2f}: {took[0]} s, QEMU {took[1]} s"
    seen(f"{count}: first line of init within {BOOT_GOAL} x QEMU microvm's time", boot <= BOOT_GOAL, text)
    own = ratio([(one.own, other.own) for one, other in zip(ours, theirs, strict=True)])
    whole = ratio([(one.own + one.guest, other.own + other.guest) for one, other in zip(ours, theirs, strict=True)])
    text = (
        f"{own:.2f}: {ours[0].own} KiB, QEMU {theirs[0].own} KiB; with the guest's {ours[0].guest} and "
        f"{theirs[0].guest} KiB {whole:.2f}"
    )
    seen(f"{count}: memory beside the guest's at most {MEMORY_GOAL} x QEMU's", own <= MEMORY_GOAL, text)
    for kind, (_, _, what) in WORK.items():
        rate = ratio([(one.rates[kind], other.rates[kind]) for one, other in zip(ours, theirs, strict=True)])
        each = [[row.rates[kind] for row in side] for side in (ours, theirs)]
        goal = GOALS.get(kind)
        text = f"{rate:.2f}: {each[0]} a second, QEMU {each[1]}"
        if ours[0].medians[kind]:
            text += f"; median of one {ours[0].medians[kind]} us, QEMU {theirs[0].medians[kind]} us"
        seen(f"{count}: {what}" + (f", at least {goal} x QEMU's" if goal else ""), goal is None or rate >= goal, text)


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["LAB"]) / "linux", Path(os.environ["OUT"])))
