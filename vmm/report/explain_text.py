# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents of vmm.report.explain as text for a person. Values in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from vmm.abi import msrs, structs
from vmm.machine.memory.layout import format_size
from vmm.report.bytemap import draw
from vmm.report.columns import aligned
from vmm.report.explain import ARGUMENT_REGISTERS, Topic
from vmm.report.explain_facts import KINDS
from vmm.report.style import Style

WIDTH = 100
KIND_WORDS = {"constant": "a constant,", "cpuid": "a CPUID bit", "structure": "a structure", "vmexit": "exit reason",
              "virtio": "a constant of virtio,", "term": "a word of the field"}  # fmt: skip
ENDING = (
    "`pyvmm explain NAME` says more of each. There are more kinds, `pyvmm explain --list KIND`: {kinds}. `pyvmm map` "
    "shows the guest's memory"
)
HEADINGS = {
    "feature": "Features, by their bit of CPUID leaf 0x40000001",
    "msr": "MSRs",
    "hypercall": "Hypercalls",
    "row": "Proven without a bit of their own",
}
AT = {"exception": "vector", "leaf": "CPUID leaf", "capability": "capability", "exit": "exit", "msr": "MSR"}
"""What stands before the number of a kind."""
OFFERED = {
    "kvm": "KVM offers the bit itself.",
    "vmm": "KVM does not offer the bit: the VMM adds it, after its duty is done.",
    "": "Nobody offers the bit any more.",
}


def listing(every: Iterable[Topic], style: Style, ending: str = ENDING) -> str:
    """Everything that can be explained, one line each, by kind."""
    topics = list(every)
    lines: list[str] = []
    for kind, heading in (HEADINGS | KINDS).items():
        rows = [(_place(topic), topic.name, topic.meaning) for topic in topics if topic.kind == kind]
        if rows:
            lines += [style("head", heading), *aligned(rows), ""]
    return "\n".join([*lines, *_fold(ending.format(kinds=", ".join(KINDS)))]) + "\n"


def choice(word: str, found: Iterable[Topic], style: Style) -> str:
    """The several things that a word may mean, and how to name one."""
    topics = list(found)
    rows = [(style("name", each.kind), _place(each), each.name, each.meaning) for each in topics]
    spelled = word if any(each.isdigit() for each in word) and " " not in word else topics[0].name
    lines = [style("head", f"{word} may be {len(topics)} things"), *aligned(rows)]
    return "\n".join([*lines, f"`pyvmm explain {topics[0].kind} {spelled}` names one"]) + "\n"


def _is_architectural(doc: dict[str, Any]) -> bool:
    """Is it an MSR that is not KVM's own?"""
    return doc["kind"] == "msr" and doc["value"] not in {row.number for row in msrs.KVM_MSRS}


def _fact(doc: dict[str, Any], style: Style) -> list[str]:
    """One row of a table: number, meaning, layout, who says so, who uses it."""
    value, last = doc["value"], doc["last"]
    number = "" if value is None else f"{value:#x}" + (f"..{last:#x}" if last not in (None, value) else "")
    if doc["kind"] in AT and value is not None:
        number = f"{AT[doc['kind']]} {value if doc['kind'] != 'msr' and doc['kind'] != 'leaf' else f'{value:#x}'}"
    elif doc["kind"] == "field":
        number = f"{'encoding' if doc['inside'] == 'VMCS' else 'offset'} {number}"
    elif number:
        number = f"{KIND_WORDS.get(doc['kind'], doc['kind'])} {number}" + (f" ({value})" if last is None else "")
    else:
        number = KIND_WORDS.get(doc["kind"], doc["kind"])
    lines = [f"{style('head', doc['name'])}: {number}", *_fold(f"{doc['meaning'][:1].upper()}{doc['meaning'][1:]}.")]
    for struct in doc["structures"]:
        lines += ["", *_structure(struct, style)]
    if doc["regions"]:
        lines += ["", style("head", "The region"), *aligned(_regions(doc["regions"]))]
    rows = [("in", doc["inside"])] if doc["inside"] else []
    rows += [("also", ", ".join(doc["also"]))] if doc["also"] else []
    rows += [("named in", ", ".join(doc["named_in"]))] if doc["named_in"] else []
    rows += [("source", textwrap.shorten(doc["where"], WIDTH, placeholder=" ..."))] if doc["where"] else []
    return lines + (["", *aligned(rows)] if rows else [])


