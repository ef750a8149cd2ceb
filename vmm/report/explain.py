# SPDX-License-Identifier: GPL-2.0-or-later
"""What has a name explained, generated from the facts and, of KVM's own features, from the lesson that proves it.

`document` gathers (schemas/explain.schema.json), `text` writes it out: the two cannot disagree. What a feature means is
said in vmm.abi alone, how it is proven in its payload alone.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

from vmm.abi import elsewhere, msrs, pv, structs
from vmm.abi.cpuid import FEATURES_LEAF
from vmm.base import names
from vmm.errors import UsageError
from vmm.machine.memory import layout
from vmm.payload.catalog import Payload, shipped
from vmm.payload.guest import constants
from vmm.report.explain_facts import Fact

SCHEMA = 1
ARGUMENT_REGISTERS = ("RBX", "RCX", "RDX", "RSI")
# Constants (vmm.abi.pv) that belong to an MSR or hypercall, by the beginning of their names.
CONSTANTS_OF = {
    "SYSTEM_TIME": "PVCLOCK_",
    "SYSTEM_TIME_NEW": "PVCLOCK_",
    "STEAL_TIME": "KVM_VCPU_",
    "ASYNC_PF_EN": "KVM_ASYNC_PF_",
    "PV_EOI_EN": "KVM_PV_EOI_",
    "MIGRATION_CONTROL": "KVM_MIGRATION_",
    "CLOCK_PAIRING": "KVM_CLOCK_PAIRING_",
    "MAP_GPA_RANGE": "KVM_MAP_GPA_RANGE_",
}
DOCUMENTS = {
    "feature": (pv.HEADER, "Documentation/virt/kvm/x86/cpuid.rst"),
    "msr": (msrs.HEADER, "Documentation/virt/kvm/x86/msr.rst"),
    "hypercall": (pv.HYPERCALL_HEADER, "Documentation/virt/kvm/x86/hypercalls.rst"),
}
MOST = 8  # payloads that are named


class Topic(NamedTuple):
    """What may be explained. `kind`: feature, msr, hypercall, constant (of assembly text), map (the guest's memory),
    address (in it), row: what a payload proves and no bit stands for, or one of vmm.report.explain_facts, whose row
    `fact` is.
    """

    kind: str
    name: str
    meaning: str
    feature: pv.Feature | None = None
    msrs: tuple[msrs.Msr, ...] = ()
    hypercalls: tuple[pv.Hypercall, ...] = ()
    fact: Fact | None = None
    address: int | None = None


def topics(proofs: Mapping[str, Payload]) -> list[Topic]:
    """Everything: features in the order of bits, MSRs, hypercalls, then the rows without a bit."""
    found = list(_of_the_facts())
    named = {topic.name for topic in found}
    found += [Topic("row", name, payload.header.summary) for name, payload in proofs.items() if name not in named]
    return found


@cache
def _of_the_facts() -> tuple[Topic, ...]:
    return (
        *(_feature(row) for row in pv.FEATURES),
        *(Topic("msr", row.name, row.what, msrs=(row,)) for row in msrs.KVM_MSRS),
        *(Topic("hypercall", row.kernel_name, row.meaning, hypercalls=(row,)) for row in pv.HYPERCALLS),
    )


def _feature(row: pv.Feature) -> Topic:
    registers = tuple(msr for name in row.msrs if (msr := msrs.find(f"MSR_KVM_{name}")))
    calls = tuple(call for name in row.hypercalls if (call := pv.find_hypercall(name)))
    return Topic("feature", row.name, row.meaning, row, registers, calls)


def find(word: str, proofs: Mapping[str, Payload]) -> Topic:
    """The topic of that name: a feature first, then an MSR (by number too), a hypercall, a row without a bit.

    Raises:
        UsageError: there is none; the nearest names are offered.
    """
    if found := look_up(word, proofs):
        return found
    known = [topic.name for topic in topics(proofs)]
    raise UsageError(
        names.unknown("paravirtual feature, MSR of KVM, hypercall or constant", word, [*known, *constants()]),
        hint="`pyvmm explain` lists them",
    )


def look_up(word: str, proofs: Mapping[str, Payload]) -> Topic | None:
    """As `find`, or None."""
    if word.strip().lower() == "map":
        return Topic("map", "map", "the guest's memory before its first instruction, by guest-physical address")
    by_name = {topic.name.upper(): topic for topic in topics(proofs)}
    feature = pv.find(word)
    plain = names.strip_prefix(word)
    candidates = [feature.name if feature else plain, plain, f"MSR_{plain}", f"MSR_KVM_{plain}", f"KVM_HC_{plain}"]
    if plain.startswith("0X") and (register := _by_number(plain)):
        candidates.append(register.name)
    return next((by_name[each] for each in candidates if each in by_name), None) or _constant(word)


def _constant(word: str) -> Topic | None:
    """A constant that assembly text may use, by its exact name or in capitals."""
    every = constants()
    wanted = word.strip().upper()
    name = word if word in every else next((each for each in every if each.upper() == wanted), "")
    return (
        Topic("constant", name, f"a name that assembly may use; its value is {every[name]:#x} ({every[name]})")
        if name
        else None
    )


def _by_number(word: str) -> msrs.Msr | None:
    try:
        return msrs.find(int(word, 16))
    except ValueError:
        return None


def document(topic: Topic, proofs: Mapping[str, Payload]) -> dict[str, Any]:
    """All that is known of a topic."""
    row = topic.feature
    register = row.register if row else None
    return {
        "schema": SCHEMA,
        "kind": topic.kind,
        "name": topic.name,
        "kernel_name": row.kernel_name if row else topic.name,
        "meaning": topic.meaning,
        "leaf": FEATURES_LEAF if row else None,
        "register": register,
        "bit": row.bit if row else None,
        "since": row.since if row else None,
        "offered_by": row.offered_by if row else None,
        "duty": row.duty if row else "",
        "gate": row.gate if row else "",
        "msrs": [{"number": each.number, "name": each.name, "what": each.what} for each in topic.msrs],
        "hypercalls": [_hypercall(each) for each in topic.hypercalls],
        "structures": [_structure(each) for each in _structures(topic)],
        "constants": [{"name": each.name, "value": each.value, "meaning": each.meaning} for each in _constants(topic)],
        "proof": _proof(topic, proofs),
        "value": _value(topic),
        "last": topic.fact.last if topic.fact else None,
        "where": _where(topic),
        "also": list(topic.fact.also) if topic.fact else [],
        "inside": topic.fact.inside if topic.fact else "",
        "elsewhere": [
            {"who": each.who, "name": each.name, "spelled": each.spelled, "note": each.note, "source": each.source}
            for each in elsewhere.of(topic.name)
        ],
        "named_in": shown_by(topic, proofs),
        "regions": [_region(each) for each in _regions(topic)],
        "related": [{"name": name, "why": why} for name, why in _related(topic, proofs).items()],
    }


def _value(topic: Topic) -> int | None:
    if topic.fact:
        return topic.fact.value
    if topic.kind == "constant":
        return constants()[topic.name]
    return topic.msrs[0].number if topic.kind == "msr" else topic.address


def _where(topic: Topic) -> str:
    """Who says so: header, kernel document, manual."""
    if topic.fact:
        return topic.fact.where
    document = DOCUMENTS.get(topic.kind)
    return f"<{document[0]}>; {document[1]}" if document else ""


def _regions(topic: Topic) -> Iterable[layout.Region]:
    if topic.kind == "map":
        return layout.MAP
    at = (
        topic.address
        if topic.kind == "address"
        else topic.fact.value
        if topic.fact and topic.kind == "region"
        else None
    )
    region = None if at is None or (topic.fact and topic.fact.inside) else layout.region_at(at)
    return [region] if region else []


def shown_by(topic: Topic, proofs: Mapping[str, Payload]) -> list[str]:
    """Shipped payloads whose text, or whose host half's, names the topic or needs the capability; at most MOST."""
    wanted = [topic.name, *(topic.fact.also if topic.fact else ())]
    wanted = [each for each in wanted if each.isidentifier() and (len(each) > 5 or "_" in each) and not each.islower()]
    if topic.kind in ("feature", "row", "map", "address") or not wanted:
        return []
    word = re.compile(rf"\b(?:{'|'.join(map(re.escape, wanted))})\b")
    short = topic.name.removeprefix("KVM_CAP_")
    found = []
    for name, path in shipped().items():
        half = path.with_suffix(".py")
        text = path.read_text(encoding="utf-8") + (half.read_text(encoding="utf-8") if half.exists() else "")
        needs = topic.kind == "capability" and re.search(rf"^; needs:.*\b{re.escape(short)}\b", text, re.M)
        if needs or word.search(text):
            found.append(name)
    return found[:MOST]


def _region(region: layout.Region) -> dict[str, Any]:
    keys = ("name", "base", "size", "mapped", "writable", "user", "executable", "ram", "what")
    return {key: getattr(region, key) for key in keys}


def _hypercall(call: pv.Hypercall) -> dict[str, Any]:
    return {
        "nr": call.nr,
        "name": call.kernel_name,
        "meaning": call.meaning,
        "args": list(call.args),
        "results": call.results,
        "gate": call.gate,
        "arch": call.arch,
    }


def _keys(topic: Topic) -> list[str]:
    """Names of the topic's MSRs and hypercalls without their prefix."""
    return [row.name.removeprefix("MSR_KVM_") for row in topic.msrs] + [row.name for row in topic.hypercalls]


def _structures(topic: Topic) -> list[structs.Struct]:
    if topic.fact and topic.fact.struct:
        return [topic.fact.struct]
    of = structs.OF_MSR | structs.OF_HYPERCALL
    return list(dict.fromkeys(of[key] for key in _keys(topic) if key in of))


def _structure(struct: structs.Struct) -> dict[str, Any]:
    return {
        "name": struct.name,
        "size": struct.size,
        "align": struct.align,
        "fields": [
            {"name": each.name, "offset": each.offset, "size": each.size, "signed": each.signed, "what": each.what}
            for each in struct.fields
        ],
    }


def _constants(topic: Topic) -> Iterator[Any]:
    prefixes = tuple(CONSTANTS_OF[key] for key in _keys(topic) if key in CONSTANTS_OF)
    return (row for row in pv.CONSTANTS if prefixes and row.name.startswith(prefixes))


def _users(topic: Topic) -> dict[str, str]:
    """Features that use what this topic uses -> which of it."""
    keys = set(_keys(topic))
    found = {}
    for row in pv.FEATURES:
        shared = [f"MSR_KVM_{key}" for key in row.msrs if key in keys]
        shared += [f"KVM_HC_{key}" for key in row.hypercalls if key in keys]
        if shared and row is not topic.feature:
            gate = f"; hidden and enforced, {row.gate}" if row.gate else ""
            found[row.name] = f"uses {', '.join(shared)} too" if topic.feature else f"stands for it{gate}"
    return found


def _payload(topic: Topic, proofs: Mapping[str, Payload]) -> Payload | None:
    if topic.fact:
        return None
    candidates = [topic.name, *(row.name for row in topic.hypercalls)]
    if topic.kind != "feature":
        candidates += _users(topic)
    return next((proofs[name] for name in candidates if name in proofs), None)


def _proof(topic: Topic, proofs: Mapping[str, Payload]) -> dict[str, Any] | None:
    payload = _payload(topic, proofs)
    if payload is None:
        return None
    results = payload.header.results.values()
    return {
        "payload": payload.name,
        "summary": payload.header.summary,
        "results": [{"name": each.name, "type": each.kind, "what": each.what} for each in results],
        "how": inspect.cleandoc(half.doc) if (half := payload.host_half()) else "",
    }


def _related(topic: Topic, proofs: Mapping[str, Payload]) -> dict[str, str]:
    found = _users(topic)
    own = _payload(topic, proofs)
    if own:
        proven = [name for name, payload in proofs.items() if payload.name == own.name and name != topic.name]
        found |= {name: f"proven by {own.name} too" for name in proven if name not in found}
    if topic.feature:
        said = f"{topic.feature.duty} {topic.feature.meaning} {topic.feature.gate}"
        words = {word.strip(".,:;'()") for word in said.split()}
        found |= {row.name: "named above" for row in pv.FEATURES if row.name in words and row.name not in found}
    found.pop(topic.name, None)
    return found


def list_document(every: Iterable[Topic], word: str = "") -> dict[str, Any]:
    """What can be explained, for programs; with a word, what that word may mean."""
    keys = ("kind", "name", "meaning")
    rows = [{key: getattr(topic, key) for key in keys} | {"value": _value(topic)} for topic in every]
    return {"schema": SCHEMA, "topics": rows} | ({"word": word} if word else {})
