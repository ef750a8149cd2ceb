# SPDX-License-Identifier: GPL-2.0-or-later
"""A run, or its replay, as a page: how it ended, which instruction exited most, its timeline, console, memory and page
walks, what it left. A Story and an Outcome in, HTML out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from vmm.abi.x86 import CR0, CR4, EFER, RFLAGS, describe_flags
from vmm.machine.memory.layout import format_size
from vmm.observe.postmortem import PostMortem, VcpuState
from vmm.observe.trace import Event, Exited, Made, Note, Stopped
from vmm.payload.outcome import Outcome
from vmm.report.closing import MARKS as COLOURS
from vmm.report.pages import lanes
from vmm.report.pages.ram import memory
from vmm.report.pages.render import page
from vmm.report.pages.story import Place, Story
from vmm.report.statistics import statistics_lines
from vmm.report.style import Style
from vmm.report.timeline import KINDS
from vmm.report.trace import changed_text, event

TOP = 100  # instructions in the table
LINES = 3000  # of the source
MARK_TEXT = 160
_SOURCE = re.compile(r"(?s)([^\s()][^()]*?):(\d+)(?:  |$)")
VERDICTS = {"good": "pass", "warn": "skip-verdict", "bad": "fail"}  # colour of the text -> class of the style
WORDS = {
    "pass": "The guest did what it should.",
    "fail": "The guest failed.",
    "skip": "This host cannot show it.",
    "error": "The host or pyvmm failed.",
    "timeout": "The guest reached its time limit.",
    "interrupted": "Somebody ended it from outside.",
}


def run_page(story: Story, outcome: Outcome, command: str, *, exit_code: int, told: tuple[str, ...] = ()) -> str:
    """The page. `told` are sentences of a replay: what was handled again, and what not.

    Raises:
        UsageError: the template library is missing.
    """
    name = outcome.payload or (story.trace.payload if story.trace else "")
    cpus = max([*(len(made.ids) for made in story.made), *(cpu + 1 for cpu in story.by_cpu)], default=1)
    places = sorted(story.places.values(), key=lambda place: (-place.count, place.number))
    whole = lanes.whole_of(story.bins, story.time)
    return page(
        "run.html",
        title=f"{name}: {outcome.outcome}",
        command=command,
        told=told,
        verdict=outcome.outcome,
        colour=VERDICTS[COLOURS.get(outcome.outcome, "warn")],
        words=WORDS.get(outcome.outcome, ""),
        reason=outcome.reason,
        facts=list(_facts(story, outcome, exit_code)),
        results=[(each, value) for each, value in outcome.results.items()],
        evidence=list(outcome.evidence.items()),
        failures=outcome.failures,
        notes=[*outcome.notes, *_missed(outcome)],
        postmortem=_postmortem(outcome.postmortem) if outcome.postmortem else None,
        exits=story.exits,
        kinds=_kinds(story),
        legend=[kind for kind in KINDS if any(each == kind for each, _ in story.by_kind)],
        lanes=lanes.lanes(story.bins, story.by_cpu, cpus, story.time),
        more_lanes=max(cpus - lanes.SHOWN, 0),
        axis=lanes.axis(whole),
        whole=_time(whole),
        places=[_place(each, story.exits) for each in places[:TOP]],
        ties=sum(each.count == places[0].count for each in places),
        more_places=(len(places) - TOP, sum(each.count for each in places[TOP:]) + story.elsewhere),
        source=_source(story, places),
        consoles=list(_consoles(story, outcome)),
        memories=[memory(each, story) for each in story.left],
        more_guests=max(story.guests - len(story.left), 0) if story.left else 0,
        devices=[each for each in story.devices.values() if each.reads or each.writes],
        idle_devices=sum(not (each.reads or each.writes) for each in story.devices.values()),
        first=[_exit(each) for each in story.first],
        last=[_exit(each) for each in story.last],
        between=story.exits - len(story.first) - len(story.last),
        marks=[_mark(each) for each in story.marks],
        more_marks=story.more_marks,
        stats=statistics_lines(outcome.stats, Style()) if outcome.stats else [],
        data=_data(story, cpus, places),
    )


def _facts(story: Story, outcome: Outcome, exit_code: int) -> Iterator[tuple[str, str]]:
    for made in story.made[:1]:
        yield "machine", _machine(made)
    if story.guests > 1:
        yield "guests", f"{story.guests}, one after another: a proof makes several"
    yield "exits", f"{story.exits:,}"
    yield "ran for", f"{outcome.wall_ms:.1f} ms" + " (watched, which is slower than a plain run)"
    yield "exit status", str(exit_code)
    if story.trace is not None:
        yield "recorded by", f"pyvmm {story.trace.pyvmm}" + (", every instruction" if story.trace.step else "")
        if story.trace.synthetic:
            yield "synthetic", "written by hand, of a host that its author did not have"


def _machine(made: Made) -> str:
    cpus = f"{len(made.ids)} vCPU{'s' * (len(made.ids) != 1)}"
    params = "".join(f", {name}={value:#x}" for name, value in made.params.items())
    return f"{cpus}, {format_size(made.memory)} of memory, board {made.board}, irqchip {made.irqchip}{params}"


def _missed(outcome: Outcome) -> Iterator[str]:
    if outcome.unclaimed:
        count = outcome.unclaimed
        yield f"{count} access{'es' * (count != 1)} that no device claims: a read gives all ones"
        yield from (str(each) for each in outcome.missed)


def _kinds(story: Story) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "name": name, "count": count, "share": _share(count, story.exits)}
        for (kind, name), count in story.by_kind.most_common()
    ]


def _share(count: int, whole: int) -> str:
    return f"{100 * count / max(whole, 1):.1f} %"


def _place(place: Place, exits: int) -> dict[str, Any]:
    return {
        "number": place.number,
        "count": place.count,
        "share": _share(place.count, exits),
        "width": round(100 * place.count / max(exits, 1), 2),
        "kinds": [kind for kind, _ in place.kinds.most_common()],
        "insn": place.insn,
        "at": place.at or f"{place.rip:#x}",
        "source": place.source,
    }


def _source(story: Story, places: list[Place]) -> dict[str, Any] | None:
    """The payload's own text with the exits of each line; None where there is none, or nothing of it is known."""
    if story.trace is None or not story.trace.text:
        return None
    stem, counts, file = PurePath(story.trace.payload).stem, dict[int, int](), ""
    for place in places:
        found = _SOURCE.match(place.source)
        if found and PurePath(found[1]).stem == stem:
            file = found[1]
            counts[int(found[2])] = counts.get(int(found[2]), 0) + place.count
    lines = story.trace.text.splitlines()
    top = max(counts.values(), default=0)
    if not top:
        return None
    return {
        "file": file,
        "lines": [
            {"number": number, "text": text, "count": counts.get(number, 0), "heat": _heat(counts.get(number, 0), top)}
            for number, text in enumerate(lines[:LINES], 1)
        ],
        "more": max(len(lines) - LINES, 0),
    }


