# SPDX-License-Identifier: GPL-2.0-or-later
"""The fuzzer without /dev/kvm: it finds what was planted, keeps it small, goes on where it was, loses no process."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile

from vmm.cli import main
from vmm.errors import UsageError
from vmm.fuzz.engine import Engine
from vmm.fuzz.folder import Folder, read_crash
from vmm.fuzz.mutate import Mutator
from vmm.fuzz.smaller import smaller
from vmm.fuzz.target import HostTarget, Wrong
from vmm.fuzz.targets import devices, readers
from vmm.fuzz.targets.catalog import SHIPPED, shipped
from vmm.machine.devices.uart16550 import Uart16550A

PLANTED = '''
"""An I/O APIC with a bug behind a lock of two steps, each of which is undone by a wrong byte."""
from vmm.machine.devices.ioapic import Ioapic


class Planted(Ioapic):
    step = 0

    def write(self, offset, size, value):
        super().write(offset, size, value)
        if offset == 0x20:
            self.step = self.after(value & 0xFF)

    def after(self, byte):
        if self.step == 0 and byte == 0x70:
            return 1
        if self.step == 1 and byte == 0x6D:
            raise ZeroDivisionError("planted")
        return 0


def device():
    return Planted(lambda message: None)
'''


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    path = tmp_path / "planted.py"
    path.write_text(PLANTED)
    return path


def until_found(engine: Engine, most: int) -> None:
    engine.begin()
    while not engine.found and engine.execs < most:
        engine.step()


def test_a_planted_bug_is_found_kept_small_and_happens_again(planted: Path, tmp_path: Path):
    own = devices.Own(str(planted))
    engine = Engine(own, Folder(tmp_path / "f", own.name), "2")
    until_found(engine, 20_000)
    assert [each.stem for each in engine.found] == ["ZeroDivisionError-planted-after-18"], engine.execs
    kept = read_crash(engine.found[0])
    assert len(kept["input"]) <= 2 * 11, "two writes"
    crash = own.run(kept["input"]).crash
    assert crash is not None
    assert crash.kind == "ZeroDivisionError-planted-after-18"
    assert "planted" in engine.found[0].with_suffix(".txt").read_text()


def test_without_coverage_it_is_not_found(planted: Path, tmp_path: Path):
    """What the test above shows is coverage: where nothing is new, nothing leads on."""
    own = devices.Own(str(planted))
    engine = Engine(own, Folder(tmp_path / "f", own.name), "2")
    engine.begin()
    engine.corpus, engine.reached, engine._fresh = engine.corpus[:1], Everything(), []
    while engine.execs < 10_000:
        engine.step()
    assert not engine.found


class Everything(set[int]):
    """All that could be reached has been."""

    def __ge__(self, other: object) -> bool:
        return True


def test_the_same_seed_makes_the_same_inputs(tmp_path: Path):
    made = []
    for name in "ab":
        engine = Engine(shipped("ioapic"), Folder(tmp_path / name, "ioapic"), "7")
        engine.begin()
        for _ in range(400):
            engine.step()
        made.append([data for _, data in engine.folder.inputs()])
    assert made[0] == made[1]
    assert len(made[0]) > 4


def test_it_goes_on_where_it_was(tmp_path: Path):
    first = Engine(shipped("uart"), Folder(tmp_path, "uart"), "1")
    first.begin()
    for _ in range(100):
        first.step()
    again = Engine(shipped("uart"), Folder(tmp_path, "uart"), "2")
    again.begin()
    assert again.reached == first.reached
    assert again.execs <= len(list(first.folder.inputs())) + len(first.target.seeds())
    with pytest.raises(UsageError, match="is the folder of another target, uart"):
        Folder(tmp_path, "ioapic")


def test_a_folder_that_is_given_up_is_gone_with_what_was_made_for_it_and_no_more(tmp_path: Path):
    Folder(tmp_path / "a" / "b", "uart").give_up()
    assert list(tmp_path.iterdir()) == []
    kept = Folder(tmp_path / "kept", "uart")
    name = kept.keep(b"x")
    kept.give_up()
    assert [each for each, _ in Folder(tmp_path / "kept", "uart").inputs()] == [name]
    again = Folder(tmp_path / "kept", "uart")  # made by somebody else
    again.give_up()
    assert (tmp_path / "kept" / "target").read_text() == "uart\n"
    assert (tmp_path / "kept" / "crashes").is_dir()


@pytest.mark.parametrize("name", [name for name in SHIPPED if name not in ("hypercalls", "gdb")])
def test_each_target_takes_what_comes(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Some inputs; `pyvmm fuzz NAME` runs as many as one likes."""
    monkeypatch.setattr("vmm.fuzz.engine.TRIMMING", 4)
    target = shipped(name)
    engine = Engine(target, Folder(tmp_path, name), "3")
    engine.begin()
    first = len(engine.reached)
    while engine.execs < 120 or len(engine.reached) == first:
        engine.step()
    target.close()
    assert not engine.found, engine.found[0].with_suffix(".txt").read_text()
    assert len(engine.reached) > 50


