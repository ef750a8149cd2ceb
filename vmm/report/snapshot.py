# SPDX-License-Identifier: GPL-2.0-or-later
"""A document of `pyvmm probe --json` as somebody hands it in: checked, and as values. It opens no file, runs nothing.

Whatever was parsed from a file may come: a document of another command, of another schema, edited by hand. Each is
refused with a line that names the file and what is wrong; nothing below here meets an unexpected type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vmm.errors import UsageError
from vmm.payload.proof.verdict import ORDER, Verdict
from vmm.report.columns import one_line
from vmm.report.probe import SCHEMA

VERDICTS = frozenset(map(str, Verdict))
ERROR = "error"
NOT_PROBED = "not probed"
# What a feature can be in a document, from best to worst. Where pyvmm itself failed, or nobody asked, nothing is known;
# only what contradicts the ABI is worse than that.
LADDER = (*map(str, ORDER[:-1]), ERROR, NOT_PROBED, str(Verdict.BROKEN))
# Keys that only other commands write, so that a mix-up can be named.
OTHERS = {"usable": "doctor", "payload": "run", "payloads": "list", "entries": "cpuid", "bits": "cpuid", "a": "diff"}


@dataclass(frozen=True)
class Entry:
    """One feature, or topic of the KVM API, of one document. `state` is a word of LADDER; `refusals` maps (kind, what)
    to what was observed, and `deviations` what deviated to what was observed and what the ABI says.
    """

    name: str
    bit: int | None
    register: str
    offered: bool
    state: str
    reason: str
    refusals: Mapping[tuple[str, str], str]
    topic: bool = False
    deviations: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return usable(self.state)


@dataclass(frozen=True)
class Snapshot:
    """One document. `host` is as it stands there; `notes` say what weakens a comparison with it.

    `entries` holds features and, where they were asked for, topics of the KVM API.
    """

    file: str
    host: Mapping[str, Any]
    entries: Mapping[str, Entry]
    refusals_asked: bool
    topics_asked: bool
    notes: tuple[str, ...]

    def state(self, name: str) -> str:
        return self.entries[name].state if name in self.entries else NOT_PROBED

    @property
    def line(self) -> str:
        """`Linux 6.1.0; AMD SVM (kvm_amd); ring 0 is native; ...`."""
        return one_line(f"Linux {self.host['kernel']}; {self.host['text']}")


def usable(state: str) -> bool:
    """Can a guest rely on a feature in this state?"""
    return state in VERDICTS and Verdict(state).usable


def rank(state: str) -> int:
    """0 for the best; greater is worse."""
    return LADDER.index(state)


def read(doc: object, file: str) -> Snapshot:
    """The document as values.

    Raises:
        UsageError: it is not one of `pyvmm probe --json`, or of a schema that this pyvmm does not know.
    """
    reader = _Reader(file)
    top = reader.typed(doc, dict, "the document")
    reader.check_kind(top)
    options = reader.member(top, "options", dict)
    found: dict[str, Entry] = {}
    topics = reader.typed(top.get("topics", []), list, "topics")
    for key, rows in (("features", reader.member(top, "features", list)), ("topics", topics)):
        for number, each in enumerate(rows):
            where = f"{key}[{number}]"
            entry = reader.entry(reader.typed(each, dict, where), where, topic=key == "topics")
            if entry.name in found:
                raise reader.wrong(f"{where} is {entry.name} a second time")
            found[entry.name] = entry
    return Snapshot(
        file=file,
        host=reader.host(top),
        entries=found,
        refusals_asked=bool(options.get("refusals", True)),
        topics_asked=bool(topics),
        notes=tuple(_notes(top, options)),
    )


def _notes(top: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    notes = []
    if top.get("interrupted") is True:
        notes.append("the probe was interrupted")
    if isinstance(options.get("mask"), list) and options["mask"]:
        notes.append(f"features were hidden from it: --mask {', '.join(map(str, options['mask']))}")
    if options.get("enforce") is True:
        notes.append("KVM was made to refuse what is hidden: --enforce")
    if options.get("refusals") is False:
        notes.append("refusals were not asked for: --no-refusals")
    return [one_line(note) for note in notes]


class _Reader:
    """Takes values out of the document, or says in which file and at which place something is wrong."""

    def __init__(self, file: str) -> None:
        self.file = file

    def wrong(self, what: str) -> UsageError:
        return UsageError(f"{self.file}: {one_line(what)}", hint="`pyvmm probe --json > FILE` writes what is needed")

    def typed(self, value: object, kind: type | tuple[type, ...], where: str) -> Any:
        kinds = kind if isinstance(kind, tuple) else (kind,)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join(_NAMES[each] for each in kinds)
            raise self.wrong(f"{where} is {_name(value)}, and should be {names}")
        return value

    def member(self, parent: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str = "") -> Any:
        path = f"{where}.{key}" if where else key
        if key not in parent:
            raise self.wrong(f"not a document of `pyvmm probe --json`: it has no {path}")
        return self.typed(parent[key], kind, path)

    def check_kind(self, top: Mapping[str, Any]) -> None:
        if "features" not in top:
            other = next((command for key, command in OTHERS.items() if key in top and "schema" in top), None)
            told = f" but of `pyvmm {other}`" if other else ""
            raise self.wrong(f"not a document of `pyvmm probe --json`{told}")
        if self.member(top, "schema", int) != SCHEMA:
            raise self.wrong(f"schema {top['schema']}, and this pyvmm reads schema {SCHEMA} of `pyvmm probe --json`")

    def host(self, top: Mapping[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = self.member(top, "host", dict)
        for key in ("text", "kernel", "backend", "ring0", "hypercall"):
            self.member(found, key, str, "host")
        offer = self.member(found, "pv_features", dict, "host")
        for key in ("eax", "edx"):
            if not 0 <= self.member(offer, key, int, "host.pv_features") < 1 << 32:
                raise self.wrong(f"host.pv_features.{key} does not fit in 32 bits")
        return found

    def entry(self, row: Mapping[str, Any], where: str, *, topic: bool) -> Entry:
        if topic:  # which have no bit, and its keys neither
            row = {**row, "bit": None, "register": "", "offered": True}
        name = self.member(row, "name", str, where)
        bit = self.member(row, "bit", (int, type(None)), where)
        if bit is not None and not 0 <= bit < 32:
            raise self.wrong(f"{where}.bit is {bit}, and a register has 32")
        register = self.member(row, "register", str, where)
        if register not in (("",) if bit is None else ("eax", "edx")):
            raise self.wrong(f"{where}.register is {register!r}")
        state = self.member(row, "verdict", str, where)
        if state not in VERDICTS:
            raise self.wrong(f"{where}.verdict is {state!r}, which this pyvmm does not know")
        return Entry(
            name=f"api {name}" if topic else name,
            topic=topic,
            bit=bit,
            register=register,
            offered=self.member(row, "offered", bool, where),
            state=ERROR if self.member(row, "outcome", str, where) == ERROR else state,
            reason=self.member(row, "reason", str, where),
            refusals=dict(self._refusals(row, where)),
            deviations=self._deviations(row, where),
        )

    def _refusals(self, row: Mapping[str, Any], where: str) -> list[tuple[tuple[str, str], str]]:
        found = []
        for number, each in enumerate(self.member(row, "refusals", list, where)):
            place = f"{where}.refusals[{number}]"
            refusal = self.typed(each, dict, place)
            kind, what, observed = (self.member(refusal, key, str, place) for key in ("kind", "what", "observed"))
            found.append(((kind, what), observed))
        return found

    def _deviations(self, row: Mapping[str, Any], where: str) -> dict[str, tuple[str, str]]:
        """Documents of a pyvmm that knew none have no such key."""
        found = {}
        for number, each in enumerate(self.typed(row.get("deviations", []), list, f"{where}.deviations")):
            place = f"{where}.deviations[{number}]"
            deviation = self.typed(each, dict, place)
            what, observed, expected = (
                self.member(deviation, key, str, place) for key in ("what", "observed", "expected")
            )
            found[what] = (observed, expected)
        return found


_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}


def _name(value: object) -> str:
    return _NAMES.get(type(value), type(value).__name__)
