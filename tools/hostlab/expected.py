# SPDX-License-Identifier: GPL-2.0-or-later
"""What is expected of a host: a file of expected/ that is reviewed like code. Reads, and refuses what does not say why.

    [features]
    STEAL_TIME = "works"
    MMU_OP = { verdict = "absent", why = "removed from KVM" }
    PV_UNHALT = { verdict = "works", deviations = ["the bit with HLT exits disabled"], why = "..." }

    [topics]
    dirty_log = { verdict = "broken", fault = "qemu-ring3-io" }

    [tests]                                     # those that do not pass
    "tests.kvm.test_x::test_y" = { verdict = "failed", fault = "qemu-ring3-io" }

    [selftests]                                 # of the kernel; one that is not here passes, or skips itself
    debug_regs = { verdict = "fail", fault = "qemu-int3" }
    steal_time = { verdict = "pass", why = "..." }      # also where it passes, and rows of pyvmm's are not good

    [kut]                                       # of kvm-unit-tests' images: those that QEMU passes and pyvmm does not
    eventinj = { verdict = "fail", why = "..." }

    [variant.1cpu.features]                     # what differs on a host whose name has -1cpu
    PV_SCHED_YIELD = { verdict = "unproven", why = "..." }

A fault is the emulator's own, neither KVM's nor pyvmm's: a table of expected/faults.toml, with what shows it in a row's
evidence and how it was told from KVM's.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import LabError
from .hosts import Host

FOLDER = Path(__file__).parent / "expected"
FAULTS = "faults.toml"
PLAIN = frozenset({"works", "advertised", "pass"})  # verdicts that need no reason
KEYS = frozenset({"verdict", "verdicts", "why", "deviations", "fault"})
KINDS = ("features", "topics", "tests", "selftests", "kut")
FAULT_KEYS = frozenset({"emulator", "what", "told", "shows"})


@dataclass(frozen=True)
class Fault:
    """An emulator's own. `shows` is a pattern of the evidence of each row that has it, `told` how it was told from
    KVM's.
    """

    name: str
    emulator: str
    what: str
    told: str
    shows: str

    def shown_in(self, text: str) -> bool:
        return bool(re.search(self.shows, text))


@dataclass(frozen=True)
class Wanted:
    """Of one row. `verdicts`: usually one; more only where the host really may show either, and `why` says so."""

    verdicts: tuple[str, ...]
    why: str = ""
    deviations: tuple[str, ...] = ()
    fault: Fault | None = None

    @property
    def should(self) -> str:
        """For a person: `works`, `pass or fail`."""
        return " or ".join(self.verdicts)

    def allows(self, verdict: str, mended: str) -> bool:
        """An emulator's fault may be `mended` in another version of it: then that verdict is right too."""
        return verdict in self.verdicts or (self.fault is not None and verdict == mended)

    def lacks(self, verdict: str, mended: str, text: str) -> Fault | None:
        """The fault that should be the reason of this verdict, and does not show in the text."""
        return self.fault if self.fault and verdict != mended and not self.fault.shown_in(text) else None


@dataclass(frozen=True)
class Expected:
    """Of one host: each feature and topic, the tests that do not pass, the selftests that there is something to say of,
    tests of kvm-unit-tests' that pass in QEMU alone.
    `file` says where it is from.
    """

    features: Mapping[str, Wanted]
    topics: Mapping[str, Wanted]
    tests: Mapping[str, Wanted]
    selftests: Mapping[str, Wanted]
    kut: Mapping[str, Wanted]
    file: Path


def file_for(host: Host, folder: Path | None = None) -> Path | None:
    """The host's own file, or the nearest: that of the newest older kernel of its kind, else of the oldest. None, if
    there is no file of its kind.
    """
    of_kind = {_series(path.stem): path for path in (folder or FOLDER).glob(f"{host.kind}-*.toml")}
    older = [series for series in of_kind if series <= _series(host.usual)]
    return of_kind[max(older) if older else min(of_kind)] if of_kind else None


def of(host: Host) -> Expected:
    """What is expected of the host. LabError: there is no file for its kind, or the file is not as it should be."""
    path = file_for(host)
    if path is None:
        raise LabError(f"no file of expected verdicts for {host.kind}: {FOLDER}")
    return read(path, host.variant)


def _series(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", name.partition("-")[2]))


def read(path: Path, variant: tuple[str, ...] = ()) -> Expected:
    """The file, with the tables of the variants that the host has.

    Raises:
        LabError: naming the file and the row, for one that is not as it should be.
    """
    tables, faults = _toml(path), read_faults(path.parent / FAULTS)
    if unknown := set(tables) - {*KINDS, "variant"}:
        raise LabError(f"{path}: unknown: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}, variant")
    rows: dict[str, dict[str, Wanted]] = {kind: {} for kind in KINDS}
    layers = [("", tables), *tables.get("variant", {}).items()]
    for name, layer in layers:
        for kind in KINDS:
            found = {row: _wanted(path, row, value, faults) for row, value in layer.get(kind, {}).items()}
            if not name or name in variant:
                rows[kind] |= found
    return Expected(rows["features"], rows["topics"], rows["tests"], rows["selftests"], rows["kut"], path)


def read_faults(path: Path) -> dict[str, Fault]:
    """Raises: LabError, for a fault that does not say all of it."""
    tables = _toml(path) if path.exists() else {}
    for name, table in tables.items():
        if set(table) != FAULT_KEYS or not all(table.values()):
            raise LabError(f"{path}: {name} needs {', '.join(sorted(FAULT_KEYS))}, and nothing else")
    return {name: Fault(name, **table) for name, table in tables.items()}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise LabError(f"{path}: {error}") from error


def _wanted(path: Path, name: str, value: object, faults: Mapping[str, Fault]) -> Wanted:
    if isinstance(value, str):
        value = {"verdict": value}
    if not isinstance(value, dict) or set(value) - KEYS or ("verdict" in value) == ("verdicts" in value):
        raise LabError(f"{path}: {name} needs a verdict, and beside it only {', '.join(sorted(KEYS))}")
    verdicts = tuple(value["verdicts"]) if "verdicts" in value else (value["verdict"],)
    fault = value.get("fault")
    if fault is not None and fault not in faults:
        raise LabError(f"{path}: {name} names the fault {fault}, which {FAULTS} does not have")
    wanted = Wanted(verdicts, value.get("why", ""), tuple(value.get("deviations", ())), faults.get(fault or ""))
    odd = set(wanted.verdicts) - PLAIN or wanted.deviations or len(wanted.verdicts) > 1
    if odd and not wanted.why and not wanted.fault:
        raise LabError(f"{path}: {name} is {' or '.join(verdicts)} and does not say why")
    return wanted
