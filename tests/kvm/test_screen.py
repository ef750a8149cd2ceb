# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm debug` as a person uses it: keys, commands and clicks at a screen of some size, real guests behind it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("textual", reason="textual is not installed: pip install 'pyvmm[debug]'")

from tests.kvm.screen_pilot import Person, at_the_screen
from vmm.debug.session import Session
from vmm.errors import PayloadError
from vmm.payload.options import Options

SUM = """; adds 1 to 4, and should say 10
start:
    xor   eax, eax
    mov   ecx, 1
again:
    add   eax, ecx
    mov   [total], rax
    inc   ecx
    cmp   ecx, 4
    jb    again             ; planted: jbe was meant
    mov   rax, [total]
    cmp   rax, 10
    jne   wrong
    mov   al, 0
    out   0xf4, al
wrong:
    mov   al, 1
    out   0xf4, al
    hlt
.balign 8
total: .quad 0
"""
ENDLESS = """
start:
    xor   ecx, ecx
again:
    inc   rcx
    mov   [counter], rcx
    jmp   again
.balign 8
counter: .quad 0
"""

Story = Callable[[Person], Coroutine[Any, Any, None]]


def at(what: str | Path, story: Story, size: tuple[int, int] = (80, 24), options: Options | None = None) -> None:
    async def told() -> None:
        async with at_the_screen(what, size, options) as person:
            await story(person)

    asyncio.run(told())


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    def put(name: str, text: str) -> Path:
        file = tmp_path / name
        file.write_text(text, encoding="utf-8")
        return file

    return put


def test_a_planted_bug_is_found_by_watching_and_mended_by_going_back(write: Callable[[str, str], Path]) -> None:
    async def story(me: Person) -> None:
        assert me.title.split()[0] == "sum"
        assert "►   3     xor   eax, eax" in me.pane("source")
        await me.type("watch total")
        assert "watchpoint 1 at total" in me.message
        for number, change in enumerate(("0x0 -> 0x1", "0x1 -> 0x3", "0x3 -> 0x6")):
            await me.press("c")
            assert change in me.message, me.text
            assert f"{number + 1} hit" in me.pane("breaks")
        assert "sum.asm:8" in me.pane("stops")
        await me.press("c")  # the loop ends one too early
        assert "the guest wrote 0x1 to the exit port" in me.message
        await me.sees("[8 cons]")
        await me.sees("the guest has ended")
        await me.press("r")  # back at the third change
        assert "stop 4" in me.message
        await me.type("delete all")
        await me.type("until 10")
        assert "►  10     jb    again" in me.pane("source")
        await me.type("set ecx 3")
        await me.type("set rflags rflags + 1")  # as if jbe had been there
        assert "CF" in me.pane("registers")

    at(write("sum.asm", SUM), story)


def test_steps_mark_what_changed_and_back_takes_it_back(write: Callable[[str, str], Path]) -> None:
    async def story(me: Person) -> None:
        await me.press("s", "s")
        assert "*rcx 0000000000000001" in me.pane("registers")
        assert "*rip" in me.pane("registers")
        await me.press("s")
        assert " rcx 0000000000000001" in me.pane("registers")
        assert "*rax 0000000000000001" in me.pane("registers")
        await me.press("r")
        assert "rax 0000000000000000" in me.pane("registers")
        await me.type("step 4")
        await me.type("back 1")
        assert "begin" in me.title
        assert "►   3" in me.pane("source")
        await me.press("r")
        assert "no earlier stop" in me.message

    at(write("sum.asm", SUM), story)


def test_an_endless_guest_is_interrupted_and_watched(write: Callable[[str, str], Path]) -> None:
    async def story(me: Person) -> None:
        me.strike("c")
        await me.until(lambda: me.app.state == "running")
        assert "running" in me.title
        me.strike("s")
        await me.until(lambda: "i interrupts it" in me.message)
        await me.press("i")
        assert "interrupted" in me.title
        await me.type("break again if rcx == [counter] + 3")  # does not hold, and strikes all the time
        me.strike("c")
        await me.until(lambda: me.app.state == "running")
        await me.press("ctrl+c")
        assert "interrupted" in me.title
        await me.type("delete all")
        await me.type("watch counter")
        await me.press("c", "c")
        assert "watchpoint 2" in me.title

    at(write("endless.asm", ENDLESS), story)


