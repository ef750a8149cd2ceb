# SPDX-License-Identifier: GPL-2.0-or-later
"""What a word may mean, over everything that has a name or a number: features first, then every row of vmm.abi.

A word that is several things gives all of them. A kind in front (`exit 5`, `port 0x60`) chooses. It explains nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache

from vmm.abi import elsewhere, msrs, port_map, pv
from vmm.base import names
from vmm.errors import UsageError
from vmm.machine.memory import layout
from vmm.payload.catalog import Payload
from vmm.report import explain
from vmm.report.explain import Topic
from vmm.report.explain_facts import KINDS, Fact, facts, fold, registers, short

WORDS = {
    "msr": "msr", "exit": "exit", "cap": "capability", "capability": "capability", "hc": "hypercall",
    "hypercall": "hypercall", "port": "port", "vector": "exception", "exception": "exception", "leaf": "leaf",
    "cpuid": "cpuid", "gpa": "address", "address": "address", "struct": "structure", "structure": "structure",
    "field": "field", "region": "region", "feature": "feature", "constant": "constant", "flag": "flag",
    "register": "register", "quirk": "quirk", "vmexit": "vmexit", "virtio": "virtio", "row": "row",
    "term": "term",
}  # fmt: skip
"""What somebody may write in front -> the kind."""
BY_NUMBER = ("exit", "capability", "exception", "leaf")
MAX_WORD = 200
MAX_ADDRESS = 1 << 64
SHOWN = 6  # rows whose text has a word that names nothing
_XML = re.compile(r"<\s*/?\s*([a-z][\w-]*)|\bname\s*=\s*['\"]([\w.-]+)['\"]|\b(eoi)\s*=")
_FRAME = frozenset(("domain", "features", "kvm", "hyperv", "cpu", "feature", "clock", "timer", "apic"))


def candidates(word: str, proofs: Mapping[str, Payload]) -> list[Topic]:
    """Every topic that the word may mean, at least one; several where it is ambiguous.

    Raises:
        UsageError: there is none; the nearest names are offered, and rows whose text has the word.
    """
    word = word.strip()
    if len(word) > MAX_WORD:
        raise UsageError(f"a word of {len(word)} characters names nothing", hint="`pyvmm explain --list`")
    if fold(word) == "map":
        return [explain.find("map", proofs)]
    if " " in word and word in _index()["exact"]:  # `exit port` is a name
        return _without_doubles(_index()["exact"][word])
    if "<" in word:
        return _several(_in_xml(word), word, proofs)
    if "," in word or re.fullmatch(r"[+-][a-zA-Z][\w.-]*|[\w.-]+=\w+", word):
        return _several([re.sub(r"=.*", "", each).strip().lstrip("+-") for each in word.split(",")], word, proofs)
    if row := next((each for each in explain.topics(proofs) if each.kind == "row" and each.name == word), None):
        return [row]
    kind, rest = _qualified(word)
    number = _number(rest)
    if kind == "cpuid" and number is not None:  # `cpuid 1`: bits have names, leaves have numbers
        kind = "leaf"
    found = _by_number(number, proofs) if number is not None else _by_name(rest, proofs)
    if kind:
        own = [each for each in explain.topics(proofs) if fold(each.name) == fold(rest)]
        found = [each for each in (*found, *own, *_short_in(kind, rest)) if each.kind == kind][:1]
    if found:
        return found
    raise _unknown(word, proofs, kind, number)


def every(proofs: Mapping[str, Payload]) -> list[Topic]:
    """All that can be explained, by kind."""
    return [*explain.topics(proofs), *(topic_of(fact) for fact in (*registers(), *facts()))]


def topic_of(fact: Fact) -> Topic:
    """A row as a topic."""
    number = fact.value if fact.kind == "msr" else None
    register = msrs.find(number) if number is not None else None
    return Topic(fact.kind, fact.name, fact.meaning, msrs=(register,) if register else (), fact=fact)


def _several(found: Iterable[str], word: str, proofs: Mapping[str, Payload]) -> list[Topic]:
    """The topics of several words, those that name nothing left out unless none does."""
    topics: list[Topic] = []
    first: UsageError | None = None
    for each in filter(None, found):
        try:
            topics += [topic for topic in candidates(each, proofs) if topic not in topics]
        except UsageError as error:
            first = first or error
    if not topics:
        raise first or _unknown(word, proofs, "", None)
    return topics


def _in_xml(word: str) -> list[str]:
    """Names that a piece of libvirt's domain XML carries; the elements around them say nothing."""
    found = [tag or name or attribute for tag, name, attribute in _XML.findall(word)]
    return [each for each in found if each not in _FRAME] or (["kvm"] if "kvm" in found else [])


def _qualified(word: str) -> tuple[str, str]:
    """(kind, the rest) of `exit 5`, `port:0x60`, `struct kvm_steal_time`; ("", word) otherwise."""
    match = re.fullmatch(r"([a-zA-Z]+)[\s:]+(\S.*)", word)
    if match and match[1].lower() in WORDS:
        return WORDS[match[1].lower()], match[2].strip()
    return "", word


