# SPDX-License-Identifier: GPL-2.0-or-later
"""Recorded runs handled again without a device, and forgeries: resealed, so that only handling them finds the lie.

tests/traces holds what `pyvmm run NAME --trace tests/traces/NAME.jsonl` wrote, in a folder of its own for each kind of
host where the same payload shows something else: with VMX and SVM hypercalls reach KVM, and one of them leaves it.
hypercall_exits.jsonl are what tests/traces/record.py wrote there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from vmm.abi.pv import KVM_ENOSYS
from vmm.cli import main
from vmm.kvm import exits
from vmm.machine.ends import Resume
from vmm.observe.trace import End, Exited, Made, Note, TraceError, read
from vmm.payload.replay.replay import replay
from vmm.report.style import Style
from vmm.report.timeline import BINS, KINDS, Timeline, ticks
from vmm.report.trace import TraceText

TRACES = Path(__file__).resolve().parents[1] / "traces"
ALL = sorted(TRACES.rglob("*.jsonl"))
HARDWARE = ("svm", "vmx")
Lines = list[dict[str, Any]]


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(TRACES).with_suffix("")))
def test_a_recorded_run_is_handled_again_with_the_same_outcome(path: Path) -> None:
    *_, (_, end) = read(str(path))
    assert isinstance(end, End)
    found = replay(str(path))
    assert found.handled == end.recorded > 0
    assert (found.outcome.outcome, found.exit_code, found.outcome.reason) == (end.outcome, end.exit_code, end.reason)


def test_the_document_says_what_was_handled_and_how_it_ended(
    capsys: pytest.CaptureFixture[str], follows: Callable[[str, Any], Any]
) -> None:
    assert main(["replay", "--json", str(TRACES / "hello.jsonl")]) == 0
    doc = follows("replay", capsys.readouterr().out)
    follows("run", doc["outcome"])
    found = replay(str(TRACES / "hello.jsonl"))
    assert (doc["payload"], doc["handled"], doc["taken"]) == ("hello", found.handled, found.taken)
    assert doc["outcome"]["outcome"] == "pass"
    assert found.handled


def test_what_a_replay_did_itself_and_what_it_took_from_the_record() -> None:
    hello = replay(str(TRACES / "hello.jsonl"))
    assert hello.judged
    assert hello.taken == 0
    assert hello.outcome.console == b"Hello from ring 0 of a virtual machine.\n"
    for host in HARDWARE:
        hypercall = replay(str(TRACES / host / "hypercall_exits.jsonl"))
        assert hypercall.judged
        assert hypercall.taken == 2, "the MSR with a callback and the port of somebody: -ENOSYS and #GP are our own"
        assert hypercall.outcome.results == {"answer": -KVM_ENOSYS, "filtered": 0x1234, "faults": 2}


@pytest.mark.parametrize("path", ALL, ids=lambda path: str(path.relative_to(TRACES).with_suffix("")))
def test_the_command_shows_it_and_has_its_exit_status(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(path), "--no-color"]) == 0
    shown = capsys.readouterr().out
    assert f"trace of {path.stem}" in shown
    assert "handled again without a device" in shown


@pytest.mark.parametrize("host", HARDWARE)
def test_what_hosts_with_vmx_and_svm_handed_over(host: str) -> None:
    """KVM answers hypercalls by itself there, so nothing of them exits but what KVM_CAP_EXIT_HYPERCALL passes on."""
    found = {path.stem: replay(str(path)) for path in (TRACES / host).glob("*.jsonl")}
    assert {"hypercalls", "map_gpa_range", "pv_eoi", "hypercall_exits"} <= set(found)
    assert all(each.exit_code == 0 and not each.outcome.unclaimed for each in found.values())
    exited = [type(record.exit) for _, record in records(host, "hypercalls") if isinstance(record, Exited)]
    assert exits.Hypercall not in exited
    ranges = [
        record.exit
        for _, record in records(host, "map_gpa_range")
        if isinstance(record, Exited) and isinstance(record.exit, exits.Hypercall)
    ]
    assert [each.nr for each in ranges[:7]] == [12] * 7
    assert ranges[0].args[:3] == (0x180000, 4, 0x10)
    evidence = found["pv_eoi"].outcome.evidence
    assert evidence["PV_EOI.APICv or AVIC by KVM's module"] == "off"
    assert evidence["PV_EOI.ended by the bit"] > 0


def records(host: str, name: str) -> Any:
    return read(str(TRACES / host / f"{name}.jsonl"))


def test_where_kvm_answers_hypercalls_none_of_them_exits() -> None:
    """Recorded with SVM: the OUTs that mark places and hand a foreign instruction over are all that left KVM."""
    path = TRACES / "svm" / "hypercalls.jsonl"
    kinds = [type(record.exit) for _, record in read(str(path)) if isinstance(record, Exited)]
    assert kinds
    assert exits.Hypercall not in kinds
    evidence = replay(str(path)).outcome.evidence
    assert evidence["unknown hypercall.answered -KVM_ENOSYS"] == evidence["unknown hypercall.counted"] == 10
    assert evidence["KVM_HC_VAPIC_POLL_IRQ.counted"] == 1


def test_interrupts_that_end_by_the_bit_leave_no_write_of_eoi() -> None:
    """Recorded with SVM and without AVIC: at exits after a handler that took the bit, KVM_GET_LAPIC shows no ISR."""
    evidence = replay(str(TRACES / "svm" / "pv_eoi.jsonl")).outcome.evidence
    assert evidence["PV_EOI.APICv or AVIC by KVM's module"] == "off"
    assert evidence["PV_EOI.delivered"] == evidence["PV_EOI.interrupts sent"] == 128
    assert evidence["PV_EOI.ended by the bit"] > 64


# -- forgeries


def seal(lines: Lines) -> bytes:
    running, out = hashlib.blake2b(digest_size=8), b""
    for line in lines:
        body = json.dumps({k: v for k, v in line.items() if k != "sum"}, separators=(",", ":")).encode()[:-1]
        running.update(body)
        out += body + f',"sum":"{running.hexdigest()}"}}\n'.encode()
    return out


def load(name: str) -> Lines:
    return [json.loads(line) for line in (TRACES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def forged(tmp_path: Path) -> Callable[[Lines], str]:
    def write(lines: Lines) -> str:
        path = tmp_path / "forged.jsonl"
        path.write_bytes(seal(lines))
        return str(path)

    return write


def nth(lines: Lines, kind: str, number: int = 0) -> int:
    """The index of the n-th line of a kind."""
    return [at for at, line in enumerate(lines) if line["is"] == kind][number]


def exit_of(lines: Lines, kind: str, number: int = 0) -> int:
    found = [at for at, line in enumerate(lines) if line["is"] == "Exited" and line["exit"]["is"] == kind]
    return found[number]


def set_in(lines: Lines, at: int, value: Any, *keys: str) -> int:
    target = lines[at]
    for key in keys[:-1]:
        target = target[key]
    assert target[keys[-1]] != value
    target[keys[-1]] = value
    return at


FORGERIES: dict[str, tuple[str, Callable[[Lines], int], str]] = {
    "a reply": ("pio", lambda t: set_in(t, exit_of(t, "PortIn", -1), "fe", "step", "reply"), "the answer fe"),
    "a refusal": (
        "vmx/hypercall_exits",
        lambda t: set_in(t, exit_of(t, "ReadMsr", 1), 5, "step", "reply"),
        "gives the answer None",
    ),
    "an errno": ("vmx/hypercall_exits", lambda t: set_in(t, exit_of(t, "Hypercall", 0), -1, "step", "reply"), "-1000"),
    "no answer": ("pio", lambda t: set_in(t, exit_of(t, "PortIn", -1), False, "step", "answers"), "no answer"),
    "a console byte": ("hello", lambda t: set_in(t, exit_of(t, "PortOut", 3), "4a", "console"), "it prints b'l'"),
    "what was written": (
        "hello",
        lambda t: set_in(t, exit_of(t, "PortOut", 3), "4a", "exit", "data"),
        "it prints b'J'",
    ),
    "a port": ("hello", lambda t: set_in(t, exit_of(t, "PortOut", 3), 0x80, "exit", "port"), "it prints b''"),
    "an impossible port": (
        "hello",
        lambda t: set_in(t, exit_of(t, "PortOut"), 1 << 16, "exit", "port"),
        "no such exit",
    ),
    "an endless read": ("pio", lambda t: set_in(t, exit_of(t, "PortIn"), 1 << 60, "exit", "count"), "no such exit"),
    "a broken element": ("pio", lambda t: set_in(t, exit_of(t, "PortOut", 1), "22", "exit", "data"), "no such exit"),
    "an unknown vCPU": ("smp", lambda t: set_in(t, exit_of(t, "Halt"), 2, "cpu"), "no vCPU 2"),
    "an unknown guest": ("smp", lambda t: set_in(t, exit_of(t, "Halt"), 1, "guest"), "guest 1 was never made"),
    "a number": ("hello", lambda t: set_in(t, exit_of(t, "PortOut", 3), 9, "seq"), "exit 9 comes where exit 4 should"),
    "the exit code": ("hello", lambda t: set_in(t, exit_of(t, "PortOut", -1), "01", "exit", "data") + 1, "0x1"),
    "how the run ended": ("hello", lambda t: set_in(t, nth(t, "Stopped"), "halt", "why"), "by its exits"),
    "who was there": (
        "hello",
        lambda t: t[nth(t, "Run")]["claims"].pop(0) and nth(t, "Run"),
        "the record has nobody at",
    ),
    "an overlap": (
        "vmx/hypercall_exits",
        lambda t: set_in(t, nth(t, "Run"), t[nth(t, "Run")]["claims"] + [_claim(0xE8, 4)], "claims"),
        "overlaps",
    ),
    "the outcome": ("hello", lambda t: _outcome(t, "fail", 1), "the exits give pass"),
    "the exit status": ("hello", lambda t: set_in(t, len(t) - 1, 1, "exit_code"), "cannot be"),
    "an outcome that is none": ("hello", lambda t: _outcome(t, "glorious", 0), "cannot be"),
    "how many exits": ("hello", lambda t: set_in(t, len(t) - 1, 40, "recorded"), "40 exits should be"),
    "the payload": ("hello", lambda t: set_in(t, 0, "; summary: other\nstart:\n    hlt\n", "text"), "not the one"),
    "a result's name": ("hello", lambda t: set_in(t, len(t) - 1, {"\x1b[2J": 1}, "results"), "cannot be a name"),
    "guests": ("hello", lambda t: set_in(t, 1, 3, "guest"), "this guest cannot be"),
    "an end of nobody": ("hello", lambda t: t.insert(-1, dict(t[-2])) or len(t) - 2, "is not running"),
    "an exit of nobody": ("hello", lambda t: t.pop(2) and 2, "is not running"),
}


def _claim(base: int, size: int) -> dict[str, Any]:
    return {"is": "Claim", "space": "port", "way": "w", "base": base, "size": size, "name": "x"}


def _outcome(lines: Lines, outcome: str, code: int) -> int:
    lines[-1]["outcome"], lines[-1]["exit_code"] = outcome, code
    return len(lines) - 1


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forgery_is_refused_with_its_line(
    what: str, forged: Callable[[Lines], str], capsys: pytest.CaptureFixture[str]
) -> None:
    name, forge, says = FORGERIES[what]
    lines = load(name)
    at = forge(lines)
    path = forged(lines)
    with pytest.raises(TraceError) as caught:
        replay(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    if what != "the exit code":  # that one is noticed where the run ends
        assert caught.value.line == at + 1
    assert main(["replay", path]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""  # nothing of it is shown as if it were true
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"pyvmm: {path}:{caught.value.line}: ")


def test_a_trace_names_no_module_to_be_imported(
    forged: Callable[[Lines], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that calls itself shipped, with a name that leads elsewhere: nothing is imported, and it is said."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("evil", "../evil", "os", "inc.results"):
        lines = load("hello")
        lines[0]["payload"] = lines[1]["payload"] = name
        found = replay(forged(lines))
        assert found.notes == (f"this pyvmm has another {name}: its host half was left out",)


def test_another_version_of_a_shipped_payload_is_replayed_without_its_host_half(forged: Callable[[Lines], str]) -> None:
    lines = load("pio")
    lines[0]["text"] += "; and a comment\n"
    lines[0]["sha256"] = hashlib.sha256(lines[0]["text"].encode()).hexdigest()
    found = replay(forged(lines))
    assert found.taken == 12
    assert found.outcome.outcome == "pass"
    assert "another pio" in found.notes[0]


def test_a_trace_that_is_not_whole_by_its_size_limit_says_so(forged: Callable[[Lines], str]) -> None:
    lines = load("hello")
    lines = [*lines[:10], lines[-1] | {"recorded": 7, "dropped": 34}]
    found = replay(forged(lines))
    assert not found.judged
    assert found.handled == 7
    assert "34 exits came after" in found.notes[0]


def test_an_interrupted_trace_is_replayed_as_one(
    forged: Callable[[Lines], str], capsys: pytest.CaptureFixture[str]
) -> None:
    lines = load("hello")
    lines = [*lines[:10], lines[-1] | {"recorded": 7, "outcome": "interrupted", "exit_code": 130}]
    assert main(["replay", forged(lines), "--quiet"]) == 130
    assert "interrupted  hello" in capsys.readouterr().out


def test_a_time_limit_needs_no_exit_that_explains_it(forged: Callable[[Lines], str]) -> None:
    lines = load("hello")
    at = nth(lines, "Stopped")
    del lines[at - 1]
    stopped = lines[at - 1]
    stopped["why"], stopped["text"], stopped["code"] = "time limit", "too long", None
    lines[-1] |= {"recorded": 40, "outcome": "timeout", "exit_code": 124, "reason": "too long"}
    found = replay(forged(lines))
    assert found.judged
    assert found.exit_code == 124


# -- text


NASTY = "\x1b[2J\x9b31m\x07\u202eevil"


def test_control_characters_never_reach_the_terminal(
    forged: Callable[[Lines], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A payload's name, a label, an instruction's text, notes, results, the console: all of it is somebody's text."""
    lines = load("hello")
    lines[0]["payload"] = NASTY
    lines[0]["shipped"] = False
    lines[1]["payload"] = NASTY
    at = exit_of(lines, "PortOut", 0)
    lines[at]["at"] = lines[at]["insn"] = NASTY
    for number, byte in enumerate((0x1B, 0x9B, 0x07, 0x08)):
        one = exit_of(lines, "PortOut", number)
        lines[one]["exit"]["data"] = lines[one]["console"] = f"{byte:02x}"
    lines[nth(lines, "Stopped")]["results"] = {NASTY: 1}
    lines[-1]["evidence"] = {NASTY: NASTY}
    lines.insert(nth(lines, "Stopped"), {"is": "Note", "guest": 0, "t": 1, "text": NASTY + "\n"})
    main(["replay", forged(lines), "--no-color"])
    shown = capsys.readouterr().out
    assert "evil" in shown
    assert not set(shown) & set("\x1b\x9b\x07\x08\u202e\r")