def test_one_leaves_a_guest_that_runs(write: Callable[[str, str], Path]) -> None:
    async def story(me: Person) -> None:
        me.strike("c")
        await me.until(lambda: me.app.state == "running")
        me.strike("q")

    at(write("endless.asm", ENDLESS), story)


def test_breakpoints_by_label_line_click_and_key(write: Callable[[str, str], Path]) -> None:
    async def story(me: Person) -> None:
        await me.type("break wrong")
        await me.type("break 8 if ecx == 2")
        await me.click("inc   ecx", within="source")  # line 8 has one: that goes
        assert "breakpoint 2 is gone" in me.message
        await me.click("inc   ecx", within="source")
        assert "●    8     inc   ecx" in me.pane("source")
        await me.press("c")
        assert "►   8" in me.pane("source")
        await me.press("down", "down", "b")
        await me.until(lambda: "●   10     jb    again" in me.pane("source"))
        await me.press("u")
        assert "►  10" in me.pane("source")
        await me.press("0")
        await me.sees("breakpoints")
        await me.press("down", "enter")
        assert "is gone" in me.message

    at(write("sum.asm", SUM), story)


def test_exits_are_caught_and_listed_with_their_lines() -> None:
    async def story(me: Person) -> None:
        await me.type("catch port 0xe9")
        await me.press("c")
        assert "catch 1" in me.title
        assert "the guest has written nothing yet" in me.pane("console")
        await me.press("c")
        assert me.pane("console") == "H"
        assert "OUT port 0xe9, 1 byte: 0x48 'H'" in me.pane("exits")
        assert "console.inc:" in me.pane("exits")
        await me.type("delete all")
        await me.press("c")
        assert "Hello from ring 0" in me.pane("console")
        assert "PortOut" in me.pane("console")

    at("hello", story)


def test_two_vcpus_are_seen_and_selected() -> None:
    async def story(me: Person) -> None:
        await me.press("7")
        assert "vCPU 1" in me.pane("vcpus")
        await me.click("vCPU 1", within="vcpus")
        assert "registers of vCPU 1" in me.app.frame.panes["registers"].title
        assert "rdi 0000000000000001" in me.pane("registers")
        await me.press("s")
        assert "vCPU 1 at start" in me.title
        await me.press("v")
        assert "<- vCPU 1" in me.pane("source")
        await me.press("c")
        assert "exit port" in me.message

    at("smp", story, options=Options(cpus=2))


def test_a_crash_shows_its_post_mortem_and_one_goes_back() -> None:
    async def story(me: Person) -> None:
        await me.press("c")
        assert me.title.split()[1] == "fault:"
        assert "post-mortem" in me.pane("console")
        assert "exception  #PF" in me.pane("console") or "triple" in me.pane("console")
        await me.press("r")
        assert "begin" in me.title

    at("triple", story)


def test_a_host_half_gets_its_result_and_the_outcome_is_said() -> None:
    async def story(me: Person) -> None:
        await me.press("c")
        await me.press("c")
        await me.until(lambda: me.app.over)
        assert "it is over: pass  paging" in me.message
        await me.press("s")
        assert "the guest is gone" in me.message

    at("paging", story)


def test_a_proof_with_several_machines_is_held_in_each_of_its_runs() -> None:
    async def story(me: Person) -> None:
        runs = 0
        while not me.app.over and runs < 40:
            await me.press("c")
            runs += 1
        assert me.app.over
        assert me.message.startswith("it is over: ")

    at("signature", story)


