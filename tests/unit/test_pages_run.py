# SPDX-License-Identifier: GPL-2.0-or-later
"""The page of a run: what it says first, what a guest may have written, 10^5 exits; and in a real Chromium."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from tests.unit.test_pages import Page, whole
from tools.chromium import Chromium
from vmm.cli import main
from vmm.kvm.exits import Halt, MmioWrite, PortOut
from vmm.machine.ends import Resume, Why
from vmm.machine.x86.page_walk import Fault, Level, Translation
from vmm.observe.left import Area, Left, Mapped, Used, Walked
from vmm.observe.postmortem import CodeLine, FaultInfo, PostMortem, VcpuState
from vmm.observe.trace import Claim, Event, Exited, Made, Note, Run, Stopped, Trace
from vmm.payload.outcome import Outcome
from vmm.report.pages.run import run_page
from vmm.report.pages.story import CONSOLE, Story

TRACES = Path(__file__).resolve().parents[1] / "traces"
EVIL = "</script><img src=x onerror=alert(1)>\x00\x1b[31m\u202e\"'&<b>"
MANY = 100_000
SOURCE = "start:\n    mov al, 'a'\nagain:\n    out 0xe9, al\n    jmp again\n"


def story(exits: int = 40, *, word: str = "", console: bytes = b"") -> Story:
    """Two vCPUs; of every four exits three are of one OUT. `word` is put wherever a guest or a person can write."""
    made = Story()
    made.add(Trace(1, "1.0", f"loop{word}", False, "", SOURCE, step=False))
    made.add(Made(0, 0, f"loop{word}", {"n": 1}, (0, 1), 2 << 20, "none", False, 1 << 20, {}))
    claims = (Claim("port", "w", 0xE9, 1, f"debug console{word}"), Claim("mmio", "w", 0xD000_0000, 4096, "scratch"))
    made.add(Run(0, 0, (0, 1), claims, (), (), ()))
    for seq in range(1, exits + 1):
        t, cpu = seq * 5000, seq % 2
        if seq % 4:
            out, printed = PortOut(0xE9, 1, b"a"), console if seq == 1 else b"a"
            where = (
                0x20004,
                "again",
                f"out 0xe9, al{word}",
                Resume(),
                printed,
                f"loop{word}.asm:4  out 0xe9, al{word}",
            )
            made.add(Exited(seq, 0, t, cpu, out, *where))
        else:
            write = MmioWrite(0xD000_0000, b"\x01")
            made.add(Exited(seq, 0, t, cpu, write, 0x20009, f"put{word}", "mov [rdi], al", Resume(), b""))
    made.add(Event(0, exits * 5000, 0, "gate", "exception", 6, None, f"#UD{word}"))
    made.add(Note(0, exits * 5000, f"a note{word}"))
    made.add(Stopped(0, exits * 5000 + 10, Why.HALT, f"the guest halted{word}", None, 0, {}, 1))
    walk = Translation(
        0x20000, "4-level", (Level("PML4E", 0xA000, 0xB027, "PRESENT"), Level("PDE", 0xB000, None, "unreadable")),
        fault=Fault.UNREADABLE,
    )  # fmt: skip
    areas = (Area(0x20000, 0x60000, f"code{word}", "rwx-", "the payload", True),
             Area(0xD000_0000, 4096, "scratch_mmio", "rw--", "a device", False))  # fmt: skip
    used = (Used(0x20000, 8192, "guest", True, False, 4096, "code+0x0"),
            Used(0x21000, 4096, "host half", False, True, 4096, f"code{word}"))  # fmt: skip
    mapped, walks = (Mapped(0x20000, 0x20000, 0x60000, "rwx-"),), (Walked(f"the entry{word}", "", walk),)
    made.add(Left(0, exits * 5000 + 20, areas, used, mapped, walks, (f"noted{word}",)))
    return made


def outcome(word: str = "") -> Outcome:
    vcpu = VcpuState(
        0, 0, 0x20004, f"again{word}", "64-bit ring 0", None, {"rax": 1, "rip": 0x20004, "rflags": 2}, {"cr0": 1},
        {f"cs{word}": f"0x8{word}"}, (CodeLine(0x20004, "e6 e9", f"out{word}", True),), ((f"walk{word}",),),
        (f"HLT{word}",), f"source{word}", f"odd{word}",
    )  # fmt: skip
    fault = FaultInfo(6, f"#UD{word}", 0, f"detail{word}", None)
    found = PostMortem(f"it crashed{word}", f"because{word}", fault, (vcpu,), (f"note{word}",))
    return Outcome(
        f"loop{word}", "fail", f"a reason{word}", results={"value": 7}, failures=(f"failed{word}",),
        evidence={f"name{word}": f"seen{word}"}, wall_ms=1.5, postmortem=found, notes=(f"said{word}",),
        stats=({"of": f"vm{word}", "guest": 1, "values": []},),
    )  # fmt: skip


def made(of: Story, word: str = "") -> str:
    return run_page(of, outcome(word), f"pyvmm run loop{word}", exit_code=1, told=(f"told{word}",))


def text_of(page: str) -> str:
    """What a reader sees, without tags."""
    return " ".join(re.sub(r"<[^>]*>", " ", re.sub(r"(?s)<(script|style).*?</\1>", " ", page)).split())


def test_the_instruction_that_cost_most_comes_first() -> None:
    text = made(story())
    whole(text)
    assert "30 of 40 exits, 75.0 %, came from out 0xe9, al at again : loop.asm:4 out 0xe9, al" in text_of(text)
    rows = re.findall(r'<tr id="place-\d+"><td class="right">(\d+)</td>', text)
    assert rows == ["30", "10"]
    assert re.search(r'<tr class="heat-4"><td class="right">30</td><th scope="row" class="right">4</th>', text)


def test_where_no_instruction_cost_most_that_is_said() -> None:
    of = story(0)
    of.add(Exited(1, 0, 5, 0, PortOut(0xE9, 1, b"a"), 0x20004, "again", "out 0xe9, al", Resume(), b"a"))
    of.add(Exited(2, 0, 9, 0, MmioWrite(0xD000_0000, b"1"), 0x20009, "put", "mov [rdi], al", Resume(), b""))
    assert "2 instructions cost most, 1 exit of 2 each. The first is out 0xe9, al at again" in text_of(made(of))


def test_memory_says_who() -> None:
    text = text_of(made(story()))
    assert "The guest used 8K, and wrote 0 of it. The host half used 4K, and wrote 4K of it." in text
    assert "code 0x20000 to 0x7ffff 384K rwx- 8K read 4K written the payload" in text
    assert "0 reads, 10 writes by exits" in text
    assert "no page: PDE at 0xb000: no RAM at the entry" in text


def test_what_a_guest_wrote_is_text() -> None:
    hostile = EVIL.encode() + b"\xff\xfe\x00\x9b2J"
    text = made(story(console=hostile, word=EVIL), EVIL)
    page = Page(text)
    assert page.seen["script"] == 2
    assert not page.seen["img"]
    assert not page.seen["b"] - Page(made(story())).seen["b"]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", text)
    assert text.count("&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;") > 25
    data = re.search(r'(?s)<script type="application/json" id="data">(.*?)</script>', text)
    assert data
    assert EVIL[:20] in json.dumps(json.loads(data[1]))


def test_a_page_of_nothing() -> None:
    empty = run_page(Story(), Outcome("", "interrupted"), "pyvmm run x", exit_code=130)
    whole(empty)
    assert "The guest had no exit." in empty


def test_a_console_without_end_keeps_its_beginning_and_its_end() -> None:
    of = story(console=b"<first>" + b"x" * (3 * CONSOLE) + b"<last>")
    text = made(of)
    assert len(text) < CONSOLE + 200_000
    assert "&lt;first&gt;" in text
    assert "&lt;last&gt;" in text
    assert f"{3 * CONSOLE + 13 + 29 - CONSOLE} bytes are left out" in text


def test_a_recorded_trace_has_the_same_page(tmp_path: Path) -> None:
    file = tmp_path / "r.html"
    assert main(["replay", str(TRACES / "hello.jsonl"), "--quiet", "--html", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    whole(text)
    assert "Hello from ring 0 of a virtual machine." in text
    assert "Which instruction cost most exits" in text
    assert "handled again without a device" in text


def test_a_page_has_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "t.jsonl"
    trace.write_bytes((TRACES / "hello.jsonl").read_bytes())
    before = trace.read_bytes()
    assert main(["replay", str(trace), "--html", str(trace)]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert main(["replay", str(trace), "--html", "-"]) == 2
    assert "a page goes into a file" in capsys.readouterr().err
    assert main(["replay", str(trace), "--html", str(tmp_path / "no/such/x.html")]) == 2
    assert "No such file or directory" in capsys.readouterr().err
    assert trace.read_bytes() == before


HEADINGS = "Array.from(document.querySelectorAll('h1,h2,h3,h4'), e => Number(e.tagName[1]))"
UNNAMED = """Array.from(document.querySelectorAll('button,input,svg[role=img],[role=region],nav,section'), e =>
  (e.ariaLabel || e.labels && e.labels.length || e.getAttribute('aria-labelledby') || e.textContent.trim()) ? '' :
  e.outerHTML.slice(0, 80)).filter(e => e)"""
UNSCOPED = "document.querySelectorAll('th:not([scope])').length"


def test_in_a_browser_the_timeline_goes_nearer_by_mouse_and_keys(chromium: Chromium) -> None:
    chromium.open(made(story()), width=1600)
    here = "document.getElementById('here').textContent"
    chromium.run("document.querySelector('.lane svg').scrollIntoView({block: 'center', behavior: 'instant'})")
    box = chromium.run("(r => [r.left, r.top, r.width])(document.querySelector('.lane svg').getBoundingClientRect())")
    ticks = "Array.from(document.querySelectorAll('.axis span'), e => e.textContent).join()"
    all_of_it = chromium.run(ticks)
    chromium.drag(box[0] + box[2] * 0.2, box[1] + 20, box[0] + box[2] * 0.6)
    near = chromium.run(ticks)
    assert near != all_of_it
    assert "vCPU 0" in chromium.run(here)
    chromium.run("document.getElementById('everything').click()")
    assert chromium.run(ticks) == all_of_it
    chromium.run("document.querySelector('.lane svg').focus()")
    chromium.press("Home", "ArrowRight")
    first = chromium.run(here)
    assert re.search(r"1 port \(exit 2, loop.asm:4  out 0xe9, al\)|1 MMIO \(exit 4", first), first
    chromium.press("Enter")
    assert chromium.run("document.activeElement.id").startswith("exit-")
    assert not chromium.complaints


@pytest.mark.parametrize("width", [400, 1600])
def test_in_a_browser_the_page_is_wide_enough_for_all(chromium: Chromium, width: int) -> None:
    chromium.open(made(story(word=EVIL, console=EVIL.encode()), EVIL), width=width, dark=width == 400)
    assert chromium.run("document.documentElement.scrollWidth") == width
    levels = chromium.run(HEADINGS)
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert chromium.run(UNNAMED) == []
    assert chromium.run(UNSCOPED) == 0
    assert chromium.run("document.images.length") == 0
    assert not chromium.complaints


def test_in_a_browser_without_script_the_facts_are_there(chromium: Chromium) -> None:
    chromium.open(made(story()), script=False)
    chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    assert chromium.run("document.querySelectorAll('#exit-list tbody tr').length") == 40
    assert chromium.run("document.querySelector('.lane path').getAttribute('d').length") > 10
    assert chromium.run("document.querySelector('.scripted').hidden") is True
    assert chromium.paper().startswith(b"%PDF")


@pytest.fixture(scope="module")
def many() -> str:
    return made(story(MANY))


def test_in_a_browser_a_hundred_thousand_exits_are_few_nodes(chromium: Chromium, many: str) -> None:
    assert len(many) < 1_500_000
    chromium.open(many)
    assert chromium.run("document.getElementsByTagName('*').length") < 10_000
    assert "75000 of 100000 exits" in text_of(many)
    drawn = "(t => { document.getElementById('nearer').click(); return performance.now() - t })(performance.now())"
    assert chromium.run(drawn) < 5000  # milliseconds, where all else runs too
    assert not chromium.complaints


def test_the_bars_hold_every_exit(many: str) -> None:
    data = json.loads(re.search(r'(?s)id="data">(.*?)</script>', many)[1])  # type: ignore[index]
    assert sum(sum(flat[1::4]) for lane in data["bars"] for flat in lane.values()) == MANY
    assert sum(len(flat) for lane in data["bars"] for flat in lane.values()) < 4 * 16_001


def test_halts_and_one_exit_alone() -> None:
    of = Story()
    of.add(Exited(1, 0, 10, 0, Halt(), 0x20000, "", "", Resume(), b""))
    text = run_page(of, Outcome("x", "pass"), "pyvmm", exit_code=0)
    whole(text)
    assert "The one exit came" in text
