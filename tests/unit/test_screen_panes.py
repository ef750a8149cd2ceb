# SPDX-License-Identifier: GPL-2.0-or-later
"""The panes of the screen as text, made of numbers: no device, no terminal."""

from __future__ import annotations

import pytest

from vmm.abi.x86 import PAGE, RFLAGS
from vmm.asm.assembler import assemble
from vmm.errors import GuestMemoryError
from vmm.kvm.state import Regs, Segment, Sregs
from vmm.machine.x86.page_walk import walk as walk_tables
from vmm.screen.lines import Line, line, plain
from vmm.screen.panes import lists
from vmm.screen.panes.memory import memory, stack, walk
from vmm.screen.panes.registers import registers
from vmm.screen.panes.source import disassembly, source, title
from vmm.screen.scene import BreakLook, CpuLook, DeviceLook, ExitLook, Scene, StopLook

TEXT = """start:
    mov eax, 1
    call sum        ; adds
    hlt
sum:
    add eax, 2
    ret
"""
FILE = "/somewhere/first.asm"
PROGRAM = assemble(TEXT, name=FILE, base=0x20000)
CS = Segment(selector=8, l=1, present=1)


def read(address: int, size: int) -> bytes:
    memory = PROGRAM.code.ljust(PAGE, b"\0")
    return memory[address - 0x20000 : address - 0x20000 + size] if 0x20000 <= address < 0x20000 + PAGE else b""


def scene(**changes) -> Scene:
    cpu = {
        "regs": Regs(rip=PROGRAM.entry, rsp=0x20100),
        "sregs": Sregs(cs=CS),
        "address": PROGRAM.entry,
        "where": "start",
    }
    cpu |= changes.pop("cpu", {})
    cpus = changes.pop("cpus", (CpuLook(0, 0, **cpu),))
    return Scene(cpus, program=PROGRAM, read=read, files=lambda name: tuple(TEXT.splitlines()) if name == FILE else (),
                 **changes)  # fmt: skip


def row(lines: list[Line], text: str) -> Line:
    return next(each for each in lines if text in each.text)