def test_memory_follows_an_expression_and_is_searched_and_set() -> None:
    async def story(me: Person) -> None:
        await me.press("3")
        await me.type("mem text")
        await me.sees("Hello from ring")
        await me.type("find virtual")
        assert "virtual at 0x" in me.message
        await me.type("find nothing_like_this")
        assert "no nothing_like_this" in me.message
        await me.type("set text 4a")
        await me.type("mem text")
        await me.sees("Jello from")
        await me.press("pagedown")
        assert "Jello" not in me.pane("memory")
        await me.type("walk rsp")
        await me.press("4")
        await me.sees(" page, supervisor")
        await me.type("print [rsp] + 2 * 3")
        assert "= 0x6 = 6" in me.message

    at("hello", story)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("brek x", "no command is called 'brek'"),
        ("break nowhere", "no label is called 'nowhere'"),
        ("break start if open(1)", "conditions do not have"),
        ("print 1 // 0", "divides by zero"),
        ("mem [0xffffffffff]", "0xffffffffff"),
        ("set rax nothing", "'nothing'"),
        ("back 99", "no earlier stop 99"),
        ("delete 7", "no breakpoint 7"),
        ("catch exit Nothing", "no kind of exit"),
        ("vcpu 3", "vCPU"),
        ("step many", "number of steps"),
        ("show nothing", "no pane"),
        ("theme pink", "no theme"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(typed: str, said: str) -> None:
    async def story(me: Person) -> None:
        before = me.pane("registers"), me.pane("stops"), me.pane("breaks")
        me.app.do(typed)
        await me.still()
        assert said in me.message, me.message
        assert (me.pane("registers"), me.pane("stops"), me.pane("breaks")) == before

    at("hello", story)


@pytest.mark.parametrize("size", [(80, 24), (120, 40), (200, 60)])
def test_what_matters_is_seen_at_each_size(size: tuple[int, int]) -> None:
    async def story(me: Person) -> None:
        await me.press("s")
        rows = me.rows
        assert len(rows) == size[1]
        assert max(map(len, rows)) <= size[0]
        assert rows[0].split()[0] == "hello"
        assert "step: at start+0x7, 64-bit ring 0" in rows[0]
        await me.sees("►  10     call  print")
        await me.sees("*rsi 0000000000020014")
        assert "q quit" in rows[-1]
        for wanted in {80: ("0 brk",), 120: ("rsp>", "console of the guest"), 200: ("page walk", "stops", "vCPUs")}[
            size[0]
        ]:
            await me.sees(wanted)
        for key in "1234567890":
            await me.press(key)
        await me.pilot.resize_terminal(100, 30)
        await me.still()
        await me.sees("►  10")

    at("hello", story, size)


def test_a_terminal_too_small_says_so() -> None:
    async def story(me: Person) -> None:
        await me.sees("60x16 is needed")

    at("hello", story, (30, 8))


def test_completion_help_and_what_was_typed_before() -> None:
    async def story(me: Person) -> None:
        me.strike("colon", "b", "r", "tab", "p", "r", "tab", "enter")
        await me.still()
        assert "breakpoint 1 at print" in me.message
        me.strike("colon", "up")
        await me.until(lambda: ":break print" in me.rows[-2])
        await me.press("escape")
        await me.press("question_mark")
        await me.sees(":until WHERE")
        await me.press("escape")
        await me.until(lambda: ":until WHERE" not in me.text)
        for theme in ("light", "dark", "terminal"):
            await me.type(f"theme {theme}")
            await me.sees("►")

    at("hello", story)


def test_a_c_guest_has_its_lines(write: Callable[[str, str], Path]) -> None:
    text = '#include "pyvmm.h"\nvolatile int x;\nint main(void)\n{\n    x = 1;\n    x = 2;\n    return x - 2;\n}\n'

    async def story(me: Person) -> None:
        await me.type("break main")
        await me.press("c")
        await me.sees("guest.c")
        assert "x = 1;" in me.pane("source")
        await me.press("n", "n")
        await me.type("print u32[x]")
        assert "= 0x1 =" in me.message or "= 0x2 =" in me.message

    at(write("guest.c", text), story)


MAIN = """extern int twice(int);
int counter[4];
void _start(void)
{
    for (int i = 0; i < 3; i++)
        counter[0] += twice(i);
    __asm__ volatile("movups counter, %%xmm3; outb %b0, $0xf4; hlt" :: "a"(counter[0]));
}
"""
UTIL = """int twice(int n)
{
    int m = n;
    m += n;
    return m;
}
"""
FLAGS = ("-g", "-O0", "-fno-pic", "-no-pie", "-static", "-nostdlib", "-fno-stack-protector", "-fcf-protection=none")


def test_an_elf_image_of_several_files_and_its_other_registers(write: Callable[[str, str], Path]) -> None:
    """Breakpoints by FILE:LINE in each; vector, debug and model-specific registers."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this host")
    sources = write("main.c", MAIN), write("util.c", UTIL)
    image = sources[0].with_name("guest.elf")
    subprocess.run(["gcc", *FLAGS, "-Wl,-Ttext=0x100000,--build-id=none", "-o", image, *sources], check=True)

    async def story(me: Person) -> None:
        await me.type("break util.c:4")
        assert "breakpoint 1 at util.c:4" in me.message
        await me.type("break main.c:7")
        assert "main.c:7" in me.pane("breaks")
        await me.press("c")
        assert "m += n;" in next(each for each in me.pane("source").splitlines() if "►" in each)
        await me.type("delete 1")
        await me.type("registers vector")
        assert "mm3" in me.pane("registers")
        await me.press("c")
        assert "twice(i)" in me.pane("source")
        await me.type("catch port 0xf4")
        await me.press("c")
        shown = next(each for each in me.pane("registers").splitlines() if "mm3" in each)
        assert shown.startswith("*")
        assert shown.split()[1].endswith("00000006")
        await me.press("e", "e")
        assert "dr7" in me.pane("registers")
        await me.press("e")
        assert "KVM_SYSTEM_TIME" in me.pane("registers")
        await me.type("registers nonsense")
        assert "no registers 'nonsense'; try: one of general, vector, x87, debug, msrs" in me.message
        await me.type("registers general")
        assert "rax 0000000000000006" in me.pane("registers")

    at(image, story)


def test_code_of_16_and_32_bits_has_its_own_registers() -> None:
    async def story(me: Person) -> None:
        for place, mode, there, not_there in (
            ("real", "real mode", {"ax", "ip", "flags"}, {"rax", "rip", "r8"}),
            ("protected32", "32-bit ring 0", {"eax", "eip", "eflags"}, {"rax", "rip", "r8"}),
            ("long", "64-bit ring 0", {"rax", "rip", "rflags", "r8"}, {"eip"}),
        ):
            await me.type(f"break {place}")
            for _ in range(8):  # its first runs end in the modes before
                if f"at {place}, {mode}" in me.title:
                    break
                await me.press("c")
            assert f"at {place}, {mode}" in me.title
            words = set(me.pane("registers").replace("*", " ").split())
            assert there <= words
            assert not not_there & words

    at("cpu_modes", story)


def test_an_error_before_anything_is_seen_is_the_commands_own(write: Callable[[str, str], Path]) -> None:
    async def story(me: Person) -> None:
        assert me.app.frame is None
        assert me.app.return_value == 1
        assert isinstance(me.control.error, PayloadError)

    at(write("bad.asm", "start: nonsense\n"), story)


def test_an_error_of_the_screens_own_shows_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from vmm.cli.debug import control_of
    from vmm.payload.catalog import find
    from vmm.screen.app import DebugScreen

    def breaks(_self: DebugScreen, _asked: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(DebugScreen, "_do", breaks)
    control = control_of(find("hello"), Options())
    app = DebugScreen(control, "hello")

    async def told() -> None:
        async with app.run_test() as pilot:
            await pilot.press("s")
            await pilot.pause()

    with pytest.raises(ZeroDivisionError):
        asyncio.run(told())
    assert control.leave(30)
    assert isinstance(app.failed, ZeroDivisionError)
    assert "Traceback" not in capsys.readouterr().err


def test_the_machine_runs_on_without_a_debugger_when_nobody_looks() -> None:
    """The seam costs a plain run nothing: no session, no holder, no observer."""
    from vmm.machine.machine import Machine

    with Machine() as machine:
        machine.load("hlt")
        assert machine.holder is None
        machine.run()
        with Session(machine):
            assert machine.holder is not None
        assert machine.holder is None


def test_a_plain_run_loads_nothing_of_the_screen() -> None:
    code = (
        "import sys\nfrom vmm.cli import main\nassert main(['run', 'hello']) == 0\n"
        "print(*[each for each in sys.modules if each.split('.')[0] in ('textual', 'rich')"
        " or each.startswith(('vmm.screen', 'vmm.debug'))], 'end')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.splitlines()[-1] == "end"
