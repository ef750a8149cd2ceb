# SPDX-License-Identifier: GPL-2.0-or-later
"""A host from its name to its line: packages settled, images made, started, steps run, verdicts compared."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools import kut_page

from . import (
    bochs,
    emulator,
    expected,
    fleet,
    guests,
    hosts,
    judge,
    junit,
    kernel,
    kut,
    mended_qemu,
    parcel,
    qemu,
    root,
    selftests,
    store,
)
from .errors import HostFailed
from .hosts import Host
from .packages import Archive
from .progress import Say

KVM = {"svm": "kvm_amd", "vmx": "kvm_intel"}
JUDGED = {"probe", "tests", selftests.STEP, kut.STEP}  # by expected verdicts, which are of a CPU as it usually is


@dataclass(frozen=True)
class Prepared:
    """A host of which everything is there that takes long to make."""

    host: Host
    kernel: kernel.Kernel
    root: Path
    folders: Mapping[str, Path]  # what the steps want below /lab: KVM's selftests, a Linux guest


@dataclass(frozen=True)
class Report:
    """How it ended: `skipped` with a reason, or `failed` lines (none: as expected), and what it said of itself."""

    name: str
    line: str
    failed: tuple[str, ...] = ()
    skipped: str = ""


def settle(host: Host, say: Say) -> tuple[Host, Archive, kernel.Source]:
    """Which kernel it is.

    Raises:
        NotToBeHad: the registry does not have it today.
    """
    archive = Archive(host.suite)
    archive.refresh(say)
    found = kernel.source(host, archive)
    return fitted(hosts.settled(host, found.version)), archive, found


def fitted(host: Host) -> Host:
    """The host as its steps need it. QEMU's VMRUN gives a guest an interrupt twice now and then (docs/hostlab.md):
    payloads bear it, a Linux does not, so an SVM host that starts one has a QEMU that is mended. Where none can be had,
    it has one CPU, and time by instructions, with which it comes less often. Its kernel uses no XSAVE, which QEMU gets
    wrong for a guest, unless verdicts are compared there that are of a CPU with it.
    """
    if host.kind != "svm" or not parcel.systems(host.steps):
        return host
    host = replace(host, xsave=bool(JUDGED & {*host.steps}))
    return replace(host, mended=True) if mended_qemu.can_be_made() else replace(host, cpus=1, counted=True)


def prepare(host: Host, archive: Archive, found: kernel.Source, say: Say) -> Prepared:
    """Fetch and make what the host needs; what is there is not made again.

    Raises:
        NotToBeHad: the registry does not have it today.
        LabError: something is missing here, or failed.
    """
    if host.emulator == "bochs":
        bochs.binary(say)
    if host.mended:
        mended_qemu.binary(say)
    parcel.dependencies(say)
    parcel.wheels(say)
    folders = {}
    if selftests.STEP in host.steps:
        folders[selftests.FOLDER] = selftests.programs(archive, found, say)
    if parcel.guests(host.steps):
        folders[guests.FOLDER] = guests.linux(archive, found, say)
        for kernel_name in host.guests:
            other, its_archive, source = settle(replace(host, kernel=kernel_name, release=""), say)
            folders[f"{guests.FOLDER}-{other.kernel}"] = guests.linux(its_archive, source, say)
    image = root.image(say, parcel.packages(host.steps))
    cards = [card] if (card := parcel.card(host.steps)) else []
    return Prepared(host, kernel.kernel(host, archive, found, say, cards), image, folders)


def run(prepared: Prepared, out: Path, patience: float, say: Say, crew: fleet.Crew | None = None) -> Report:
    """Start the host, run its steps, compare. What goes wrong with the host is in the report. `crew` is that of the
    step `fleet`, where it is asked for.

    Raises:
        LabError: the lab itself failed.
    """
    host = prepared.host
    room = out / host.name
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    failed, begin = list[str](), time.monotonic()
    member = crew.join(host, room) if crew else None
    with ThreadPoolExecutor() as pool, store.scratch("run") as work:
        runs = [
            pool.submit(_share, prepared, steps, work / "-".join(steps), room / console, patience, say, member)
            for steps, console in zip(host.shares, ("console.txt", "console-2.txt"), strict=False)
        ]
        for each in runs:
            failed += each.result()
    if member:
        failed = member.left(failed)
    return judged(host, room, failed, time.monotonic() - begin)


def _share(
    prepared: Prepared,
    steps: Sequence[str],
    work: Path,
    console: Path,
    patience: float,
    say: Say,
    member: fleet.Member | None,
) -> list[str]:
    """One machine from its start to its end, and what went wrong; its results go beside its console."""
    host, failed = prepared.host, list[str]()

    def heard(line: str) -> None:
        say(line)
        ended = emulator.END.match(line)
        if ended and ended[1] != "0":
            failed.append(f"{line}: see {console}")

    work.mkdir()
    folders, more = dict(prepared.folders), dict(member.parameters if member else {})
    if host.images and kut.STEP in steps:
        folders[kut.FOLDER] = kut.stage(host.images, work / kut.FOLDER)
        more |= host.images.parameters
    disk, at = parcel.build(work, steps, KVM[host.kind], folders, host.tests, more)
    make = bochs.command if host.emulator == "bochs" else qemu.command
    words = make(host, prepared.kernel, emulator.Disks(prepared.root, disk, at), work)
    words += qemu.network(member.ports) if member else []
    limits = emulator.Limits(parcel.limits(steps)).times(patience)
    say(f"starting, Linux {prepared.kernel.release}; its console: {console}")
    try:
        with _told(failed):
            emulator.run(words, console, limits=limits, say=heard, began=member.began if member else lambda pid: None)
    finally:  # after a failure or a signal too: what was handed back by then is there
        with _told(failed):
            parcel.unpack(disk, at, console.parent)
    return failed


@contextmanager
def _told(failed: list[str]) -> Iterator[None]:
    try:
        yield
    except HostFailed as error:
        failed.append(str(error))


def judged(host: Host, room: Path, failed: list[str], seconds: float) -> Report:
    """The report of what came back into a folder, as far as its steps leave it; `failed` is what is known to have gone
    wrong.
    """
    by_verdict = JUDGED & {*host.steps}
    path = expected.file_for(host) if by_verdict else None
    wanted = expected.read(path, host.variant) if path else None
    lines, parts = list(failed), []
    if by_verdict and path is None:
        lines.append(f"no file of expected verdicts for {host.kind}: {expected.FOLDER}")

    if host.only:
        parts.append(f"only {', '.join(host.steps)}")
    if host.tests:
        parts.append(f"only tests {host.tests}")
    if "doctor" in host.steps:
        with _missing(lines, "doctor.json"):
            lines += judge.of_doctor(host.kind, _json(room / "doctor.json"))
    if "probe" in host.steps:
        with _missing(lines, "probe.json"):
            probe = _json(room / "probe.json")
            parts.append(judge.counts(probe))
            lines += judge.differences(wanted, probe) if wanted else []
    if "tests" in host.steps:
        with _missing(lines, "junit.xml"):
            tests = junit.read(room / "junit.xml")
            parts.append(tests.line)
            lines += judge.of_tests(wanted, tests, whole=not host.tests) if wanted else []
    if selftests.STEP in host.steps:
        with _missing(lines, selftests.RESULTS):
            told = _json(room / selftests.RESULTS)
            parts.append(judge.counts_of_selftests(told))
            lines += judge.of_selftests(wanted, told) if wanted else []
    if kut.STEP in host.steps:
        with _missing(lines, kut.RESULTS):
            images = _json(room / kut.RESULTS)
            parts.append(judge.counts_of_kut(images))
            lines += judge.of_kut(wanted.kut if wanted else {}, images)
            (room / kut.TABLE).write_text(kut_page.table(images, images) + "\n", encoding="utf-8")
    for step, file in parcel.checks(host.steps).items():
        with _missing(lines, file):
            found = _json(room / file)
            parts.append(judge.counted_checks(step, found))
            lines += judge.of_checks(step, found)
    parts.append(f"{seconds:.0f} s")
    if path and path.stem != host.name:
        parts.append(f"judged by {path.name}")
    return Report(host.name, "; ".join(parts), tuple(dict.fromkeys(lines)))


@contextmanager
def _missing(lines: list[str], name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError) as error:
        lines.append(f"{name}: did not come back as it should: {error!r}")
    except HostFailed as error:
        lines.append(f"{name}: {error}")


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
