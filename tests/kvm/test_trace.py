# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs that are watched: they end as unwatched ones do, their traces read well and replay to the same outcome."""

from __future__ import annotations

import itertools
import json
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast
from xml.etree import ElementTree

import pytest

from vmm.cli import main
from vmm.errors import HostError, MissingCapability
from vmm.kvm.exits import Debug, PortOut
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS
from vmm.machine.run.cpu import Cpu
from vmm.machine.run.ring3_traps import step_strikes
from vmm.observe.trace import End, Exited, Made, Note, Record, Writer, read
from vmm.observe.tracer import Tracer
from vmm.payload.catalog import find, shipped
from vmm.payload.options import Options
from vmm.payload.replay.recorder import Recording
from vmm.payload.replay.replay import replay
from vmm.payload.run import run_payload

PATIENT = Options(timeout=60)
ENDLESS = """
start:
    out   0x80, al
    inc   eax
    jmp   start
"""


def record(name: str, options: Options = PATIENT, *, step: bool = False) -> tuple[list[Record], Any]:
    from dataclasses import replace

    records: list[Record] = []
    recording = Recording(find(name), records.append, pyvmm="test", step=step)
    outcome = run_payload(find(name), replace(options, watch=recording.watch))
    recording.end(outcome, outcome.exit_code)
    return records, outcome


def exited(records: list[Record]) -> list[Exited]:
    return [each for each in records if isinstance(each, Exited)]


