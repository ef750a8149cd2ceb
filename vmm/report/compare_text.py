# SPDX-License-Identifier: GPL-2.0-or-later
"""The documents of vmm.report.compare and vmm.report.baseline as text and as Markdown. Values in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vmm.report import gfm
from vmm.report.columns import aligned, one_line
from vmm.report.compare import deviation_text
from vmm.report.snapshot import NOT_PROBED
from vmm.report.style import Style

COLOURS = {"regression": "bad", "improvement": "good", "added": "good", "changed": "warn"}
Document = dict[str, Any]
Cells = tuple[str, ...]


def diff_text(doc: Document, style: Style) -> str:
    """The two hosts, what differs between them, and a line that sums up."""
    lines = [line for key in ("a", "b") for line in _host_lines(f"{key.upper()}  ", doc[key])]
    if doc["host"]:
        lines += ["", style("head", "Host"), *aligned(facts(doc))]
    if doc["features"]:
        rows = list(aligned(_change_cells(each) for each in doc["features"]))
        lines += ["", style("head", "Features")]
        for row, each in zip(rows, doc["features"], strict=True):
            # colour comes after alignment, for its codes have no width
            lines.append(row.replace(each["change"], style(COLOURS[each["change"]], each["change"]), 1))
            lines += [f"      {text}" for text in refusal_lines(each)]
    lines += ["", *_gate_lines(doc, style), diff_summary(doc)]
    return "\n".join(lines) + "\n"


def diff_summary(doc: Document) -> str:
    """`2 regressions (PV_EOI, STEAL_TIME), 1 improvement, 22 features unchanged`."""
    parts = [_named(doc["regressions"], "regression"), _named(doc["improvements"], "improvement")]
    rest = len(doc["features"]) - len(doc["regressions"]) - len(doc["improvements"])
    parts += [f"{rest} otherwise changed"] if rest else []
    new = sum(deviation["a"] is None for each in doc["features"] for deviation in each["deviations"])
    parts += [_number(new, "new deviation")] if new else []
    return one_line(", ".join([*parts, f"{doc['unchanged']} unchanged"]))


def baseline_text(doc: Document, style: Style) -> str:
    """The hosts, what all have, what not all have and why, and the values for a guest's CPUID."""
    lines = [line for number, each in enumerate(doc["hosts"], 1) for line in _host_lines(f"{number}  ", each)]
    have = [each for each in doc["features"] if each["in_baseline"]]
    for heading, rows in _groups(have):
        lines += ["", style("head", f"{heading}: {len(rows)}"), *aligned(_common_cells(each) for each in rows)]
    lacking = [each for each in doc["features"] if not each["in_baseline"]]
    if lacking:
        cells = ((one_line(each["name"]), bit(each), one_line(each["why"])) for each in lacking)
        lines += ["", style("head", f"Left out: {len(lacking)}"), *aligned(cells)]
    lines += ["", style("head", "CPUID leaf 0x40000001"), *aligned(_values(doc))]
    lines += [f"{style('warn', 'note')}: {one_line(note)}" for note in doc["notes"]]
    gate = list(_gate_lines(doc, style))
    return "\n".join([*lines, *([""] if gate else []), *gate]) + "\n"


def diff_markdown(doc: Document) -> str:
    """The same for the summary of a CI step."""
    lines = ["### KVM paravirtual features, compared", ""]
    lines += [f"- **{key.upper()}** {gfm.escape(line)}" for key in ("a", "b") for line in _host_lines("", doc[key])]
    if doc["host"]:
        lines += ["", *gfm.head(("host", "A", "B"))]
        lines += [gfm.line(map(gfm.escape, (what, before, after))) for what, before, _, after in facts(doc)]
    if doc["features"]:
        lines += ["", *gfm.head(("feature", "bit", "A", "B", "change", "why"))]
        for each in doc["features"]:
            name, number, before, _, after, change, why = map(gfm.escape, _change_cells(each))
            loud = f"**{change}**" if each["change"] == "regression" else change
            lines.append(gfm.line((name, number, before, after, loud, why)))
        lines += _deviations_markdown(doc)
    lines += ["", gfm.escape(diff_summary(doc)), *_gate_markdown(doc)]
    return "\n".join(lines) + "\n"


def _deviations_markdown(doc: Document) -> list[str]:
    found = [(each["name"], deviation) for each in doc["features"] for deviation in each["deviations"]]
    return ["", *(f"- {gfm.escape(f'{name}: {deviation_text(each)}')}" for name, each in found)] if found else []


def baseline_markdown(doc: Document) -> str:
    """A table of the features by host, and the values."""
    lines = ["### KVM paravirtual features of all hosts", ""]
    hosts = [f"{number}" for number in range(1, len(doc["hosts"]) + 1)]
    for number, each in zip(hosts, doc["hosts"], strict=True):
        lines += [f"{number}. {gfm.escape(' '.join(_host_lines('', each)))}"]
    lines += ["", *gfm.head(("feature", "bit", *hosts, "all", "why not"))]
    for each in doc["features"]:
        found = "yes" if each["in_baseline"] else "**no**"
        first = map(gfm.escape, (each["name"], bit(each), *each["states"]))
        lines.append(gfm.line((*first, found, gfm.escape(each["why"]))))
    lines += ["", *gfm.head(("CPUID leaf 0x40000001", "EAX", "EDX"))]
    lines += [gfm.line((what, f"`{eax}`", f"`{edx}`")) for what, eax, edx in registers(doc)]
    if doc["notes"]:
        lines += ["", *(f"- {gfm.escape(note)}" for note in doc["notes"])]
    return "\n".join([*lines, *_gate_markdown(doc)]) + "\n"


