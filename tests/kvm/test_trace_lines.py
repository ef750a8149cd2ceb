# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces and steps with what was written there, what each step changed, and interrupts and exceptions as they come."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from vmm.cli import main
from vmm.kvm import inject
from vmm.machine.extra.injector import Injector
from vmm.machine.machine import Machine
from vmm.machine.memory.layout import REGIONS
from vmm.observe import codec, trace
from vmm.observe.trace import Event, Exited, Record, Writer, read
from vmm.observe.tracer import Tracer
from vmm.payload.c.compiler import COMPILERS
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.outcome import Outcome
from vmm.payload.replay.recorder import Recording
from vmm.payload.replay.replay import replay
from vmm.payload.run import run_payload

ADD = "start:\n    mov   al, 42\n    add   eax, 1\n    out   0x80, al\n    hlt\n"
FAULTS = """%include "idt.inc"
start:
    mov   edi, 0
    lea   rsi, [rip + on_divide]
    call  set_gate
    mov   edi, 14
    lea   rsi, [rip + on_page_fault]
    call  set_gate
    xor   ecx, ecx
    mov   eax, 7
    xor   edx, edx
divide:
    div   ecx
    mov   rbx, 0x700000000000
touch:
    mov   eax, dword ptr [rbx]
    mov   al, 0
    out   0xf4, al
on_divide:
    mov   ecx, 1
    iretq
on_page_fault:
    add   rsp, 8
    add   qword ptr [rsp], 2
    iretq
"""
# The interrupt's gate, and an end that waits for it.
IRQ = f"""IDT_BASE = {REGIONS["idt"].base:#x}
%include "idt.inc"
start:
    mov   edi, 0x51
    lea   rsi, [rip + on_irq]
    call  set_gate
    sti
    out   0x80, al
    nop
    nop
    nop
    hlt
on_irq:
    mov   ebx, 1
    iretq
"""


def step(file: Path, text: str, **options: int) -> tuple[list[Record], Outcome]:
    file.write_text(text, encoding="utf-8")
    records: list[Record] = []
    recording = Recording(find(str(file)), records.append, pyvmm="test", step=True)
    outcome = run_payload(find(str(file)), Options(timeout=100, watch=recording.watch, **options))
    recording.end(outcome, outcome.exit_code)
    return records, outcome


def exited(records: list[Record]) -> list[Exited]:
    return [each for each in records if isinstance(each, Exited)]


def events(records: list[Record], by: str) -> list[Event]:
    return [each for each in records if isinstance(each, Event) and each.by == by]