@pytest.mark.parametrize(
    "name", ["hello", "pio", "mmio", "smp", "faults", "ring3", "serial", "msr", "triple", "hlt", "paging"]
)
def test_a_watched_run_ends_as_an_unwatched_one_and_replays(name: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    plain = run_payload(find(name), PATIENT)
    status = main(["run", name, "--trace", str(path), "--timeout", "60", "--json"])
    assert status == plain.exit_code
    found = replay(str(path))
    assert found.exit_code == status
    assert found.outcome.console == plain.console
    assert (found.outcome.outcome, found.outcome.reason) == (plain.outcome, plain.reason)
    if name in ("pio", "mmio", "hello", "hlt", "triple", "paging"):  # paging: constants of its text, too
        assert found.judged
        assert found.taken == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", list(shipped()))
def test_no_payloads_own_trace_is_refused(name: str, tmp_path: Path) -> None:
    """Whatever its host half does: what cannot be done again is taken from the record, and not called a forgery."""
    path = tmp_path / "trace.jsonl"
    endless = {"spin": ["--timeout", "0.5"], "storm": ["--output-limit", "2K"]}
    status = main(["run", name, "--trace", str(path), "--json", *endless.get(name, ["--timeout", "60"])])
    assert replay(str(path)).exit_code == status


def test_the_story_of_hello(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "hello", "--trace", "--timeout", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "trace of hello"
    assert lines[3].replace("guest_payloads/inc/", "").split()[2:] == [
        "0",
        "OUT",
        "console,",
        "1",
        "byte:",
        "0x48",
        "'H'",
        "print+0x5",
        "out",
        "0xe9,",
        "al",
        "console.inc:12",
        "out",
        "DEBUG_CONSOLE,",
        "al",
    ]
    (at,) = [number for number, line in enumerate(lines) if "console | Hello from ring 0" in line]
    assert "OUT exit port, 1 byte: 0x0 (pass)" in lines[at + 1]
    assert "the guest wrote 0x0 to the exit port" in lines[at + 2]
    times = [float(line.split()[0]) for line in lines if " ms " in line and line[:1] == " "]
    assert times == sorted(times)


def test_the_story_of_smp_has_both_vcpus() -> None:
    records, _ = record("smp")
    halt, end = exited(records)
    assert (halt.cpu, halt.insn) == (1, "hlt")
    assert (end.cpu, end.insn) == (0, "out 0xf4, al")


def test_the_story_of_an_asynchronous_page_fault(capsys: pytest.CaptureFixture[str]) -> None:
    records, outcome = record("async_pf")
    if outcome.outcome != "pass":
        pytest.skip(outcome.reason)
    first = [each for each in records if getattr(each, "guest", 0) == 0]
    told = [each.text if isinstance(each, Note) else each.exit for each in first if isinstance(each, (Note, Exited))]
    asked, fetched = "KVM asks for page 0 of those held back", "the host fetched page 0"
    assert told.index(PortOut(0x80, 1, b"\1")) < told.index(fetched)
    assert told.index(asked) < told.index(fetched)  # KVM asks in its own time, also while the guest tells of it
    assert len([each for each in records if isinstance(each, Made)]) > 3  # the refusals have guests of their own


# RIP is past some instructions and at others: the program's own labels say which instruction it was.
SITES = """
start:
    mov   edx, 0x80
one:
    out   dx, al
two:
    out   dx, al
three:
    in    al, dx
four:
    in    al, dx
    mov   ebx, 0xd0000000
five:
    mov   dword ptr [rbx], eax
six:
    mov   ecx, dword ptr [rbx]
    cld
    mov   ecx, 3
    lea   rsi, [rip + start]
seven:
    rep   outsb
eight:
    hlt
"""


@pytest.mark.parametrize("before", ["", "    out 0x81, al\n"])
def test_every_exit_has_its_own_instruction(before: str) -> None:
    with Machine() as machine:
        machine.load(SITES.replace("start:\n", "start:\n" + before))
        records: list[Record] = []
        Tracer(records.append).attach(machine, "sites", {}, dict)
        assert machine.run(60).stop.why == "halt"
    sites = {each.at: each.insn.split()[0] for each in exited(records) if each.at != "start"}
    wanted = {"one": "out", "two": "out", "three": "in", "four": "in", "five": "mov", "six": "mov"}
    wanted |= {"seven": "rep", "eight": "hlt"}
    if not before:  # nothing has told yet which way this host does it: the first of two may be taken for the second
        sites.setdefault("one", "out")
    assert sites == wanted


def test_every_instruction_of_ring_0_is_stepped() -> None:
    records, outcome = record("hello", step=True)
    assert outcome.outcome == "pass"
    steps = [each.insn for each in exited(records) if isinstance(each.exit, Debug)]
    assert steps[0].startswith("lea rsi")
    assert steps.count("lodsb al, byte ptr [rsi]") == 41


def test_where_single_step_is_lost_is_said() -> None:
    records, outcome = record("ring3", step=True)
    assert outcome.outcome == "pass"
    steps = [each for each in exited(records) if isinstance(each.exit, Debug)]
    lost = [each for each in records if isinstance(each, Note)]
    in_ring3 = [each for each in steps if each.at.startswith("user_begin")]
    assert in_ring3 or any("single-step was lost at `iretq`" in each.text for each in lost)


SAYS_B = "mov al, 0x42\nout 0xe9, al\nhlt"  # not reached
STEPPED = {
    "the HLT that ends it": (f"mov al, 0x41\nout 0xe9, al\nnop\nhlt\n{SAYS_B}", "", "mov out nop hlt"),
    "HLT first": (f"hlt\n{SAYS_B}", "", "hlt"),
    "HLT after a port": (f"out 0x80, al\nhlt\n{SAYS_B}", "", "out hlt"),
    "HLT after a read": (f"in al, 0x80\nhlt\n{SAYS_B}", "", "in hlt"),
    "a byte that looks like HLT": (f"mov al, 0xf4\nout 0xe9, al\nmov bl, 0xf4\nnop\nhlt\n{SAYS_B}", "",
                                   "mov out mov nop hlt"),
    "a read of MMIO": (f"mov ebx, 0xd0001000\nmov eax, [rbx]\nhlt\n{SAYS_B}", "", "mov mov hlt"),
    "a string": (f"mov edi, DATA_BASE\nmov ecx, 3\nmov edx, 0x80\nrep insb\nhlt\n{SAYS_B}", "", "mov mov mov rep hlt"),
    "ring 3": ("mov eax, 1\nmov ebx, 2\nadd eax, ebx\nout 0x80, al\nmov eax, 0\nout 0xf4, al\n.align 4096\nb:",
               "; machine: ring=3\n; user: start b\n; ports: 0x80 0xf4\n", "mov mov add out mov out"),
    "a LAPIC": ("mov al, 42\nout 0x80, al\nmov al, 0\nout 0xf4, al", "; machine: irqchip=split\n", "mov out mov out"),
}  # fmt: skip


@pytest.mark.parametrize("name", STEPPED)
def test_stepping_changes_nothing_and_shows_each_instruction_once(name: str, tmp_path: Path) -> None:
    text, header, ran = STEPPED[name]
    file = tmp_path / "own.asm"
    file.write_text(f"{header}start:\n{text}\n", encoding="utf-8")
    _, plain = record(str(file))
    records, stepped = record(str(file), step=True)
    assert (stepped.outcome, stepped.reason, stepped.console) == (plain.outcome, plain.reason, plain.console)
    untold = any("ring 3 is not stepped" in each.text for each in records if isinstance(each, Note))
    told = [each.insn.split(" ")[0] for each in exited(records)]
    if "rep" in ran:  # each of its turns may be an exit
        told = [word for word, _ in itertools.groupby(told)]
        ran = " ".join(word for word, _ in itertools.groupby(ran.split()))
    assert told == (["out", "out"] if untold else ran.split())


def test_a_guest_that_sleeps_and_wakes_is_stepped_as_it_is() -> None:
    records, outcome = record("serial", Options(timeout=300.0), step=True)
    assert outcome.outcome == "pass"
    assert any("is not stepped" in each.text for each in records if isinstance(each, Note))


def test_a_script_is_told_where_it_cannot_step() -> None:
    with Machine() as machine:
        base = REGIONS["code"].base
        machine.load("nop\nnop\nout 0xf4, al\n", ring=3, user=[(base, base + 0x1000)], allowed_ports=[0xF4])
        machine.debugger.stepping = True
        if step_strikes(machine.kvm, Machine):
            assert machine.run(timeout=10).exits["Debug"] == 2
        else:
            with pytest.raises(MissingCapability, match="single-step: ring 3 is not stepped"):
                machine.run(timeout=10)
            machine.debugger.stepping = False
            assert machine.run(timeout=10).stop.why is Why.EXIT_PORT


# -- what it costs


def test_without_a_watcher_the_fast_lane_is_taken() -> None:
    with Machine() as machine:
        assert machine.all_cpus.lane is machine.lane
        Tracer(lambda record: None).attach(machine, "x", {}, dict)
        assert machine.all_cpus.lane is None
        machine.watcher = None
        assert machine.all_cpus.lane is machine.lane


def test_an_endless_guest_makes_no_endless_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, path = tmp_path / "endless.asm", tmp_path / "trace.jsonl"
    source.write_text(ENDLESS, encoding="utf-8")
    arguments = ["run", str(source), "--timeout", "3", "--trace", str(path), "--trace-limit", "64K"]
    assert main(arguments) == 124
    assert path.stat().st_size < 100_000
    *_, (_, end) = read(str(path))
    assert isinstance(end, End)
    assert end.dropped > 0
    assert end.recorded > 100
    capsys.readouterr()
    assert main(["replay", str(path), "--quiet"]) == 124
    assert "more exits" in capsys.readouterr().out or end.dropped


def test_an_endless_guest_takes_no_endless_memory(tmp_path: Path) -> None:
    source = tmp_path / "endless.asm"
    source.write_text(ENDLESS, encoding="utf-8")
    main(["run", str(source), "--timeout", "0.3", "--timeline", str(tmp_path / "a.svg"), "--json"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    main(["run", str(source), "--timeout", "2", "--timeline", str(tmp_path / "a.svg"), "--json"])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 << 10  # KiB
    ElementTree.parse(tmp_path / "a.svg")


def test_a_callback_that_waits_for_another_vcpu_is_not_waited_for() -> None:
    """Exits are handled one at a time, so that devices are asked in the order of the records; but not at any price."""
    came = threading.Event()
    with Machine(cpus=2) as machine:
        machine.load("""
        start:
            test  edi, edi
            jz    boot
        inside:
            cmp   byte ptr [0xa0000], 1
            jne   inside
            out   0x81, al
            hlt
        boot:
            out   0x80, al
            hlt
        """)
        machine.start(1, "start")

        def wait(value: int) -> None:
            machine.memory.write_u8(0xA0000, 1)
            came.wait(30)

        machine.on_port_write(0x80, wait)
        machine.on_port_write(0x81, lambda value: came.set())
        Tracer(lambda record: None).attach(machine, "x", {}, dict)
        begin = time.monotonic()
        assert machine.run(60).stop.why == "halt"
        assert time.monotonic() - begin < 25


# -- files that cannot be


@pytest.mark.parametrize("option", ["--trace", "--timeline", "--html"])
@pytest.mark.parametrize("name", ["missing/x.jsonl", ".", "a" * 300 + ".jsonl"])
def test_an_unwritable_file_is_one_line_before_anything_runs(
    option: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "hello", option, name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith(f"pyvmm: writing '{name[:10]}")
    assert list(tmp_path.iterdir()) == []


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    """Also the other file of the same run: one that cannot be written is said before any is touched."""
    path = tmp_path / "trace.jsonl"
    path.write_text("precious\n", encoding="utf-8")
    assert main(["run", "hello", "--trace", str(path), "--timeline", str(tmp_path / "missing/x.svg")]) == 2
    assert main(["run", str(tmp_path / "nothing.asm"), "--trace", str(path)]) == 2
    assert path.read_text(encoding="utf-8") == "precious\n"
    assert [each.name for each in tmp_path.iterdir()] == ["trace.jsonl"]


def test_a_trace_of_an_interrupted_run_is_kept(tmp_path: Path, uncovered: dict[str, str]) -> None:
    source, path = tmp_path / "endless.asm", tmp_path / "trace.jsonl"
    source.write_text(ENDLESS, encoding="utf-8")
    command = [sys.executable, "-m", "vmm", "run", str(source), "--trace", "--trace", str(path), "--timeout", "60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=uncovered) as process:
        assert process.stdout is not None
        for _ in range(20):
            process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "pyvmm: interrupted\n"
    assert replay(str(path)).exit_code == 130


class Struck:
    """A file during whose write number `line` ^C comes."""

    def __init__(self, file: BinaryIO, line: int) -> None:
        self.file, self.line, self.lines = file, line, itertools.count()

    def write(self, data: bytes) -> None:
        if next(self.lines) == self.line:
            self.file.write(data[:10])
            signal.raise_signal(signal.SIGINT)
            data = data[10:]
        self.file.write(data)


@pytest.mark.parametrize("line", [1, 2, 3, 20, 44])
def test_an_interrupt_in_the_middle_of_a_line_spoils_no_trace(line: int, tmp_path: Path) -> None:
    """The signal comes while the line is written; the line is finished, the run is over, and the trace is whole."""
    path = tmp_path / "trace.jsonl"
    with path.open("wb") as file:
        writer = Writer(cast(BinaryIO, Struck(file, line)), 1 << 20)
        recording = Recording(find("hello"), writer.write, pyvmm="test")
        with pytest.raises(KeyboardInterrupt):
            run_payload(find("hello"), Options(watch=recording.watch, timeout=60))
        recording.end(None, 130, recorded=writer.recorded)
    assert len([*read(str(path))]) == line + 2
    assert replay(str(path)).exit_code == 130


def test_an_interrupt_just_before_a_line_leaves_the_trace_whole(tmp_path: Path) -> None:
    """The exit was counted and handled, and its line never came."""
    path, lines = tmp_path / "trace.jsonl", itertools.count()
    with path.open("wb") as file:
        writer = Writer(file, 1 << 20)

        def emit(record: Record) -> None:
            if next(lines) == 20:
                signal.raise_signal(signal.SIGINT)
            writer.write(record)

        recording = Recording(find("hello"), emit, pyvmm="test")
        with pytest.raises(KeyboardInterrupt):
            run_payload(find("hello"), Options(watch=recording.watch, timeout=60))
        recording.end(None, 130, recorded=writer.recorded)
    assert len([*read(str(path))]) == 21
    assert replay(str(path)).exit_code == 130


def test_an_interrupt_ends_a_printed_trace_that_nobody_reads(uncovered: dict[str, str]) -> None:
    """The pipe is full, and the write waits: ^C must not wait with it."""
    command = [sys.executable, "-m", "vmm", "run", "storm", "--trace", "--timeout", "600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=uncovered) as process:
        assert process.stdout is not None
        process.stdout.read(1)  # it has begun
        wchan = Path(f"/proc/{process.pid}/wchan")
        deadline = time.monotonic() + 60
        while "pipe" not in wchan.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        for _ in range(50):  # the first is enough; but it may come while Python is about to wait
            process.send_signal(signal.SIGINT)
            try:
                process.wait(0.5)
                break
            except subprocess.TimeoutExpired:
                continue
        ended = process.poll()
        process.kill()
    assert ended is not None


def test_a_reader_that_goes_away_loses_no_file(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    command = f"{sys.executable} -m vmm run hello --trace --trace {path} --timeout 60 | head -2"
    subprocess.run(command, shell=True, check=True, capture_output=True, timeout=60)
    assert [*read(str(path))]


@pytest.mark.parametrize("arguments", [["--trace", "hello"], ["hello", "--step", "--json"], ["hello", "--trace", "-"]])
def test_the_ways_to_ask_for_it(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *arguments, "--timeout", "60"]) == 0
    captured = capsys.readouterr()
    if "--json" in arguments:
        assert json.loads(captured.out)["outcome"] == "pass"
        assert "trace of hello, every instruction" in captured.err
    else:
        assert captured.out.startswith("trace of hello\n")


def test_two_files_are_one_too_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [str(tmp_path / name) for name in ("a.jsonl", "b.jsonl")]
    assert main(["run", "hello", "--trace", names[0], "--trace", names[1]]) == 2
    assert "one file is written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_guests_control_characters_are_shown_and_not_obeyed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "rude.asm"
    source.write_text("start:\n    mov al, 0x1b\n    out 0xe9, al\n    mov al, 0x63\n    out 0xe9, al\n    hlt\n")
    assert main(["run", str(source), "--trace", "--no-color"]) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "console | \\x1bc" in shown


def test_a_traced_machine_of_a_script(booted: Callable[..., Machine]) -> None:
    """What on_exit sees is seen too, and a hook's error goes through as without a trace."""
    machine = booted(bytes.fromhex("e680 f4"))
    seen: list[Cpu] = []
    machine.on_exit = lambda runner, exit: seen.append(runner)
    records: list[Record] = []
    Tracer(records.append).attach(machine, "x", {}, dict)

    def boom(value: int) -> None:
        raise ValueError("boom")

    machine.on_port_write(0x80, boom)
    with pytest.raises(ValueError, match="boom"):
        machine.run(60)
    assert len(seen) == 1
    assert not exited(records)


def test_a_trace_of_a_run_that_could_not_go_on_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the midst of a run: the exits so far are kept, and the exit status is that of the run."""
    from guest_payloads.basics import pio

    def broken(self: Any, offset: int, size: int) -> int:
        raise HostError("the device is gone", "another one")

    monkeypatch.setattr(pio.Recorder, "read", broken)
    path = tmp_path / "trace.jsonl"
    assert main(["run", "pio", "--trace", str(path), "--timeout", "60"]) == 99
    monkeypatch.undo()
    found = replay(str(path))
    assert (found.exit_code, found.outcome.outcome, found.outcome.reason) == (99, "error", "the device is gone")
    assert found.handled == 3


def test_a_guest_that_steps_itself_is_not_stepped_and_that_is_said(tmp_path: Path) -> None:
    """KVM's step takes the #DB of the guest's own TF."""
    file = tmp_path / "own.asm"
    file.write_text("start: pushf\nor qword ptr [rsp], 0x100\npopf\nnop\nhlt\n", encoding="utf-8")
    _, plain = record(str(file))
    records, stepped = record(str(file), step=True)
    assert (stepped.outcome, stepped.reason) == (plain.outcome, plain.reason)
    assert any("sets RFLAGS.TF, to step itself" in each.text for each in records if isinstance(each, Note))
