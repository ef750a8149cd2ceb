# SPDX-License-Identifier: GPL-2.0-or-later
"""What `pyvmm doctor` found, as a JSON document and as text. It measures nothing and prints nothing.

The document (schemas/doctor.schema.json beside this file) has the same keys on every host. Where KVM cannot be used,
ring0, hypercall, capabilities and pv_features are null, and `reason` and `hints` say why and what to try. The text is
made from the document alone, so the two cannot disagree.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vmm.abi import caps, pv
from vmm.errors import advised
from vmm.host.surroundings import Setting
from vmm.host.sysfs import PARAMETERS
from vmm.host.unusable import Unusable
from vmm.report.columns import aligned

if TYPE_CHECKING:
    from vmm.host.measured import HostFacts  # it needs the C binding, and this module must do without

SCHEMA = 1
WIDTH = 118  # columns, where prose and lists of names are folded; the verdict and commands to copy are not
RING0 = {
    "native": "ring 0 is native",
    "emulated": "ring 0 is emulated",
    "mixed": "ring 0 is emulated in part",
    "unknown": "ring 0 could not be measured",
}
Document = dict[str, Any]


def document(facts: HostFacts) -> Document:
    """The JSON document of a usable KVM."""
    attempts = {name: asdict(attempt) for name, attempt in facts.hypercall.attempts.items()}
    return {
        "schema": SCHEMA,
        "usable": True,
        "reason": verdict(facts),
        "hints": [],
        **_setting(facts.setting, facts.api_version),
        "ring0": asdict(facts.ring0),
        "hypercall": {
            "transport": facts.hypercall.transport,
            "quirk_off": facts.hypercall.quirk_off,
            "instructions": attempts,
        },
        "capabilities": dict(facts.capabilities),
        "pv_features": {
            "eax": facts.pv.eax,
            "edx": facts.pv.edx,
            "features": facts.pv.features,
            "unknown": facts.pv.unknown,
        },
    }


def unusable_document(unusable: Unusable) -> Document:
    """The JSON document of a host where KVM cannot be used; `host.device` tells about the node and the driver."""
    found = unusable.found
    parts = _setting(found.setting, None)
    node = asdict(found.node)
    node["device"] = list(found.node.device) if found.node.device else None
    parts["host"]["device"] = {**node, "text": found.node.text, "driver_minor": found.driver}
    nothing = dict.fromkeys(("ring0", "hypercall", "capabilities", "pv_features"))
    head = {"schema": SCHEMA, "usable": False, "reason": unusable.reason, "hints": list(unusable.hints)}
    return {**head, **parts, **nothing}


def verdict(facts: HostFacts) -> str:
    transport = facts.hypercall.transport
    reaches = "no hypercall instruction reaches KVM" if transport == "none" else f"{transport} reaches KVM"
    guest = "; this host is itself a guest" if facts.setting.nested.guest else ""
    return f"{facts.setting.backend.text}; {RING0[facts.ring0.kind]}; {reaches}{guest}"


def _setting(setting: Setting, api_version: int | None) -> Document:
    return {
        "kernel": {"release": setting.release, "machine": setting.machine, "api_version": api_version},
        "backend": {
            "kind": setting.backend.kind,
            "modules": list(setting.backend.modules),
            "text": setting.backend.text,
        },
        "nested": asdict(setting.nested),
        "host": {
            "cpus": setting.cpus,
            "clocksource": setting.clocksource,
            "clocksources": list(setting.clocksources),
            "parameters": dict(setting.parameters),
            "userfaultfd": asdict(setting.userfault),
            "container": setting.container,
            **({"sandbox": asdict(setting.sandbox)} if setting.sandbox else {}),
            "device": None,
        },
    }


def text(doc: Document, *, everything: bool = False) -> str:
    """The document for a person: the verdict, what to try, then a few lines on the host; with `everything`, and where
    KVM is not usable, sections with all that was found.
    """
    lines = [f"KVM is {'usable' if doc['usable'] else 'not usable'}: {doc['reason']}"]
    if doc["usable"] and not everything:
        return "\n".join([*lines, *aligned(_short(doc))]) + "\n"
    lines = [advised(lines[0], *doc["hints"]), "", "Host", *aligned(_host_rows(doc))]
    if doc["usable"]:
        ring0, hypercall = doc["ring0"], doc["hypercall"]
        lines += ["", f"Ring 0: {ring0['kind']}", *_fold(f"  {ring0['evidence']}", 2)]
        lines += ["", f"Hypercall instruction: {hypercall['transport']}"]
        tried = hypercall["instructions"].items()
        lines += aligned((name, one["outcome"], one["evidence"]) for name, one in tried)
        if not hypercall["quirk_off"]:
            lines += ["  (this KVM cannot be kept from rewriting the instruction of the other vendor)"]
        lines += _pv_lines(doc["pv_features"])
        lines += _capability_lines(doc["capabilities"])
    return "\n".join(lines) + "\n"


def _short(doc: Document) -> Iterator[tuple[str, str]]:
    """What somebody who starts has to know of this host."""
    kernel, host, ring0, hypercall = doc["kernel"], doc["host"], doc["ring0"], doc["hypercall"]
    cpus = f"{host['cpus']} CPU{'s' * (host['cpus'] != 1)}"
    yield "kernel", f"{kernel['release']} {kernel['machine']}, {cpus}, clocksource {host['clocksource'] or 'not known'}"
    how = {
        "native": "as fast as on the host",
        "emulated": "each instruction by KVM's emulator: slow, and not all of them; ring 3 is native",
        "mixed": "some instructions by KVM's emulator",
    }
    yield "ring 0", f"{ring0['kind']}{': ' if ring0['kind'] in how else ''}{how.get(ring0['kind'], '')}"
    reaches = {"none": "none reaches KVM: pyvmm answers those of hypercall.inc"}
    yield "hypercalls", reaches.get(hypercall["transport"], f"by {hypercall['transport']}")
    features, found = doc["pv_features"]["features"], doc["capabilities"]
    offers = f"{sum(features.values())} of {len(features)} paravirtual features"
    yield "offers", f"{offers}, {sum(map(bool, found.values()))} of {len(found)} capabilities"
    yield "more", "`pyvmm doctor --all` lists them, with the evidence; `pyvmm probe` proves the features"


def _host_rows(doc: Document) -> Iterator[tuple[str, str]]:
    kernel, nested, host = doc["kernel"], doc["nested"], doc["host"]
    version = "" if kernel["api_version"] is None else f", KVM API version {kernel['api_version']}"
    yield "kernel", f"{kernel['release']} {kernel['machine']}{version}"
    if host["device"]:
        yield "device", host["device"]["text"]
        minor = host["device"]["driver_minor"]
        yield "driver", "not in this kernel now" if minor is None else f"present (10:{minor} in /proc/misc)"
    yield "backend", doc["backend"]["text"]
    is_guest = {True: "yes", False: "no", None: "not known"}[nested["guest"]]
    yield "host is a guest", f"{is_guest}: {nested['how']}"
    if host["container"]:
        yield "container", f"yes: {host['container']}"
    yield "CPUs", str(host["cpus"])
    others = [name for name in host["clocksources"] if name != host["clocksource"]]
    yield "clocksource", f"{host['clocksource'] or 'not known'}{' (or ' + ', '.join(others) + ')' if others else ''}"
    userfault = host["userfaultfd"]
    yield "userfaultfd", f"kernel faults {'yes' if userfault['kernel_faults'] else 'no'}: {userfault['how']}"
    if sandbox := host.get("sandbox"):  # a document of an older version has none
        abi = sandbox["landlock_abi"]
        files = f"landlock ABI {abi}" if abi else "no landlock (files can still be read)"
        calls = "seccomp filters" if sandbox["seccomp"] else "no seccomp (every call can be made)"
        yield "sandbox", f"{files}, {calls}"
    meanings = {str(row): row.meaning for row in PARAMETERS}
    for name, value in host["parameters"].items():
        yield name, f"{value}  ({meanings[name]})" if name in meanings else value


def _pv_lines(offer: Document) -> Iterator[str]:
    names = [name for name, offered in offer["features"].items() if offered]
    yield ""
    yield f"Paravirtual features offered (EAX {offer['eax']:#010x}, EDX {offer['edx']:#x}): {len(names)}"
    yield from _fold("  " + ", ".join(names), 2)
    if offer["unknown"]:
        yield f"  and bits without a name: {offer['unknown']}"
    absent = [row for row in pv.FEATURES if not offer["features"].get(row.name)]
    yield "  not offered:"
    by = {"kvm": "this KVM lacks it", "vmm": "the VMM may offer it itself", "": "no KVM has it any more"}
    yield from aligned(((row.name, by[row.offered_by]) for row in absent), indent="    ")


def _capability_lines(values: dict[str, int]) -> Iterator[str]:
    present = sum(map(bool, values.values()))
    yield ""
    yield f"Capabilities (KVM_CAP_...): {present} of {len(values)}"
    meanings = {row.name: row.what for row in caps.CAPS}
    yield from aligned((name, str(value) if value else "-", meanings.get(name, "")) for name, value in values.items())


def _fold(line: str, indent: int) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
