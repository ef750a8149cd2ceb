# SPDX-License-Identifier: GPL-2.0-or-later
"""A payload's run that leaves a snapshot on its way, and what of its options a run from there needs again.

It knows payloads and options; how a machine becomes a file is vmm.machine's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vmm.base.record import replace
from vmm.errors import UsageError
from vmm.machine.ends import Result, Why
from vmm.payload.options import BootOptions, Options, check_timeout

if TYPE_CHECKING:
    from vmm.payload.catalog import Payload
    from vmm.payload.guest import AnyGuest

START, END = "start", "end"
_SECONDS = re.compile(r"(\d+|\d*\.\d+|\d+\.)s")
_KEPT = ("mask", "expose", "nets", "disks")  # tuples of words
_BOOT = ("args", "initrd", "modules", "base", "entry", "mode", "protocol")
SHORTEST = 1e-3  # seconds: what is left of a limit that is over ends a run at once


class Keeper:
    """`run` in place of Machine.run (Options.runs): the first run leaves a snapshot in the file `path`, and goes on.

    `when` is `start` (nothing has run), `end` (of the first run), `2.5s` of running, or a symbol or address that a vCPU
    comes to. `size` is the file's, bytes; None as long as it is not written.
    """

    def __init__(self, path: str, when: str, about: dict[str, Any]) -> None:
        self.path, self.when, self.size = path, when, None
        self._about, self._due = about, True
        found = _SECONDS.fullmatch(when)
        self._seconds = check_timeout(float(found[1])) if found else None
        self.ended = ""
        """How the run ended that did not come there."""

    size: int | None

    def run(self, guest: AnyGuest, timeout: float | None) -> Result:
        """See Options.runs; errors as Machine.run and Machine.save_snapshot."""
        machine, exits = guest.machine, guest.options.exit_limit
        if not self._due:
            return machine.run(timeout, exit_limit=exits)
        self._due = False
        if self.when == START:
            self._save(guest)
            return machine.run(timeout, exit_limit=exits)
        if self.when == END:
            result = machine.run(timeout, exit_limit=exits)
            self._save(guest)
            return result
        return self._on_its_way(guest, machine.limit(timeout))

    def _on_its_way(self, guest: AnyGuest, limit: float | None) -> Result:
        machine, exits = guest.machine, guest.options.exit_limit
        if self._seconds is None:
            first = machine.run(limit, until=_place(self.when), exit_limit=exits)
            there = first.stop.why is Why.REACHED
        else:
            sooner = limit is not None and limit <= self._seconds
            first = machine.run(limit if sooner else self._seconds, exit_limit=exits)
            there = first.stop.why is Why.TIME_LIMIT and not sooner
        if not there:
            self.ended = first.stop.text
            return first
        self._save(guest)
        counts = first.exits
        left = None if exits is None else max(1, exits - counts.total())
        rest = machine.run(None if limit is None else max(SHORTEST, limit - first.wall), exit_limit=left)
        return replace(rest, wall=first.wall + rest.wall, counts=dict(counts + rest.exits))

    def _save(self, guest: AnyGuest) -> None:
        machine = guest.machine
        with machine.snapshot() as snapshot:
            self.size = machine.save_snapshot(snapshot, self.path, self._about)


def _place(text: str) -> int | str:
    """An address where it begins with a digit, else a symbol."""
    if not text[:1].isdigit():
        return text
    try:
        return int(text, 0)
    except ValueError:
        raise UsageError(
            f"--snapshot-at {text}: give start, end, a symbol, an address such as 0x20010, or seconds such as 2.5s"
        ) from None


def about(payload: Payload, options: Options) -> dict[str, Any]:
    """What a run from the snapshot needs to know: the payload, and the options that made its machine what it is."""
    boot = options.boot
    return {
        "payload": payload.name if payload.group else payload.file,
        "params": dict(options.params),
        **{name: list(getattr(options, name)) for name in _KEPT},
        "rng": options.rng,
        "virtio_console": options.virtio_console,
        "boot": None if boot is None else {name: _plain(getattr(boot, name)) for name in _BOOT},
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def options_for(path: str, found: dict[str, Any], options: Options) -> Options:
    """The options with those that a snapshot's machine was made with; `nets` and `disks` that are given go first.

    Raises:
        UsageError: what the file says of them is nothing that `about` has said.
    """
    try:
        boot = found["boot"]
        words = {name: tuple(str(each) for each in found[name]) for name in _KEPT}
        return replace(
            options,
            params={str(name): int(value) for name, value in found["params"].items()},
            mask=words["mask"],
            expose=words["expose"],
            nets=options.nets or words["nets"],
            disks=options.disks or words["disks"],
            rng=bool(found["rng"]),
            virtio_console=bool(found["virtio_console"]),
            boot=None if boot is None else BootOptions(**boot | {"modules": tuple(boot["modules"])}),
            snapshot=path,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError(
            f"{path} does not say what it is a snapshot of", hint="Machine.load_snapshot starts it from Python"
        ) from None
