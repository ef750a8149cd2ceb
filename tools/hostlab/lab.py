# SPDX-License-Identifier: GPL-2.0-or-later
"""A host from its name to its line: packages settled, images made, started, steps run, verdicts compared."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from . import bochs, emulator, judge, junit, kernel, parcel, qemu, root, store
from .errors import HostFailed, LabError, NotToBeHad
from .hosts import Host
from .packages import Archive

Say = Callable[[str], object]
# Seconds for a whole run. Ten times what it takes on two idle cores.
LIMITS = {"qemu": 2400.0, "bochs": 3600.0}


@dataclass(frozen=True)
class Prepared:
    """A host whose kernel is there."""

    host: Host
    kernel: kernel.Kernel


@dataclass(frozen=True)
class Report:
    """How it ended: `skipped` with a reason, or `failed` lines (none: as expected), and what it said of itself."""

    name: str
    line: str
    failed: tuple[str, ...] = ()
    skipped: str = ""


def prepare(host: Host, say: Say) -> Prepared:
    """Fetch and make what the host needs, one host at a time.

    Raises:
        NotToBeHad: the registry does not have it today.
        LabError: something is missing here, or failed.
    """
    archive = Archive(host.suite)
    say(f"reading what Debian's {host.suite} has")
    archive.refresh()
    found = kernel.source(host, archive)
    if host.kernel == "newest":
        series = ".".join(found.version.split(".")[:2])
        host = replace(host, kernel=series, release=host.suite)
    say(f"Linux {found.version}: kernel and initramfs")
    made = kernel.kernel(host, archive, found)
    if host.emulator == "bochs":
        bochs.check()
        say("Bochs with VMX (built once, some minutes)")
        bochs.binary()
    else:
        qemu.version()
    say("the hosts' file system (made once, a minute or two)")
    root.image()
    say("what pyvmm depends on")
    parcel.dependencies()
    return Prepared(host, made)


def run(prepared: Prepared, out: Path, say: Say) -> Report:
    """Start the host, run its steps, compare. It raises nothing of the host's."""
    host = prepared.host
    room = out / host.name
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    console = room / "console.txt"
    begin = time.monotonic()
    failed: list[str] = []
    try:
        with store.scratch("run") as work:
            image, results = parcel.build(work, (*parcel.ALWAYS, *host.extra))
            disks = emulator.Disks(root.image(), image, results)
            make = bochs.command if host.emulator == "bochs" else qemu.command

            def heard(line: str) -> None:
                say(line)
                if " ended: status " in line and " status 0," not in line:
                    failed.append(f"{line}: see {console}")

            emulator.run(make(host, prepared.kernel, disks, work), console, limit=LIMITS[host.emulator], say=heard)
            parcel.unpack(results, room)
    except HostFailed as error:
        return Report(host.name, "failed", (*failed, str(error)))
    return _judged(host, room, failed, time.monotonic() - begin)


def _judged(host: Host, room: Path, failed: list[str], seconds: float) -> Report:
    parts = []
    try:
        probe = json.loads((room / "probe.json").read_text())
        parts.append(judge.counts(probe))
        failed += _compared(host, probe)
    except (OSError, ValueError) as error:
        failed.append(f"no table came back: {error}")
    try:
        tests = junit.read(room / "junit.xml")
        parts.append(tests.line)
        failed += tests.failed
    except HostFailed as error:
        failed.append(str(error))
    return Report(host.name, "; ".join([*parts, f"{seconds:.0f} s"]), tuple(dict.fromkeys(failed)))


def _compared(host: Host, probe: dict[str, object]) -> list[str]:
    path = judge.EXPECTED / f"{host.name}.toml"
    if not path.exists():
        path = judge.EXPECTED / f"{host.usual}.toml"
    if not path.exists():
        return [f"no file of expected verdicts: {path.relative_to(parcel.PROJECT)}"]
    try:
        return judge.differences(judge.read(path), probe)
    except LabError as error:
        return [str(error)]


__all__ = ["NotToBeHad", "Prepared", "Report", "prepare", "run"]