class Loops(HostTarget):
    name = "loops"
    files = (__file__,)
    lines = 1000

    def play(self, data: bytes) -> None:
        while True:
            pass


class Raises(HostTarget):
    """By the first byte: nothing, what is allowed, what is not, a wrong answer, the end of its process, a loop in C."""

    name = "raises"
    files = (__file__,)
    allowed = (UsageError,)

    def seeds(self) -> tuple[bytes, ...]:
        return (b"\0\0\0\0",)

    def play(self, data: bytes) -> None:
        match data[:1]:
            case b"\1":
                raise UsageError("so it says")
            case b"\2":
                raise KeyError("no")
            case b"\3":
                raise Wrong("an answer")


class Dies(Raises):
    name = "dies"

    def seeds(self) -> tuple[bytes, ...]:
        return (b"\0", b"die")

    def play(self, data: bytes) -> None:
        if data[:3] == b"die":
            os.kill(os.getpid(), signal.SIGUSR1)


class Sticks(Raises):
    name = "sticks"

    def seeds(self) -> tuple[bytes, ...]:
        return (b"\0", b"stick")

    def play(self, data: bytes) -> None:
        if data[:5] == b"stick":
            os.read(os.pipe()[0], 1)  # for ever


def test_what_is_raised_is_a_crash_where_it_was_not_said():
    target = Raises()
    assert target.run(b"").crash is None
    assert target.run(b"\1").crash is None
    met = target.run(b"\2").crash
    assert met is not None
    assert met.kind.startswith("KeyError-test_fuzz-play-")
    met = target.run(b"\3").crash
    assert met is not None
    assert met.kind.startswith("Wrong-test_fuzz-play-")


def test_a_loop_without_end_is_a_crash_and_the_tracer_before_is_back():
    before = sys.gettrace()
    crash = Loops().run(b"").crash
    assert crash is not None
    assert crash.kind == "endless"
    assert sys.gettrace() is before


def test_a_device_that_answers_what_it_must_not():
    class Bad(devices.Uart):
        def make(self) -> Uart16550A:
            made = super().make()
            made.read = lambda offset, size: 256 if size == 1 else 0  # type: ignore[method-assign]
            return made

    crash = Bad().run(bytes((devices.READ, 0))).crash
    assert crash is not None
    assert "a read of 1 bytes at 0x0 gave 256" in crash.text


def test_smaller_keeps_what_matters():
    data = random.Random(1).randbytes(200) + b"A" + bytes(50) + b"B" + random.Random(2).randbytes(100)
    made = smaller(data, lambda each: b"A" in each and each.rfind(b"B") > each.find(b"A"))
    assert made == b"AB"
    asked_of: list[bytes] = []
    smaller(data, lambda each: bool(asked_of.append(each)), tries=10)
    assert len(asked_of) == 10


def test_no_input_is_longer_than_asked():
    mutator = Mutator(random.Random(1), (b"word", b""), 20)
    data, words = b"0123456789", 0
    for _ in range(2000):
        made = mutator.made(data, b"other")
        assert len(made) <= 20
        words += b"word" in made
        data = made or b"x"
    assert words > 50


# -- the command


def crashing(monkeypatch: pytest.MonkeyPatch, target: type[HostTarget]) -> None:
    from vmm.fuzz.targets import asked as module

    real = module.asked
    monkeypatch.setattr(
        module,
        "asked",
        lambda word, options: module.Asked(word, target) if word == target.name else real(word, options),
    )


