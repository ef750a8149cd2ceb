# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of virtio_blk: the file behind the disk, made before and looked into afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vmm.abi import virtio
from vmm.abi.virtio import SECTOR
from vmm.payload.proof.ending import run_to_pass
from vmm.payload.proof.lab import Lab
from vmm.payload.proof.verdict import Finding, Refusal, Verdict
from vmm.payload.proof.virtio_drivers import AGREED, Driver, driver, feature_refusals, wrong

SECTORS = 8
BEFORE = b"".join(bytes([0x30 + n]) * SECTOR for n in range(SECTORS))  # sector n is full of the digit n
WRITTEN = BEFORE[: 2 * SECTOR] + b"\xa5" * (2 * SECTOR)
CLEARED = bytes(SECTOR) + BEFORE[7 * SECTOR :]
AFTER = WRITTEN + bytes(2 * SECTOR) + CLEARED
KEPT = WRITTEN + BEFORE[4 * SECTOR : 6 * SECTOR] + CLEARED  # a file system without holes: a discard is a hint
REQUESTS = ("read", "write", "flush", "name", "beyond", "unknown", "discard", "zeroes", "misused")
OK, IOERR, UNSUPP = virtio.VIRTIO_BLK_S_OK, virtio.VIRTIO_BLK_S_IOERR, virtio.VIRTIO_BLK_S_UNSUPP
STATUSES = (OK, OK, OK, OK, IOERR, UNSUPP, OK, OK, UNSUPP)
READONLY = (OK, IOERR, UNSUPP, OK, IOERR, UNSUPP, UNSUPP, UNSUPP, UNSUPP)
KICKS, INTERRUPTS = 8, 7
LATE = 1  # the two requests with callbacks off are polled, and callbacks go on again right after the second
_WRITING = virtio.feature(
    virtio.VIRTIO_BLK_F_FLUSH, virtio.VIRTIO_BLK_F_DISCARD, virtio.VIRTIO_BLK_F_WRITE_ZEROES
)  # what a read-only disk does not offer


@dataclass(frozen=True)
class Evidence:
    """`statuses` by REQUESTS; `sector` is what the guest read, `name` the disk's; `file` is what lies there at the end,
    `flushes` how often it was made durable.
    """

    driver: Driver
    capacity: int | None = None
    statuses: tuple[int | None, ...] = ()
    length: int | None = None
    sector: bytes = b""
    name: bytes = b""
    file: bytes = b""
    flushes: int = 0


@contextmanager
def image() -> Iterator[Path]:
    """A file with SECTORS sectors and three bytes more, which are no sector."""
    with tempfile.TemporaryDirectory(prefix="pyvmm-") as folder:
        path = Path(folder) / "disk"
        path.write_bytes(BEFORE + b"xyz")
        yield path


def gather(lab: Lab, *, readonly: bool = False) -> Evidence:
    """Run the driver over a fresh image."""
    params = {"features": lab.param("features") & ~_WRITING} if readonly else {}
    with image() as path, lab.guest(params=params) as guest:
        disk = guest.machine.add_virtio_blk(path, readonly=readonly)
        run_to_pass(guest)
        results = guest.results
        return Evidence(
            driver(guest, disk),
            results["capacity"],
            tuple(results[name] for name in REQUESTS),
            results["length"],
            guest.machine.memory.read(guest.constant("READ"), SECTOR),
            guest.machine.memory.read(guest.constant("NAME"), virtio.VIRTIO_BLK_ID_BYTES).rstrip(b"\0"),
            path.read_bytes(),
            disk.device.flushes,
        )


def prove(lab: Lab) -> Finding:
    return judge(gather(lab))


def judge(evidence: Evidence) -> Finding:
    """Sector 1 was read, 2 and 3 were written and flushed, 4 to 6 cleared, the rest was refused by its status."""
    numbers = {
        **evidence.driver.numbers,
        "capacity": evidence.capacity,
        "statuses": dict(zip(REQUESTS, evidence.statuses, strict=False)),
        "bytes written for the read": evidence.length,
        "name": evidence.name.decode("ascii", "backslashreplace"),
        "sectors that changed": _changed(evidence.file),
        "flushes of the file": evidence.flushes,
    }
    text = _wrong(evidence)
    if text:
        return Finding(Verdict.BROKEN, text, numbers)
    summary = (
        f"{SECTORS} sectors: 1 read, 2 written and flushed (fdatasync {evidence.flushes}), 3 cleared; "
        f"{len(REQUESTS)} requests, "
        f"{evidence.driver.by_event} kicks without an exit"
    )
    return Finding(Verdict.WORKS, "", numbers, summary)


def _changed(file: bytes) -> list[int]:
    spans = [slice(n * SECTOR, (n + 1) * SECTOR) for n in range(SECTORS)]
    return [n for n, span in enumerate(spans) if file[span] != BEFORE[span]]


def _wrong(evidence: Evidence) -> str:
    text = wrong(evidence.driver, virtio.VIRTIO_ID_BLOCK, kicks=KICKS, interrupts=INTERRUPTS, late=LATE)
    if text or evidence.driver.status != AGREED:
        return text
    if evidence.capacity != SECTORS:
        return f"the disk has {evidence.capacity} sectors, and the file {SECTORS}"
    for name, got, want in zip(REQUESTS, evidence.statuses, STATUSES, strict=True):
        if got != want:
            return f"the status of {name} is {got}, and should be {want}"
    if evidence.length != SECTOR + 1 or evidence.sector != BEFORE[SECTOR : 2 * SECTOR]:
        return f"the guest read {evidence.length} bytes, and they are not sector 1 and its status"
    if evidence.file not in (AFTER + b"xyz", KEPT + b"xyz"):
        return f"sectors {_changed(evidence.file)} of the file changed; 2 and 3 were written, 4 to 6 cleared"
    if not evidence.name or evidence.flushes != 1:
        return f"the disk is called {evidence.name!r}, and the file was flushed {evidence.flushes} times for 1 request"
    return ""


def refusals(lab: Lab) -> list[Refusal]:
    """The features, and a read-only disk: writing is an I/O error, flushing unsupported, and the file as it was."""
    with image() as path:
        rows = feature_refusals(lab, lambda machine: machine.add_virtio_blk(path), lab.param("features"))
    found = gather(lab, readonly=True)
    offered = bool(found.driver.offered & virtio.feature(virtio.VIRTIO_BLK_F_RO))
    rows.append(Refusal("argument", "a read-only disk has VIRTIO_BLK_F_RO", "yes", "yes" if offered else "no"))
    for name, status, want in zip(REQUESTS, found.statuses, READONLY, strict=True):
        rows.append(Refusal("argument", f"request `{name}` to a read-only disk", f"status {want}", f"status {status}"))
    changed = ", ".join(map(str, _changed(found.file))) or "none"
    rows.append(Refusal("argument", "sectors of a read-only disk that change", "none", changed))
    return rows
