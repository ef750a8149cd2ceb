# SPDX-License-Identifier: GPL-2.0-or-later
"""A snapshot in a file, and the machine that starts from it, in whichever process of the same host.

    magic (8)  version (u32)  bytes of the text (u64)  text (frozen.py)
    for each memslot: a bit for each page that is there; those pages
    SHA-256 of all that

Numbers are little-endian. Pages of zeros are left out. The sum is looked at before anything else is believed.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from vmm.abi.x86 import PAGE
from vmm.errors import HostError, UsageError, os_reason
from vmm.kvm.memory import Mapping
from vmm.kvm.system import Kvm
from vmm.machine import frozen
from vmm.machine.snapshot import Snapshot, become, memory_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from vmm.machine.whole import Whole

    W = TypeVar("W", bound=Whole)

MAGIC = b"pyvmmSNP"
VERSION = 1
HEAD = struct.Struct("<8sIQ")
SUM = hashlib.sha256().digest_size
PIECE = 1 << 20
ZEROS = bytes(PAGE)


def save(snapshot: Snapshot, shape: dict[str, Any], path: str | Path, about: dict[str, Any] | None = None) -> int:
    """See `Machine.save_snapshot`. Bytes that were written."""
    path = Path(path)
    machine, memory = snapshot.machine, snapshot.copied()
    readonly = [slot for slot in machine.memory.slots if slot.readonly]
    if readonly:
        raise UsageError(f"saving a snapshot: the read-only memslot at {readonly[0].gpa:#x} is no part of it")
    slots = [(slot.gpa, slot.size) for slot in snapshot.slots]
    state = frozen.frozen(machine, shape, snapshot.parts, snapshot.devices, slots, snapshot.started)
    text = frozen.text_of(state | {"about": about or {}})
    made = path.with_name(f"{path.name}.{os.getpid()}")  # renamed when done: nobody meets half a file
    try:
        with made.open("xb") as file:
            out = _Summed(file)
            out.write(HEAD.pack(MAGIC, VERSION, len(text)))
            out.write(text)
            at = 0
            for _, size in slots:
                _write_slot(out, memory[at : at + size])
                at += size
            file.write(out.sum.digest())
            written = file.tell()
        made.replace(path)
    except OSError as error:
        raise HostError(f"saving a snapshot to {path}: {os_reason(error)}") from error
    finally:
        made.unlink(missing_ok=True)
    return written


class _Summed:
    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sum = file, hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self.sum.update(data)
        self._file.write(data)


def _write_slot(out: _Summed, memory: memoryview) -> None:
    pages = len(memory) // PAGE
    there = [page for page in range(pages) if memory[page * PAGE : (page + 1) * PAGE] != ZEROS]
    bits = bytearray((pages + 7) // 8)
    for page in there:
        bits[page >> 3] |= 1 << (page & 7)
    out.write(bytes(bits))
    for page in there:
        out.write(memory[page * PAGE : (page + 1) * PAGE])


def load(
    kind: Callable[..., W], path: str | Path, prepare: Callable[[Any], object] | None, options: dict[str, Any]
) -> W:
    """See `Machine.load_snapshot`."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            state = _checked(file, path)
            return _started(kind, state, file, path, prepare, options)
    except OSError as error:
        raise HostError(f"reading the snapshot {path}: {os_reason(error)}") from error