def _heat(count: int, top: int) -> int:
    """0 for none, else 1 to 4."""
    return 0 if not count else min(1 + 4 * count // (top + 1), 4)


def _consoles(story: Story, outcome: Outcome) -> Iterator[dict[str, Any]]:
    for guest, printed in sorted(story.consoles.items()):
        yield {
            "guest": guest,
            "size": printed.size,
            "begin": bytes(printed.begin).decode("utf-8", "replace"),
            "left_out": printed.left_out,
            "end": printed.last.decode("utf-8", "replace"),
        }


def _exit(record: Exited) -> dict[str, Any]:
    return {
        "seq": record.seq,
        "time": _time(record.t),
        "cpu": record.cpu,
        "what": event(record.exit, record.step),
        "at": record.at or f"{record.rip:#x}",
        "insn": record.insn,
        "source": record.source,
        "changed": changed_text(record.changed),
    }


def _time(t: int) -> str:
    return f"{t / 1e6:.3f} ms"


def _mark(record: Event | Note | Stopped) -> dict[str, Any]:
    kind = {Event: record.kind if isinstance(record, Event) else "", Note: "note", Stopped: "end"}[type(record)]
    return {"time": _time(record.t), "guest": record.guest, "kind": kind, "text": record.text}


def _data(story: Story, cpus: int, places: list[Place]) -> dict[str, Any]:
    known = {each.number: each.source or f"{each.at} {each.insn}".strip() for each in places[: 4 * TOP]}
    return lanes.data(story.bins, cpus, story.time) | {
        "places": {str(number): text[:MARK_TEXT] for number, text in known.items()},
        "marks": [
            [each.t, each.cpu if isinstance(each, Event | Stopped) else None, each.text[:MARK_TEXT]]
            for each in story.marks
        ],
    }


# -- post-mortem


def _postmortem(found: PostMortem) -> dict[str, Any]:
    return {
        "reason": found.reason,
        "hint": found.hint,
        "fault": found.fault,
        "vcpus": [_vcpu(each) for each in found.vcpus],
        "notes": found.notes,
    }


def _vcpu(vcpu: VcpuState) -> dict[str, Any]:
    control = [
        ("rflags", vcpu.registers.get("rflags"), RFLAGS),
        ("cr0", vcpu.control.get("cr0"), CR0),
        ("cr4", vcpu.control.get("cr4"), CR4),
        ("efer", vcpu.control.get("efer"), EFER),
    ]
    return {
        "index": vcpu.index,
        "apic_id": vcpu.apic_id,
        "mode": vcpu.mode,
        "rip": vcpu.rip,
        "where": vcpu.where,
        "source": vcpu.source,
        "odd": vcpu.odd,
        "code": vcpu.code,
        "registers": [(name, value) for name, value in vcpu.registers.items() if name not in ("rip", "rflags")],
        "flags": [(name, value, describe_flags(value, bits)) for name, value, bits in control if value is not None],
        "control": [(name, value) for name, value in vcpu.control.items() if name in ("cr2", "cr3", "apic_base")],
        "segments": list(vcpu.segments.items()),
        "walks": ["\n".join(walk) for walk in vcpu.walks],
        "last_exits": vcpu.last_exits,
    }
