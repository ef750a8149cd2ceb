# SPDX-License-Identifier: GPL-2.0-or-later
"""One process that runs hostile programs: `python -m tools.hostile.worker SEED` with lines `FIRST COUNT` on its input.

Before each program it writes its number into the file that it was given, so that who started it knows where it died.
For each line it answers with one of JSON: how the runs ended, what was raised that should not be, what it holds. Each
machine is made once and put back by `Machine.reset`; pages that nobody may touch lie around its memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import mmap
import struct
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tools.hostile import programs
from vmm.abi.x86 import PAGE
from vmm.asm.program import Program
from vmm.errors import VmmError
from vmm.machine.machine import Machine

HALT = Program("halt", programs.CODE, b"\xf4", {}, ())  # keystone cannot be loaded beside AddressSanitizer
TIMEOUT = 0.01  # seconds: what takes longer does nothing more, and an eighth of all programs do
EXITS = 400
NOBODY = 0x20 | 0x2 | 0x100000  # MAP_ANONYMOUS, MAP_PRIVATE, MAP_FIXED_NOREPLACE
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]


class Stand:
    """A machine with its snapshot, made anew when KVM has ended it."""

    def __init__(self, arguments: dict[str, str], folder: Path) -> None:
        self.arguments, self.folder, self.made = arguments, folder, 0
        self.machine: Any = None
        self.make()

    def make(self) -> None:
        """Another one in its place."""
        self.close()
        kinds: dict[str, Any] = dict(self.arguments)
        self.machine = Machine("4M", **kinds)
        if kinds.get("irqchip") != "none" and not kinds.get("board"):
            self.machine.add_virtio_rng()
        self.machine.load(HALT)
        for slot in self.machine.memory.slots:
            for at in (slot.hva - PAGE, slot.hva + slot.size):
                LIBC.mmap(at, PAGE, 0, NOBODY, -1, 0)  # refused where somebody is: then that is no free memory either
        self.snapshot = self.machine.snapshot()
        self.made += 1

    def close(self) -> None:
        """Give it back."""
        if self.machine is not None:
            self.snapshot.close()
            self.machine.close()
            self.machine = None


def run(stand: Stand, kind: str, rng: Any) -> str:
    """How one program ended: a word of Why, or of the error. Raises whatever should not be."""
    machine = stand.machine
    refused = programs.put(machine, kind, rng)
    try:
        ended = str(machine.run(TIMEOUT, exit_limit=EXITS).stop.why)
    except VmmError as error:
        ended = f"error: {type(error).__name__} {getattr(error, 'call', '')} {getattr(error, 'errno', '')}".rstrip()
        if getattr(error, "vm_died", False):
            stand.make()
            return ended
    machine.reset(stand.snapshot)
    return f"{ended} (not all taken)" if refused else ended


def _guests(stands: Iterable[Stand]) -> int:
    """KiB of the guests' memory: a page that a program has touched stays, until all are (proc(5), smaps)."""
    wanted = [slot.hva for stand in stands for slot in stand.machine.memory.slots]
    found, inside = 0, False
    with Path("/proc/self/smaps").open() as lines:
        for line in lines:
            name, *values = line.split()
            if not name.endswith(":"):
                first, last = (int(each, 16) for each in name.split("-"))
                inside = any(first <= hva < last for hva in wanted)
            elif inside and name == "Anonymous:":
                found += int(values[0])
    return found


def threads() -> dict[str, int]:
    """How many threads there are of each name, those of C by the kernel's name of them (proc(5), comm)."""
    of_python = {each.native_id: each.name for each in threading.enumerate()}
    names: Counter[str] = Counter()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            names[of_python.get(int(task.name)) or (task / "comm").read_text().strip()] += 1
    return dict(sorted(names.items()))


def held(stands: Iterable[Stand]) -> dict[str, int]:
    """Descriptors, threads, mappings, and KiB of memory that are this process' own, without that of its guests."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
    with Path("/proc/self/maps").open() as maps:
        mapped = sum(1 for _ in maps)
    return {
        "files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "threads": sum(1 for _ in Path("/proc/self/task").iterdir()),
        "maps": mapped,
        "KiB": own - _guests(stands),
    }


def main(seed: int, place: str) -> None:
    """Work until the input ends."""
    with Path(place).open("r+b") as file:
        at = mmap.mmap(file.fileno(), 8)
    stands = {json.dumps(each): Stand(each, Path(place).parent) for each in programs.BOARDS}
    for line in sys.stdin:
        first, count = map(int, line.split())
        ended: Counter[str] = Counter()
        wrong = []
        for number in range(first, first + count):
            at[:] = struct.pack("<Q", number)
            kind, board = programs.shape(number)
            stand = stands[json.dumps(board)]
            try:
                ended[f"{kind}: {run(stand, kind, programs.rng_of(seed, number))}"] += 1
            except Exception:
                wrong.append([number, traceback.format_exc()])
                stand.make()
        made = sum(stand.made for stand in stands.values())
        told = {
            "first": first,
            "count": count,
            "ended": ended,
            "wrong": wrong,
            "held": held(stands.values()),
            "threads": threads(),
            "made": made,
        }
        print(json.dumps(told), flush=True)
    for stand in stands.values():
        stand.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