def test_console_lines_follow_the_exits_that_brought_them() -> None:
    text = TraceText(Style())
    made: list[str] = []
    for _, record in read(str(TRACES / "hello.jsonl")):
        made += text.lines(record)
    (at,) = [number for number, line in enumerate(made) if "console |" in line]
    assert made[at].endswith("Hello from ring 0 of a virtual machine.")
    assert "OUT console, 1 byte: 0xa" in made[at - 1]


def test_console_without_a_newline_is_shown_and_bounded() -> None:
    text = TraceText(Style())
    exit = Exited(1, 0, 1, 0, exits.PortOut(0xE9, 1, b"x"), 0, "", "", Resume(), b"x" * 100)
    lines = [line for _ in range(100) for line in text.lines(exit)]
    assert 10 < sum("console |" in line for line in lines) < 30
    assert any("console |" in line for line in text.lines(Note(0, 1, "x")))


# -- the drawing


def drawn(cpus: int, exits_each: int, spread: int) -> tuple[str, ElementTree.Element]:
    timeline = Timeline('exits of <a> & \x1b"b"')
    timeline.add(Made(0, 0, "<x>", {}, tuple(range(cpus)), 0, "none", False, 0, {}))
    kinds = (exits.PortOut(0x80, 1, b"x"), exits.Halt(), exits.MmioRead(0, 1), exits.ReadMsr(1, 4), exits.Shutdown())
    for number in range(exits_each):
        for cpu in range(cpus):
            exit = kinds[number % len(kinds)]
            timeline.add(Exited(1, 0, number * spread, cpu, exit, 0, "", "", Resume(), b""))
    svg = timeline.svg()
    return svg, ElementTree.fromstring(svg)