@pytest.mark.usefixtures("forks_count")
def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
                     follows: Callable[[str, Any], Any]):  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["fuzz", "ioapic", "--execs", "200", "--seed", "1", "-j", "2"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ioapic: 2 processes, seed 1, corpus and crashes in fuzz-ioapic\n")
    assert "no crash" in out
    crashing(monkeypatch, Raises)
    assert main(["fuzz", "raises", "--execs", "2000", "--seed", "1", "--json"]) == 1
    told = follows("fuzz", capsys.readouterr().out)
    assert told["execs"] >= 2000
    assert {each["kind"].split("-")[0] for each in told["crashes"]} == {"KeyError", "Wrong"}
    assert all(each["new"] for each in told["crashes"])
    file = told["crashes"][0]["file"]
    assert read_crash(Path(file))["input"] == b"\2"
    assert main(["fuzz", "--replay", file]) == 1
    assert "KeyError: 'no'" in capsys.readouterr().out
    assert main(["fuzz", "--replay", file, "--json"]) == 1
    assert follows("fuzz", capsys.readouterr().out)["met"] == told["crashes"][0]["kind"]
    about = json.loads(Path(file).read_text())
    Path(file).write_text(json.dumps(about | {"input": ""}))
    assert main(["fuzz", "--replay", file]) == 0
    assert "does not happen any more" in capsys.readouterr().out
    assert main(["fuzz", "raises", "--execs", "300", "--seed", "1"]) == 1  # what is known crashes, and is no news
    assert "2 kinds of crash kept, 0 of them new" in capsys.readouterr().out


@pytest.mark.parametrize(("target", "kind"), [(Dies, "process-ended-by-SIGUSR1"), (Sticks, "hang")])
def test_a_process_that_an_input_ends_is_a_crash_and_others_go_on(
    target: type[HostTarget], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    from vmm.fuzz import workers

    monkeypatch.chdir(tmp_path)
    crashing(monkeypatch, target)
    real = workers.Plan.__init__

    def short(self: Any, *args: Any, **more: Any) -> None:
        real(self, *args, **more)
        object.__setattr__(self, "hang", 0.5)

    monkeypatch.setattr(workers.Plan, "__init__", short)
    assert main(["fuzz", target.name, "--execs", "3", "--seed", "1", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["lost"] >= 1
    assert [each["kind"] for each in told["crashes"]] == [kind]
    assert read_crash(Path(told["crashes"][0]["file"]))["input"] == target().seeds()[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "no target is called 'nothing'"),
        (["hello"], "hello: where does the input go?"),
        (["/proc/self/exe"], "where does the input go?"),
        ([], "no TARGET"),
        (["uart", "--jobs", "0"], "--jobs 0: give at least 1"),
        (["uart", "--jobs", "1000"], "--jobs 1000: give at most 256"),
        (["uart", "--seconds", "0"], "--seconds 0: give more than 0"),
        (["uart", "--execs", "0"], "--execs 0: give at least 1"),
        (["x.py"], "x.py: no such file"),
        (["empty.py"], "has no function device()"),
        (["broken.py"], "ZeroDivisionError"),
        (["noread.py"], "has no read()"),
        (["uart", "--replay", "x"], "the file says what it is for"),
        (["--replay", "x"], "reading x: No such file"),
        (["--replay", "empty.py"], "is no crash of pyvmm fuzz"),
        (["--replay", "new.json"], "a crash of schema 2; this pyvmm reads schema 1"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    Path("empty.py").write_text("")
    Path("broken.py").write_text("1 / 0\n")
    Path("noread.py").write_text("def device():\n    return 1\n")
    Path("new.json").write_text('{"schema": 2}')
    assert main(["fuzz", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_the_list(capsys: pytest.CaptureFixture[str], follows: Callable[[str, Any], Any]):
    assert main(["fuzz", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(SHIPPED)
    assert main(["fuzz", "--list", "--json"]) == 0
    assert [each["name"] for each in follows("fuzz", capsys.readouterr().out)["targets"]] == list(SHIPPED)


def test_the_device_of_the_page_is_fuzzed_as_it_says(tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs/fuzz.md").read_text(encoding="utf-8")
    path = tmp_path / "mine.py"
    path.write_text(page.partition("```python\n")[2].partition("```")[0])
    own = devices.Own(str(path))
    engine = Engine(own, Folder(tmp_path / "f", own.name), "1")
    until_found(engine, 100_000)
    assert "a bug" in engine.found[0].with_suffix(".txt").read_text(), engine.execs


def test_debug_information_that_is_damaged_is_no_exception():
    """What the fuzzer found: a unit with another size of addresses is an AssertionError of pyelftools."""
    whole = readers.Elf.seed
    with BytesIO(whole) as file:
        section = ELFFile(file).get_section_by_name(".debug_info")
        at, size = section["sh_offset"], min(section["sh_size"], 24)
    target = readers.Elf()
    for place in range(at, at + size):
        for value in (0, 1, 0xFF):
            crash = target.run(whole[:place] + bytes((value,)) + whole[place + 1 :]).crash
            assert crash is None, crash