def _regions(regions: Iterable[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """`0x20000  384 KiB  code  rwx  ring 0  CODE_BASE: the program`."""
    for each in regions:
        rights = "r" + "w-"[not each["writable"]] + "x-"[not each["executable"]] if each["mapped"] else "---"
        who = "no RAM" if not each["ram"] else "rings 0 and 3" if each["user"] else "ring 0"
        yield f"{each['base']:#x}", format_size(each["size"]), each["name"], rights, who, each["what"]


def _place(topic: Topic) -> str:
    if topic.feature:
        register = "" if topic.feature.register == "eax" else f"{topic.feature.register} "
        return f"{register}{topic.feature.bit}"
    if topic.msrs:
        return f"{topic.msrs[0].number:#x}"
    if topic.fact and topic.fact.value is not None:
        number = topic.fact.value
        return str(number) if topic.kind in ("exit", "capability", "exception") else f"{number:#x}"
    return str(topic.hypercalls[0].nr) if topic.hypercalls else "-"


def text(doc: dict[str, Any], style: Style) -> str:
    """One topic: what it is, what is shared with the host, who does what, how it is proven, what belongs to it."""
    if doc["kind"] in KINDS or doc["kind"] == "address" or _is_architectural(doc):
        return "\n".join(_fact(doc, style)) + "\n"
    if doc["kind"] == "map":
        lines = [f"{style('head', doc['name'])}: {doc['meaning']}"]
        lines += aligned(_regions(doc["regions"]))
        return "\n".join(lines) + "\n"
    lines = [_title(doc, style), *_fold(f"{doc['meaning'][:1].upper()}{doc['meaning'][1:]}.")]
    for struct in doc["structures"]:
        lines += ["", *_structure(struct, style)]
    if doc["constants"]:
        lines += ["", style("head", "Constants")]
        lines += aligned((f"{each['value']:#x}", each["name"], each["meaning"]) for each in doc["constants"])
    lines += _section("The guest", _guest(doc), style)
    lines += _section("The host", _host(doc), style)
    lines += ["", style("head", "How pyvmm proves it"), *_proof(doc["proof"], style)]
    if doc["elsewhere"]:
        lines += ["", style("head", "What others call it")]
        lines += aligned((each["who"], each["spelled"], each["note"]) for each in doc["elsewhere"])
    if doc["named_in"]:
        lines += ["", style("head", "Payloads that name it"), *_fold(", ".join(doc["named_in"]))]
    if doc["where"]:
        lines += ["", style("head", "Where it stands"), *_fold(doc["where"])]
    if doc["related"]:
        lines += ["", style("head", "See also")]
        lines += aligned((each["name"], each["why"]) for each in doc["related"])
    return "\n".join(lines) + "\n"


def _title(doc: dict[str, Any], style: Style) -> str:
    title = style("head", doc["kernel_name"])
    if doc["bit"] is not None:
        where = f"bit {doc['bit']} of {doc['register'].upper()} in CPUID leaf {doc['leaf']:#x}"
        return f"{title}: {where}, since Linux {doc['since']}"
    if doc["kind"] == "msr":
        return f"{title}: MSR {doc['msrs'][0]['number']:#x}"
    if doc["kind"] == "hypercall":
        arch = doc["hypercalls"][0]["arch"]
        return f"{title}: hypercall {doc['hypercalls'][0]['nr']}" + (f", of {arch} only" if arch else "")
    return title


def _structure(found: dict[str, Any], style: Style) -> Iterator[str]:
    yield style("head", f"struct {found['name']}") + f": {found['size']} bytes, aligned to {found['align']}"
    if found["name"] in structs.BY_NAME:  # what a guest shares with KVM; the others are long
        yield from (f"  {line}" for line in draw(structs.BY_NAME[found["name"]]))
    rows = []
    for field in found["fields"]:
        kind = f"{'s' if field['signed'] else 'u'}{field['size'] * 8}"
        rows.append((f"{field['offset']:#04x}", kind, field["name"], field["what"]))
    yield from aligned(rows)


def _guest(doc: dict[str, Any]) -> Iterator[str]:
    if doc["bit"] is not None:
        yield f"looks for KVM's signature, and tests bit {doc['bit']} of {doc['register'].upper()} in the leaf after it"
    for msr in doc["msrs"]:
        yield f"uses {msr['name']} ({msr['number']:#x}): {msr['what']}"
    for call in doc["hypercalls"]:
        if call["arch"]:
            continue
        values = zip(("RAX", *ARGUMENT_REGISTERS), (call["nr"], *call["args"]), strict=False)
        yield f"calls {call['name']}: {'; '.join(f'{register} = {value}' for register, value in values)}"


def _host(doc: dict[str, Any]) -> Iterator[str]:
    if doc["offered_by"] is not None:
        yield OFFERED[doc["offered_by"]]
    if doc["duty"]:
        yield f"Duty of the VMM: {doc['duty']}."
    for call in doc["hypercalls"]:
        yield f"{call['name']} {call['meaning']}; it returns {call['results']}."
        if call["gate"]:
            yield f"{call['name']} needs {call['gate']} where KVM_CAP_ENFORCE_PV_FEATURE_CPUID is on."
    if doc["bit"] is not None:
        gate = doc["gate"] or "nothing is refused"
        yield f"Hidden from CPUID, it stays active; with KVM_CAP_ENFORCE_PV_FEATURE_CPUID on: {gate}."


def _proof(found: dict[str, Any] | None, style: Style) -> Iterator[str]:
    if found is None:
        yield "  pyvmm has no payload that proves it."
        return
    yield from _fold(f"The payload {style('name', found['payload'])}: {found['summary']}.")
    for paragraph in found["how"].split("\n\n"):
        yield from _fold(" ".join(paragraph.split()))
    if found["results"]:
        yield "  What the guest stores:"
        yield from aligned(((each["name"], each["type"], each["what"]) for each in found["results"]), indent="    ")
    yield f"  `pyvmm disasm {found['payload']}` shows the guest, `pyvmm probe {found['payload']} -v` the numbers."


def _section(heading: str, items: Iterable[str], style: Style) -> list[str]:
    lines = [line for item in items for line in _fold(item)]
    return ["", style("head", heading), *lines] if lines else []


def _fold(line: str) -> list[str]:
    return textwrap.wrap(
        line, WIDTH, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