def about(path: str | Path) -> dict[str, Any]:
    """What whoever saved it had to say (Machine.save_snapshot).

    Raises:
        UsageError: it is damaged, or no snapshot of this version.
        HostError: it cannot be read.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            found = _checked(file, path).get("about", {})
    except OSError as error:
        raise HostError(f"reading the snapshot {path}: {os_reason(error)}") from error
    return found if isinstance(found, dict) else {}


def _checked(file: BinaryIO, path: Path) -> frozen.Frozen:
    """The text's value; the file stands behind it. UsageError: it is damaged, or no snapshot of this version."""
    size = os.fstat(file.fileno()).st_size
    head = file.read(HEAD.size)
    magic, version, length = HEAD.unpack(head) if len(head) == HEAD.size else (b"", 0, 0)
    if magic != MAGIC:
        raise UsageError(f"{path} is no snapshot of pyvmm's")
    if version != VERSION:
        raise UsageError(f"{path} is a snapshot of version {version}; this pyvmm reads version {VERSION}")
    summed, left = hashlib.sha256(head), size - HEAD.size - SUM
    while left > 0 and (piece := file.read(min(PIECE, left))):
        summed.update(piece)
        left -= len(piece)
    if left or file.read() != summed.digest():
        raise UsageError(f"{path} is damaged: its checksum is not that of what is in it", hint="save it again")
    file.seek(HEAD.size)
    state = frozen.value_of(file.read(min(length, size)), str(path))
    if not isinstance(state, dict):
        raise UsageError(f"{path} is nothing that pyvmm wrote")
    return state


def _started(
    kind: Callable[..., W],
    state: frozen.Frozen,
    file: BinaryIO,
    path: Path,
    prepare: Callable[[Any], object] | None,
    options: dict[str, Any],
) -> W:
    try:
        slots = [(int(gpa), int(size)) for gpa, size in state["slots"]]
        if any(size <= 0 or size % PAGE or gpa % PAGE for gpa, size in slots):
            raise ValueError
        fd = memory_file(total := sum(size for _, size in slots))
        try:
            with_all = Mapping(total, shared=True, fd=fd)
            try:
                at = 0
                for _, size in slots:
                    _read_slot(file, memoryview(with_all.bytes)[at : at + size])
                    at += size
            finally:
                with_all.close()
            machine = machine_of(kind, state, prepare, options)
            stand(machine, state, fd, total)
            return machine
        finally:
            os.close(fd)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} is nothing that pyvmm wrote: {type(error).__name__}") from error


def _read_slot(file: BinaryIO, memory: memoryview) -> None:
    with memory:
        pages = len(memory) // PAGE
        bits = file.read((pages + 7) // 8)
        for page in range(pages):
            if bits[page >> 3] >> (page & 7) & 1:
                with memory[page * PAGE : (page + 1) * PAGE] as place:
                    place[:] = file.read(PAGE)


def machine_of(
    kind: Callable[..., W], state: frozen.Frozen, prepare: Callable[[Any], object] | None, options: dict[str, Any]
) -> W:
    """A machine of that kind (Machine, or one derived from it) as the state needs it; it does not stand there yet.

    Raises:
        AnotherHost: it is of another host.
        HostError: KVM or the host refuses something.
    """
    given = options.get("kvm")
    with Kvm.open() if given is None else _Borrowed(given) as kvm:
        frozen.check_host(state, kvm)
    machine = kind(**{name: state["shape"][name] for name in frozen.SHAPE} | options)
    try:
        if len(machine.cpus) != len(state["cpuid"]):
            raise UsageError(f"this state is of a machine with {len(state['cpuid'])} vCPUs")
        frozen.check_cpuid(state, machine)
        if prepare is not None:
            prepare(machine)
    except BaseException:
        machine.close()
        raise
    return machine


def stand(machine: Whole, state: frozen.Frozen, fd: int, size: int) -> None:
    """Make it what the state says, with the memory behind `fd`, `size` bytes, mapped privately. It is closed where that
    cannot be: errors as vmm.machine.snapshot.become.
    """
    try:
        become(machine, state["parts"], state["devices"], [tuple(each) for each in state["slots"]], fd, size)
        machine.take_over(frozen.program_of(state), state["started"])
    except BaseException:
        machine.close()
        raise


class _Borrowed:
    def __init__(self, kvm: Kvm) -> None:
        self._kvm = kvm

    def __enter__(self) -> Kvm:
        return self._kvm

    def __exit__(self, *_: object) -> None:
        """It stays open."""