class TestRegisters:
    def test_what_changed_is_marked(self) -> None:
        lines = registers(scene(cpu={"regs": Regs(rax=5, rsp=0x20100), "before": Regs(rax=4, rsp=0x20100)}), 46)
        assert "*rax 0000000000000005" in plain(lines)
        assert " rsp 0000000000020100" in plain(lines)
        assert "changed" in {span.kind for span in row(lines, "rax").spans}

    def test_flags_are_words_and_one_that_went_is_said(self) -> None:
        now, before = RFLAGS.FIXED | RFLAGS.CF, RFLAGS.FIXED | RFLAGS.ZF
        text = plain(registers(scene(cpu={"regs": Regs(rflags=now), "before": Regs(rflags=before)}), 80))
        assert "*rflags 0x3 CF (no longer ZF)" in text

    @pytest.mark.parametrize(
        ("bits", "value", "shown", "hidden"),
        [
            (16, 0x1234, " ax  1234 ", "eax"),
            (16, 0x12345, " eax 00012345 ", "rax"),
            (32, 0x12345, " eax 00012345 ", "rax"),
            (32, 1 << 40, " rax 0000010000000000", " eax"),
            (64, 0x12, " rax 0000000000000012", " eax"),
        ],
    )
    def test_they_are_as_wide_as_the_code_is_and_nothing_is_hidden(
        self, bits: int, value: int, shown: str, hidden: str
    ) -> None:
        text = plain(registers(scene(cpu={"regs": Regs(rax=value, r9=5 * (bits != 64)), "bits": bits}), 46))
        assert shown in f"{text} "
        assert hidden not in text
        assert (" r8 " in text) == (bits == 64)
        assert " r9 " in text

    def test_control_registers_are_decoded(self) -> None:
        text = plain(registers(scene(cpu={"sregs": Sregs(cs=CS, cr0=0x8000_0011)}), 80))
        assert "cr0  0x80000011 PE ET PG" in text

    @pytest.mark.parametrize(("width", "columns"), [(21, 1), (46, 2), (79, 3), (100, 4)])
    def test_as_many_columns_as_have_room(self, width: int, columns: int) -> None:
        lines = registers(scene(), width)
        assert lines[0].text.count("0000000000") == columns
        assert max(len(each.text) for each in lines[: 16 // columns]) <= width


class TestSource:
    def test_the_current_line_and_a_breakpoint_are_marked(self) -> None:
        lines = source(scene(breaks=(BreakLook(1, "sum", PROGRAM.symbols["sum"]),)), 60, 7)
        assert row(lines, "mov eax").text == " ►   2     mov eax, 1"
        assert row(lines, "add eax").text == "●    6     add eax, 2"
        assert title(scene()) == "first.asm:2"

    def test_a_click_on_a_line_says_which(self) -> None:
        click = row(source(scene(), 60, 7), "add eax").click
        assert (click.what, click.value) == ("line", 6)

    def test_a_line_knows_its_address_and_a_comment_has_none(self) -> None:
        lines = source(scene(), 60, 7)
        assert row(lines, "add eax").address == PROGRAM.symbols["sum"]
        assert row(lines, "start:").address is None

    def test_another_vcpu_is_shown_where_it_is(self) -> None:
        cpus = tuple(
            CpuLook(n, n, Regs(), Sregs(cs=CS), address=at) for n, at in ((0, 0x20000), (1, PROGRAM.symbols["sum"]))
        )
        assert "<- vCPU 1" in row(source(scene(cpus=cpus), 60, 7), "add eax").text

    def test_a_short_pane_shows_where_the_vcpu_is(self) -> None:
        at = PROGRAM.symbols["sum"]
        assert "►" in plain(source(scene(cpu={"address": at}), 60, 3))

    def test_without_the_file_it_is_a_disassembly_with_labels(self) -> None:
        lines = source(scene().with_(files=lambda name: ()), 70, 9)
        assert row(lines, "mov eax").text.startswith(" ► 00020000  b8 01 00 00 00")
        assert "call sum" in plain(lines)
        assert "sum:" in plain(lines)

    def test_of_unmapped_memory_it_says_so(self) -> None:
        assert "nothing is mapped here" in plain(disassembly(scene(cpu={"address": 0x9000_0000}), 70, 9))

    def test_what_is_seen_moves_only_where_it_has_to(self) -> None:
        assert source(scene(top=(FILE, 2), line=(FILE, 4)), 60, 5)[0].click.value == 2
        assert source(scene(top=(FILE, 1), line=(FILE, 6)), 60, 5)[0].click.value == 3
        assert source(scene(top=("other.asm", 2), line=(FILE, 4)), 60, 3)[0].click.value == 3

    def test_the_cursor_moves_what_is_seen(self) -> None:
        lines = source(scene(line=(FILE, 6)), 60, 3)
        assert row(lines, "add eax").here
        assert "►" not in plain(lines)


class TestMemory:
    def test_bytes_text_and_labels(self) -> None:
        lines = memory(scene(memory_at=0x20000), 79, 2)
        assert lines[0].text.startswith("00020000  b8 01 00 00 00 e8 01 00  00 00 f4")
        assert plain(memory(scene(memory_at=0x20000), 100, 1)).endswith("start")

    def test_what_is_not_mapped_is_said_once(self) -> None:
        text = plain(memory(scene(memory_at=0x9000_0000), 79, 3))
        assert text.count("not mapped") == 1

    def test_the_end_of_mapped_memory_cuts_a_row(self) -> None:
        lines = memory(scene(memory_at=0x20000 + PAGE - 8), 79, 2)
        assert lines[0].text.count("00") >= 8
        assert "not mapped" in lines[1].text or "--" in lines[1].text

    def test_no_row_is_wider_than_the_pane(self) -> None:
        for width in (48, 60, 79, 120, 150):
            for each in memory(scene(memory_at=0x20010), width, 4):
                assert len(each.text) <= width

    def test_physical_memory_is_read_apart(self) -> None:
        there = scene(memory_at=0, physical=True, read_physical=lambda at, size: b"P" * size)
        assert "PPPP" in plain(memory(there, 79, 1))

    def test_the_stack_marks_rsp_and_names_what_it_holds(self) -> None:
        inside = PROGRAM.symbols["sum"]
        there = scene().with_(read=lambda at, size: inside.to_bytes(8, "little") if at == 0x20100 else bytes(size))
        lines = stack(there, 46, 3)
        assert lines[0].text == "rsp>00020100  000000000002000b  sum"
        assert lines[0].click.value == inside

    def test_16_bit_code_has_a_stack_of_words(self) -> None:
        sregs = Sregs(ss=Segment(base=0x20000))
        lines = stack(scene(cpu={"bits": 16, "sregs": sregs, "regs": Regs(rsp=0x100)}), 46, 1)
        assert lines[0].text.startswith(" sp>00020100  0000")

    def test_a_walk_names_its_entries_and_its_end(self) -> None:
        tables = {0x1000: 0x2003, 0x2000: 0x3003, 0x3000: 0x4003, 0x4000: 0}

        def read_u64(gpa: int) -> int:
            if gpa not in tables:
                raise GuestMemoryError("no RAM")
            return tables[gpa]

        there = scene(walk_at=0, walk_of="rsp").with_(
            walk=lambda va: walk_tables(read_u64, 0x1000, 1 << 5, 0x500, 0x8000_0001, va)
        )
        text = plain(walk(there))
        assert "PML4E at 0x000001000" in text
        assert "no page: PTE at 0x4000: not present" in text
        assert ":walk" in plain(walk(scene()))


class TestLists:
    def test_vcpus_say_state_and_place_and_a_click_selects(self) -> None:
        cpus = tuple(CpuLook(n, n, Regs(), Sregs(cs=CS), state=state) for n, state in ((0, "runnable"), (1, "halted")))
        lines = lists.vcpus(scene(cpus=cpus, vcpu=1))
        assert row(lines, "halted").text.startswith("► vCPU 1")
        assert row(lines, "halted").click.value == 1

    def test_stops_mark_the_present_one(self) -> None:
        rows = (StopLook(1, "begin", "", "start"), StopLook(2, "step", "", "start+0x5", now=True))
        lines = lists.stops(scene(stops=rows))
        assert lines[1].text.startswith("►   2  step")
        assert lines[1].here
        assert lines[0].click == ("stop", 1)

    def test_exits_have_their_source_lines(self) -> None:
        text = plain(lists.exits(scene(exits=(ExitLook(7, 0, "OUT port 0xe9", "start+0x4", "first.asm:2  out"),))))
        assert "7  OUT port 0xe9   start+0x4   first.asm:2  out" in text

    def test_breaks_tell_hits(self) -> None:
        assert "counter" in plain(lists.breaks(scene(breaks=(BreakLook(3, "counter", None, 1, "watchpoint"),))))
        assert "1 hit" in plain(lists.breaks(scene(breaks=(BreakLook(3, "counter", None, 1),))))

    def test_empty_lists_say_how_to_fill_them(self) -> None:
        assert ":watch" in plain(lists.breaks(scene()))
        assert "no exit" in plain(lists.exits(scene()))
        assert "nothing yet" in plain(lists.console(scene(), 40))

    def test_devices_have_registers_below_their_names(self) -> None:
        text = plain(
            lists.devices(scene(devices=(DeviceLook("16550A UART", "port 0x3f8-0x3ff", (("ier", "0x1  RDI"),)),)))
        )
        assert text == "16550A UART  port 0x3f8-0x3ff\n  ier        0x1  RDI"

    def test_a_long_console_line_is_wrapped(self) -> None:
        assert [each.text for each in lists.console(scene(console="abcdefgh\nx"), 5)] == ["abcde", "fgh", "x"]

    def test_the_end_stands_below_the_console(self) -> None:
        assert plain(lists.ending(scene(ended=("post-mortem: a triple fault",)))) == "post-mortem: a triple fault"


def test_what_a_guest_writes_moves_no_cursor() -> None:
    assert line("a\x1b[2J\nc").text == "a\\x1b[2J c"