@pytest.mark.parametrize("how", ["--trace", "--step"])
def test_each_line_shows_what_was_written(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Printed, recorded and replayed."""
    monkeypatch.chdir(tmp_path)
    Path("add.asm").write_text(ADD, encoding="utf-8")
    assert main(["run", "add.asm", how, "--timeout", "100", "--trace", "--trace", "add.jsonl"]) == 0
    shown = capsys.readouterr().out
    assert "  out 0x80, al                      add.asm:4  out   0x80, al\n" in shown
    if how == "--step":
        assert "add.asm:2  mov   al, 42                   rax 0x0 -> 0x2a\n" in shown
        (line,) = [each for each in shown.splitlines() if "add.asm:3" in each]
        assert "rax 0x2a -> 0x2b, rflags 0x" in line
    assert main(["replay", "add.jsonl"]) == 0
    again = capsys.readouterr().out
    lines = [each for each in shown.splitlines() if "add.asm:" in each]
    assert lines
    assert [each for each in again.splitlines() if "add.asm:" in each] == lines


def test_changes_are_those_of_the_instruction(tmp_path: Path) -> None:
    """What a device answers comes after the exit, and is no change of the next instruction's."""
    text = "start:\n in al, 0x80\n nop\n push rax\n mov cr3, rax\n hlt\n"
    records, _ = step(tmp_path / "x.asm", text.replace("mov cr3, rax", "mov rbx, cr3"))
    found = {each.insn.split()[0]: {name for name, *_ in each.changed} for each in exited(records)}
    assert (found["in"], found["nop"], found["push"]) == (set(), set(), {"rsp"})
    assert found["mov"] == {"rbx"}


def test_exceptions_are_seen_at_their_gates_and_leave_the_guest_as_it_is(tmp_path: Path) -> None:
    """The fault pushes KVM's TF along with RFLAGS: the handler's IRET must not give it to the guest."""
    records, outcome = step(tmp_path / "faults.asm", FAULTS)
    assert outcome.outcome == "pass", outcome.reason
    found = events(records, "gate")
    if not found:
        assert any("single-step was lost" in getattr(each, "text", "") for each in records)
        pytest.skip("on this host the CPU goes into a handler without a step")
    divide, page = found
    assert (divide.kind, divide.vector, divide.error_code, divide.cpu) == ("exception", 0, None, 0)
    assert "#DE (divide error), before " in divide.text
    assert "(" in divide.text
    assert "faults.asm:13  div   ecx): handler on_divide" in divide.text
    assert (page.vector, page.error_code) == (14, 0)
    assert "touch" in page.text
    for number, each in enumerate(records):
        if "single-step was lost" in getattr(each, "text", ""):
            assert getattr(records[number + 1], "changed", None) == (), "of more than that instruction"


def test_what_the_host_injects_is_seen_twice() -> None:
    """When it is raised, and at its gate."""
    with Machine() as machine:
        machine.load(IRQ)
        injector = Injector(machine)
        machine.on_port_write(0x80, lambda value: injector.interrupt(0x51))
        records: list[Record] = []
        Tracer(records.append, step=True).attach(machine, "irq", {}, dict)
        machine.run(100)
        assert machine.regs.rbx == 1
    (raised,) = events(records, "host")
    assert (raised.kind, raised.vector, raised.text) == ("interrupt", 0x51, "vCPU 0: the host injects interrupt 0x51")
    taken = events(records, "gate")
    assert [each.vector for each in taken] in ([0x51], [])
    if taken:
        assert records.index(raised) < records.index(taken[0])
        assert taken[0].kind == "interrupt"


def test_lines_messages_and_nmis_are_told_without_stepping() -> None:
    with Machine(irqchip="kernel") as machine:
        machine.load("start: jmp start")
        records: list[Record] = []
        Tracer(records.append).attach(machine, "x", {}, dict)
        machine.irq_line(5, True)
        machine.irq_line(5, False)
        machine.vm.signal_msi(0xFEE00000, 0x61)
        machine.cpus[0].vcpu.nmi()
        inject.exception(machine.cpus[0].vcpu, 6)
    told = [(each.cpu, each.kind, each.vector, each.text) for each in events(records, "host")]
    assert told == [
        (None, "line", None, "line (GSI) 5 rises"),
        (None, "line", None, "line (GSI) 5 falls"),
        (None, "msi", 0x61, "a message brings vector 0x61"),
        (0, "nmi", 2, "vCPU 0: the host sends an NMI"),
        (0, "exception", 6, "vCPU 0: the host injects #UD (invalid opcode)"),
    ]


def test_a_machine_that_nobody_traces_is_told_nothing() -> None:
    with Machine() as machine:
        assert machine.vm.raised is None
        assert machine.cpus[0].vcpu.raised is None


def test_past_the_end_of_the_program_is_said(tmp_path: Path) -> None:
    records, _ = step(tmp_path / "runs.asm", "start:\n    lea   rax, [0xa0000]\n    nop\n", exit_limit=6)
    odd = [each.source for each in exited(records) if each.source.startswith("(past the end of your program")]
    assert odd
    assert odd[0].endswith("runs.asm:3  nop)")


def test_a_guest_in_c_has_its_lines(tmp_path: Path) -> None:
    if not any(map(shutil.which, COMPILERS)):
        pytest.skip("no C compiler on this host")
    file, recorded = tmp_path / "guest.c", tmp_path / "guest.jsonl"
    file.write_text("#include <pyvmm.h>\nint main(void)\n{\n    putchar(65);\n    return PASS;\n}\n", encoding="utf-8")
    assert main(["run", str(file), "--trace", str(recorded), "--timeout", "100"]) == 0
    sources = [record.source for _, record in read(str(recorded)) if isinstance(record, Exited)]
    assert sources
    assert all(sources)
    assert replay(str(recorded)).exit_code == 0


def test_a_trace_without_these_fields_is_read(tmp_path: Path) -> None:
    """As an older pyvmm wrote it."""
    path = tmp_path / "old.jsonl"
    records, _ = step(tmp_path / "add.asm", ADD)
    with path.open("wb") as file:
        writer = Writer(file, 1 << 20)
        for record in records:
            writer.write(replace(record, source="", changed=()) if isinstance(record, Exited) else record)
    old = exited(records)[0]
    value = codec.encode(old)
    del value["source"], value["changed"]
    assert codec.decode(trace.Exited, value) == replace(old, source="", changed=())
    assert replay(str(path)).exit_code == 0