def failures(doc: Document) -> Iterator[tuple[str, str]]:
    """(feature, why) of everything that makes the exit status 1."""
    if doc["required"]:
        yield from ((one_line(each["name"]), one_line(each["why"])) for each in doc["failed"])
        return
    worse = doc.get("regressions", ())
    for each in doc["features"]:
        if each["name"] in worse:
            yield one_line(each["name"]), one_line(f"{states(each)[0]} -> {each['why']}")


def _host_lines(mark: str, host: Document) -> Iterator[str]:
    yield one_line(f"{mark}{host['file']}: Linux {host['kernel']}; {host['text']}")
    yield from (f"{' ' * len(mark)}{note}" for note in host["notes"])


def facts(doc: Document) -> Iterator[Cells]:
    """What differs between the hosts themselves: the fact, A, an arrow, B."""
    for each in doc["host"]:
        before, after = (one_line(each[key]) if each[key] is not None else "-" for key in ("a", "b"))
        yield one_line(each["what"]), before or "none", "->", after or "none"


def _change_cells(each: Document) -> Cells:
    why = "" if each["b"] is None else each["b"]["reason"]
    before, after = states(each)
    return one_line(each["name"]), bit(each), before, "->", after, each["change"], one_line(why)


def states(each: Document) -> tuple[str, str]:
    """Both states, and the offer of the bit where that is what changed."""
    a, b = each["a"], each["b"]
    both = a is not None and b is not None and a["offered"] != b["offered"]
    before, after = (_state(entry, tell_offer=both) for entry in (a, b))
    return before, after


def _state(entry: Document | None, *, tell_offer: bool) -> str:
    if entry is None:
        return NOT_PROBED
    return f"{entry['state']}, not offered" if tell_offer and not entry["offered"] else str(entry["state"])


def refusal_lines(each: Document) -> Iterator[str]:
    """What else is to be said of a change: deviations, and refusals that no deviation tells."""
    yield from (one_line(deviation_text(deviation)) for deviation in each["deviations"])
    told = {deviation["what"] for deviation in each["deviations"]}
    for refusal in each["refusals"]:
        if f"{refusal['kind']}: {refusal['what']}" in told:
            continue
        yield one_line(f"{refusal['kind']}: {refusal['what']}: {refusal['a']} -> {refusal['b']}")


def _groups(have: list[Document]) -> Iterator[tuple[str, list[Document]]]:
    for heading, by, with_bit in (
        ("Offered by KVM and usable on every host", "kvm", True),
        ("Added by the VMM, and usable on every host", "vmm", True),
        ("Usable on every host, without a bit", "", False),
    ):
        rows = [each for each in have if each["by"] == by and (each["bit"] is not None) == with_bit]
        if rows:
            yield heading, rows


def _common_cells(each: Document) -> Cells:
    states = list(dict.fromkeys(each["states"]))
    state = states[0] if len(states) == 1 else ", ".join(each["states"])
    return one_line(each["name"]), bit(each), state, each["duty"] if each["by"] == "vmm" else ""


def bit(each: Document) -> str:
    """`7`, `edx 0`, or `-` for what has none."""
    if each["bit"] is None:
        return "-"
    return f"{each['register']} {each['bit']}" if each["register"] != "eax" else str(each["bit"])


def registers(doc: Document) -> Iterator[tuple[str, str, str]]:
    """A baseline's values for a guest's CPUID: what they are, EAX, EDX."""
    for what, key in (("what KVM offers everywhere", "kvm"), ("with what the VMM adds", "with_vmm")):
        yield what, f"{doc[key]['eax']:#010x}", f"{doc[key]['edx']:#010x}"


def _values(doc: Document) -> Iterator[Cells]:
    for what, eax, edx in registers(doc):
        yield what, f"EAX {eax}", f"EDX {edx}"


def _gate_lines(doc: Document, style: Style) -> Iterator[str]:
    if doc["required"] and not doc["failed"]:
        yield f"{style('good', 'required')}: {', '.join(map(one_line, doc['required']))}: all there"
    for each in doc["failed"]:
        yield f"{style('bad', 'required')}: {one_line(each['name'])}: {one_line(each['why'])}"


def _gate_markdown(doc: Document) -> list[str]:
    lines = [gfm.escape(line) for line in _gate_lines(doc, Style())]
    return ["", *(f"- {line}" for line in lines)] if lines else []


def _named(found: Iterable[str], word: str) -> str:
    every = list(found)
    return _number(len(every), word) + (f" ({', '.join(every)})" if every else "")


def _number(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
