# SPDX-License-Identifier: GPL-2.0-or-later
"""What prepared.py begins a guest with, kept after a run by the long way: of guests that print and end, and ask for
nothing else. It knows all that such a run depends on.

Not kept is what the long way would do more than show: results, a host half, devices, notes. Nor what has just changed,
for a file that changes while it is read would be taken for what it is now.
"""

from __future__ import annotations

import marshal
import os
import sys
from _imp import source_hash
from time import time_ns

from vmm.abi.ports import DEBUG_CONSOLE, EXIT_VALUE_PASS
from vmm.asm import cache, source
from vmm.asm.assembler import FOLDERS
from vmm.base.bits import MASK64
from vmm.base.record import replace
from vmm.errors import PayloadError
from vmm.kvm.buffers import cpuid_bytes, packed_u64
from vmm.kvm.plain import DECODE, STAGING, offered_cpuid, pieces
from vmm.machine.ends import Why
from vmm.machine.plain import EXIT_KEY
from vmm.machine.x86 import boot
from vmm.machine.x86.owed_cpuid import of_first_vcpu, with_apic_id
from vmm.payload.catalog import GROUPS, INCLUDES, ROOT
from vmm.payload.header import Header
from vmm.payload.outcome import EXIT_CODES
from vmm.payload.prepared import KEY, MAGIC, PACKAGE, place
from vmm.payload.run import conclude

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from vmm.machine.plain import Plain
    from vmm.payload.guest import Guest

PASS = "pass"
QUICK = 0.02  # seconds within which a run has ended that is kept
PATIENCE_NS = 100_000_000  # until the next is given up: nobody sees what it prints before it has ended
LEAST_TIMEOUT = 1.0  # seconds: a shorter one of the header could end it earlier
SETTLED_NS = 10_000_000_000  # since the last change of anything that a run depends on
ABSENT = (MASK64, MASK64)
ENDS = {Why.EXIT_PORT: (EXIT_KEY, {}), Why.HALT: (DECODE, {"Halt": 1})}


def keep(guest: Guest, name: str) -> None:
    """Keep this run of `pyvmm run NAME`, before its machine is closed, if it is one to be kept and there is a place."""
    reason = _reason(guest)
    plain = guest.machine._plain
    if reason is None or plain is None:
        return
    try:
        file = place(name)
        paths, states, changed = _states(sorted(set(_inputs(guest))))
    except (OSError, PayloadError):
        return
    if file is None or changed > time_ns() - SETTLED_NS:
        return
    parts = _parts(guest, plain)
    if parts is None:
        return
    shown = {"payload": guest.payload.name, "outcome": PASS, "reason": reason, "status": EXIT_CODES[PASS]}
    told = marshal.dumps({"paths": paths, "states": states, **shown, **parts}, 2)
    data = MAGIC + source_hash(KEY, told) + told
    try:
        with open(file, "rb") as before:
            if before.read() == data:
                return  # this once it did not end as it does
    except OSError:
        pass
    try:
        cache.write(file, data)
    except (OSError, ValueError):
        pass  # the assembler's cache has said it


def _reason(guest: Guest) -> str | None:
    """What the line behind a run says of its end; None: it is none that can be kept."""
    payload, header, result, timeout = guest.payload, guest.header, guest.result, guest.header.timeout
    told = replace(header, summary="", params={}, memory=None, timeout=None, output_limit=None)
    if result is None or payload.text is None or payload.in_c or told != Header() or payload.host_half():
        return None
    if payload.overlooked() or (timeout is not None and timeout < LEAST_TIMEOUT):
        return None
    if result.stop.why not in ENDS or result.wall > QUICK or len(result.console) > STAGING:
        return None
    outcome, reason = conclude(guest, result, None)
    return reason if outcome == PASS else None


def _states(paths: list[str]) -> tuple[bytes, bytes, int]:
    """As vmm_unchanged takes them: the paths, and of each the bytes of its file and the time of its last change, or
    twice all ones where there is none; and the latest of these times, in ns.
    """
    states: list[int] = []
    latest = 0
    for path in paths:
        try:
            found = os.stat(path)
        except OSError:
            states += ABSENT
        else:
            states += (found.st_size, found.st_mtime_ns)
            latest = max(latest, found.st_mtime_ns)
    return b"".join(os.fsencode(path) + b"\0" for path in paths), packed_u64(states), latest


def _parts(guest: Guest, plain: Plain) -> dict[str, Any] | None:
    """What vmm_prepared_run takes (_prepared.h). None: KVM does not answer about CPUID."""
    offer, cpuid = offered_cpuid(plain.c.kvm), of_first_vcpu(plain.c.kvm)
    if offer is None or cpuid is None:
        return None
    # Whichever CPU is asked, its own APIC id is in the answer.
    least, most = (cpuid_bytes(with_apic_id(offer, each)) for each in (0, 0xFFFF_FFFF))
    mask = bytes(~(a ^ b) & 0xFF for a, b in zip(least, most, strict=True))
    image = boot.image(plain.size, (), ()) + pieces([(guest.program.base, guest.program.code)])
    sregs, regs = boot.registers(guest.program.entry, ring=0)
    key, last = ENDS[guest.result.stop.why]  # type: ignore[union-attr]
    room = min(guest.machine.sink.limit, STAGING)
    return {
        "begin": (plain.size, len(image), len(mask), PATIENCE_NS, key, EXIT_VALUE_PASS, DEBUG_CONSOLE, room),
        "image": image, "offer": least, "mask": mask, "cpuid": cpuid_bytes(cpuid),
        "sregs": sregs, "regs": regs, "last": last,
    }  # fmt: skip


def _inputs(guest: Guest) -> Iterator[str]:
    """Every file that has a part in the run, and every one that would have if it were there.

    Raises:
        OSError, PayloadError: one cannot be read.
    """
    for module in [*sys.modules.values()]:
        file = getattr(module, "__file__", None)
        if file and file.startswith((PACKAGE + os.sep, ROOT + os.sep)):
            yield file
    for folder in FOLDERS:
        yield from (os.path.join(folder, each) for each in os.listdir(folder) if each.endswith(".py"))
    payload = guest.payload
    yield os.path.abspath(os.path.splitext(payload.file)[0] + ".py")
    for group in GROUPS if payload.group else ():
        yield os.path.join(ROOT, group, f"{payload.name}.asm")
    yield from _texts(os.path.abspath(payload.file), os.path.abspath(os.path.dirname(payload.file)), set())


def _texts(file: str, beside: str, seen: set[str]) -> Iterator[str]:
    """The file, what it includes, and where that was looked for in vain."""
    yield file
    seen.add(file)
    for row in source.read_text(file).splitlines():
        wanted = source.included(source.strip_comment(row))
        for each in source.candidates(wanted[1:-1], file, (beside, INCLUDES)) if wanted else ():
            yield each
            if os.path.isfile(each):
                if each not in seen:
                    yield from _texts(each, beside, seen)
                break
