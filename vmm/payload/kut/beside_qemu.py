# SPDX-License-Identifier: GPL-2.0-or-later
"""The same test in QEMU, as kvm-unit-tests' own script runs it: for a table with both. QEMU's KVM, no other."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from vmm.payload.kut.one import Ended
from vmm.payload.kut.suite import Test
from vmm.payload.kut.verdict import State, judge, read_report

QEMU = "qemu-system-x86_64"


def command(test: Test, qemu: str = QEMU) -> list[str]:
    """QEMU's command line for a test."""
    settings = test.settings
    more = ["-append", settings.args] if test.entry.args else []
    initrd = ["-initrd", settings.initrd] if settings.initrd and "-initrd" not in test.words else []
    return [
        qemu, "-no-reboot", "-nodefaults", "-global", "kvm-pit.lost_tick_policy=discard", "-device", "pc-testdev",
        "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4", "-vnc", "none", "-serial", "stdio",
        "-device", "pci-testdev", "-machine", "accel=kvm", "-kernel", str(test.image), *test.words, *more, *initrd,
    ]  # fmt: skip


def run_in_qemu(test: Test, qemu: str = QEMU) -> Ended:
    """What becomes of it there; a QEMU that ends by itself otherwise than by isa-debug-exit is a crash."""
    begun = time.monotonic()
    try:
        done = subprocess.run(
            command(test, qemu), stdin=subprocess.DEVNULL, capture_output=True, timeout=test.timeout, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        console = (late.stdout or b"").decode("utf-8", "replace")
        return Ended(State.TIMEOUT, f"not done after {test.timeout:g} s", None, console, time.monotonic() - begun)
    except OSError as error:
        return Ended(State.ERROR, f"{qemu}: {error.strerror or error}")
    console, said = (text.decode("utf-8", "replace") for text in (done.stdout, done.stderr))
    seconds = time.monotonic() - begun
    complaints = [line for line in said.splitlines() if "warning" not in line.lower() and line.strip()]
    if done.returncode < 0:
        reason = complaints[-1] if complaints else f"signal {-done.returncode}"
        return Ended(State.CRASH, reason, None, console, seconds)
    if done.returncode == 0 or (done.returncode == 1 and complaints):  # an even status is QEMU's own
        return Ended(State.CRASH, complaints[-1] if complaints else "QEMU ended by itself", None, console, seconds)
    state, reason = judge(done.returncode, read_report(console))
    return Ended(state, reason, done.returncode, console, seconds)


def find(qemu: str) -> str | None:
    """Its path, or None."""
    import shutil

    return shutil.which(qemu) or (qemu if Path(qemu).is_file() else None)
