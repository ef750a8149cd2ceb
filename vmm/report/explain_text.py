# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents of vmm.report.explain as text for a person. Values in, text out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from vmm.abi import structs
from vmm.machine.memory.layout import format_size
from vmm.report.bytemap import draw
from vmm.report.columns import aligned
from vmm.report.explain import ARGUMENT_REGISTERS, Topic
from vmm.report.style import Style

WIDTH = 100
ENDING = (
    "`pyvmm explain NAME` says more of each, and the value of every constant of assembly text; `pyvmm explain map` "
    "shows the guest's memory"
)
HEADINGS = {
    "feature": "Features, by their bit of CPUID leaf 0x40000001",
    "msr": "MSRs",
    "hypercall": "Hypercalls",
    "row": "Proven without a bit of their own",
}
OFFERED = {
    "kvm": "KVM offers the bit itself.",
    "vmm": "KVM does not offer the bit: the VMM adds it, after its duty is done.",
    "": "Nobody offers the bit any more.",
}


def listing(every: Iterable[Topic], style: Style) -> str:
    """Everything that can be explained, one line each."""
    topics = list(every)
    lines: list[str] = []
    for kind, heading in HEADINGS.items():
        rows = [(_place(topic), topic.name, topic.meaning) for topic in topics if topic.kind == kind]
        if rows:
            lines += [style("head", heading), *aligned(rows), ""]
    return (
        "\n".join(
            [
                *lines,
                ENDING,
            ]
        )
        + "\n"
    )


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
    return str(topic.hypercalls[0].nr) if topic.hypercalls else "-"


def text(doc: dict[str, Any], style: Style) -> str:
    """One topic: what it is, what is shared with the host, who does what, how it is proven, what belongs to it."""
    if doc["kind"] in ("constant", "map"):
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