def _number(word: str) -> int | None:
    """A number that is not below zero, decimal or with 0x; None: it is none.

    Raises:
        UsageError: it is negative, or has more than 64 bits.
    """
    if not re.fullmatch(r"-?(0[xX][0-9a-fA-F_]+|[0-9][0-9_]*)", word):
        return None
    try:
        value = int(word, 0) if len(word) < 40 else MAX_ADDRESS
    except ValueError:  # 0x_ or 007
        return None
    if not 0 <= value < MAX_ADDRESS:
        raise UsageError(f"{word[:40]}: numbers and addresses go from 0 to {MAX_ADDRESS - 1:#x}")
    return value


def _by_number(number: int, proofs: Mapping[str, Payload]) -> list[Topic]:
    found: list[Topic] = []
    row = msrs.find(number)
    if row is not None:
        found.append(next(each for each in every(proofs) if each.kind == "msr" and each.name == row.name))
    call = pv.find_hypercall(number)
    if call is not None:
        found.append(explain.find(call.kernel_name, proofs))
    rows = facts()
    found += [topic_of(each) for each in rows if each.kind in BY_NUMBER and each.value == number]
    ports = port_map.at(number)
    found += [
        topic_of(each) for port in ports for each in rows
        if each.kind == "port" and (each.value, each.last, each.name) == (port.first, port.last, port.name)
    ]  # fmt: skip
    region = layout.region_at(number)
    if region is not None or not found:
        found.append(Topic("address", f"{number:#x}", _place(number, region), address=number))
    return found


def _place(number: int, region: layout.Region | None) -> str:
    if region is not None:
        return f"{layout.describe(number)} of the guest's memory: {region.what}"
    if number >= layout.FOUR_GIB:
        return "no place of pyvmm's map: RAM, where the guest has so much, at the address less 768 MiB of devices"
    if number >= layout.LOW_RAM_END:
        return "no place of pyvmm's map: devices live here, and none has this address; a read gives all ones"
    above = next((each for each in layout.MAP if each.base > number), None)
    if number < layout.REGIONS["cpus"].base:
        behind = f" before {above.name} at {above.base:#x}" if above else ""
        return f"a gap{behind} that no region has: RAM that the boot page tables do not map"
    return "no place of pyvmm's map: plain RAM, where the guest has so much (`--memory`)"


@cache
def _index() -> dict[str, dict[str, list[Fact]]]:
    """Spelled exactly, folded, otherwise, short -> what is written -> its facts."""
    made: dict[str, dict[str, list[Fact]]] = {"exact": {}, "folded": {}, "also": {}, "short": {}}
    for fact in (*registers(), *facts()):
        spelled = {
            "exact": [fact.name],
            "folded": [fold(fact.name)],
            "also": [*map(fold, fact.also), *fact.also],
            "short": [short(fact.name)],
        }
        for way, words in spelled.items():
            for word in dict.fromkeys(words):
                made[way].setdefault(word, []).append(fact)
    return made


def _by_name(word: str, proofs: Mapping[str, Payload]) -> list[Topic]:
    index = _index()
    if not word.islower() or not any(fact.kind == "structure" for fact in index["exact"].get(word, ())):
        topic = _of_kvm(word, proofs)
        if topic is not None:
            return [topic]
    for way, spelled in (("exact", word), ("folded", fold(word)), ("also", fold(word)), ("also", word)):
        if found := index[way].get(spelled):
            return _without_doubles(found)
    if other := [row for row in elsewhere.ROWS if fold(row.name) == fold(word)]:
        return [explain.find(name, proofs) for name in dict.fromkeys(row.ours for row in other)]
    return _without_doubles(index["short"].get(short(word), index["short"].get(fold(word), [])))


def _short_in(kind: str, word: str) -> list[Topic]:
    """With its kind said, a name may be short even where the long one is another's."""
    return [topic_of(fact) for way in ("folded", "also", "short") for fact in _index()[way].get(fold(word), ())
            if fact.kind == kind][:1]  # fmt: skip


def _of_kvm(word: str, proofs: Mapping[str, Payload]) -> Topic | None:
    topic = explain.look_up(word, proofs)
    return None if topic is None or topic.kind == "constant" else topic


def _without_doubles(found: list[Fact]) -> list[Topic]:
    """A plain constant says less than the row that it is a name for."""
    better = [fact for fact in found if fact.kind != "constant"] or found
    return [topic_of(fact) for fact in better]


def _unknown(word: str, proofs: Mapping[str, Payload], kind: str, number: int | None) -> UsageError:
    listed = f"`pyvmm explain --list{f' {kind}' if kind in KINDS else ''}`"
    if number is not None:
        return UsageError(f"no {kind or 'row'} has the number {number:#x} ({number})", hint=listed)
    foreign = next((what for start, what in elsewhere.FOREIGN.items() if re.match(rf"{start}[-_]", word.lower())), "")
    if foreign:
        return UsageError(f"{word!r} is {foreign}; pyvmm explains KVM's own", hint=listed)
    topics = every(proofs)
    known = [each.name for each in topics] + [row.name for row in elsewhere.ROWS]
    whole = re.compile(rf"\b{re.escape(word)}\b", re.I) if len(word) > 2 else None
    mentioned = [each.name for each in topics if whole and whole.search(each.meaning)][:SHOWN]
    said = names.unknown("feature, register, structure, port, exit, capability or constant", word, known)
    hints = f"{listed}; in the text of {', '.join(mentioned)} there is the word" if mentioned else listed
    return UsageError(said, hint=hints)