@pytest.mark.parametrize("cpus", [1, 8, 255])
def test_a_lane_for_each_vcpu(cpus: int) -> None:
    svg, root = drawn(cpus, 50, 1_000_000)
    labels = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert [each for each in labels if each.startswith("vCPU")] == [f"vCPU {cpu}" for cpu in range(cpus)]
    assert labels.count("50") == cpus
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for each in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(each.attrib["x"]) <= width
        assert 0 <= float(each.attrib["y"]) <= height
    assert "\x1b" not in svg


def test_a_long_run_draws_no_more_than_a_short_one() -> None:
    svg, root = drawn(2, 20_000, 5_000_000)  # 100 seconds
    assert len(list(root.iter())) < 60
    assert svg.count("M") <= 2 * BINS * len(KINDS) + 2
    assert len(svg) < 400_000


def test_no_exit_at_all_is_a_drawing_too() -> None:
    assert ElementTree.fromstring(Timeline("nothing").svg()).tag.endswith("svg")


def test_every_exit_is_in_a_bar() -> None:
    _, root = drawn(1, 37, 1)
    texts = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert any("the highest has 37" in each for each in texts)


@pytest.mark.parametrize("whole", [1, 7, 999, 1000, 18_240_000, 60_000_000, 123_456_789, 86_400_000_000_000])
def test_the_times_of_a_timeline_are_round(whole: int) -> None:
    found = ticks(whole)
    step = found[1]
    assert found == list(range(0, whole + 1, step))
    assert len(found) <= 7
    assert str(step).rstrip("0") in ("1", "2", "5")
