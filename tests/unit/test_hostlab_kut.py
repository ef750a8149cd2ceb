# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's step for images of kvm-unit-tests: what is refused, what goes into a host, how it ends, the judgement."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests import kut_images
from tools.hostlab import __main__ as command
from tools.hostlab import emulator, expected, hosts, judge, kut, lab, parcel
from tools.hostlab.errors import LabError, Stopped
from tools.hostlab.inside import kut as inside

WHY = 'verdict = "fail", why = "a reason"'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "images"
    made.mkdir()
    return kut_images.write(made)


def document(**verdicts: tuple[str, str | None]) -> dict[str, Any]:
    """(pyvmm's, QEMU's) by name."""
    tests = []
    for name, (ours, theirs) in verdicts.items():
        row: dict[str, Any] = {"name": name, "file": "a.flat", "params": "", "cpus": 1, "verdict": ours}
        row |= {"reason": "" if ours == "pass" else "it is\nnot so", "summary": ""}
        tests.append(row | ({} if theirs is None else {"qemu": {"verdict": theirs}}))
    return {"tests": tests, "not_run": [], "counts": {}}


def wanted(tmp_path: Path, rows: str) -> dict[str, expected.Wanted]:
    file = tmp_path / "svm-6.1.toml"
    file.write_text(f"[kut]\n{rows}\n")
    return dict(expected.read(file).kut)


# What is asked for


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--only", "kut"], "HOSTS_KUT=DIR"),
        (["--only", "kut", "--kut", "{}/none"], "no such folder"),
        (["--only", "kut", "--kut", "{}", "--kut-tests", "pases"], "did you mean passes"),
        (["--only", "kut", "--kut", "{}", "--kut-tests", "not_built"], "none of its tests has an image"),
        (["--only", "kut", "--kut", "{}", "--kut-timeout", "0"], "give seconds"),
        (["--only", "doctor", "--kut", "{}"], "HOSTS_ONLY=kut"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(
    words: list[str], text: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    given = [word.replace("{}", str(folder)) for word in words]
    assert command.main(["svm-6.1", *given, "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert text in said
    assert len(said.splitlines()) <= 2
    assert not out.exists()


def test_the_file_and_its_images_go_into_the_host_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    (folder / "secret").write_text("mine")
    (folder / "x86").mkdir()
    made = kut.stage(kut.Request(folder, ("passes", "fails", "not_built")), tmp_path / "made")
    assert sorted(path.name for path in made.iterdir()) == ["report.flat", "unittests.cfg"]
    assert (made / "report.flat").read_bytes() == (folder / "report.flat").read_bytes()


def test_an_image_that_a_file_names_outside_of_its_folder_does_not_go_along(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("mine")
    (folder / "unittests.cfg").write_text("[a]\nfile = report.flat\n[b]\nfile = ../other\n")
    made = kut.stage(kut.Request(folder), tmp_path / "made")
    assert sorted(path.name for path in made.iterdir()) == ["report.flat", "unittests.cfg"]
    assert (tmp_path / "other").read_text() == "mine"


def test_a_host_gets_the_images_and_how_they_are_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def build(work: Path, steps: Any, module: str, folders: Any, tests: str, more: Any) -> tuple[Path, int]:
        seen.update(more, there=sorted(path.name for path in folders["kut"].iterdir()))
        return work / "disk", 1

    def run(words: Any, console: Path, **_: Any) -> None:
        (console.parent / kut.RESULTS).write_text(json.dumps(document(a=("pass", "pass"))))

    monkeypatch.setattr(parcel, "build", build)
    monkeypatch.setattr(parcel, "unpack", lambda *_: [])
    monkeypatch.setattr(emulator, "run", run)
    monkeypatch.setattr(lab.bochs, "command", lambda *_: ["x"])
    request = kut.Request(folder, ("passes", "f*"), 30)
    host = hosts.parse("vmx-6.1", only=("kut",), images=request)
    prepared = lab.Prepared(host, type("K", (), {"release": "6.1"})(), tmp_path / "root", {})
    report = lab.run(prepared, tmp_path / "out", 1.0, lambda _: None)
    assert (seen["KUT_TESTS"], seen["KUT_TIMEOUT"]) == ("passes 'f*'", "30")
    assert seen["there"] == ["report.flat", "unittests.cfg"]
    assert report.failed == ()
    assert "only kut; kut 1 tests: QEMU passes 1, pyvmm 1 of those and 0 more" in report.line
    assert "| a | pass | pass |" in (tmp_path / "out/vmx-6.1" / kut.TABLE).read_text()


def test_what_came_back_before_a_signal_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of many tests takes long, and is ended by hand."""
    kept: list[object] = []

    def ended(*_: Any, **__: Any) -> None:
        raise Stopped

    monkeypatch.setattr(parcel, "build", lambda work, *_: (work / "disk", 1))
    monkeypatch.setattr(parcel, "unpack", lambda disk, at, into: kept.append(into))
    monkeypatch.setattr(emulator, "run", ended)
    monkeypatch.setattr(lab.bochs, "command", lambda *_: ["x"])
    host = hosts.parse("vmx-6.1", only=("doctor",))
    prepared = lab.Prepared(host, type("K", (), {"release": "6.1"})(), tmp_path / "root", {})
    with pytest.raises(Stopped):
        lab.run(prepared, tmp_path / "out", 1.0, lambda _: None)
    assert kept == [tmp_path / "out/vmx-6.1"]


def test_its_guests_need_a_host_without_qemus_second_interrupt() -> None:
    assert parcel.systems(["kut"])
    assert not parcel.guests(["kut"])  # and no Linux is made for it
    assert parcel.packages(["kut"]) == ("qemu-system-x86",)


# There

PYVMM = """\
#!/bin/sh
[ "$3" = bad ] && exit 99
echo "{\\"tests\\": ["
comma=
for name in "$3" "$4" "$5"; do
  case $name in --qemu) break;; -*) continue;; esac
  echo "$comma{\\"name\\": \\"$name\\", \\"verdict\\": \\"pass\\", \\"line\\": \\"$*\\"}"
  comma=,
done
echo "]}"
exit 1
"""


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A lab's folder with a `pyvmm` that passes all but `bad`, and what was last handed back."""
    for name in ("bin", "kut"):
        (tmp_path / name).mkdir()
    for name, text in (("pyvmm", PYVMM), ("back", f"#!/bin/sh\ncp {tmp_path}/kut.json {tmp_path}/back.json\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HAND_BACK", str(tmp_path / "bin/back"))
    monkeypatch.setenv("KUT_TIMEOUT", "30")
    return tmp_path


def came_back(there: Path, *tests: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, dict[str, Any]]:
    rows = "".join(f"[{name}]\nfile = {name}.flat\n" for name in tests)
    (there / "kut/unittests.cfg").write_text(rows)
    status = inside.main(there, there)
    return status, json.loads((there / "back.json").read_text())


def test_all_tests_a_few_at_a_time(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUT_TESTS", "a 'b*'")
    status, found = came_back(there, "a", "b1", "b2", "b3", "c", monkeypatch=monkeypatch)
    assert status == 0  # that a test failed is not the step's failure: it is judged
    assert [each["name"] for each in found["tests"]] == ["a", "b1", "b2", "b3"]
    assert found["not_run"] == []
    line = f"kut {there}/kut a b1 b2 --qemu --json --timeout 30 --logs {there}/kut"
    assert found["tests"][0]["line"] == line


def test_what_there_is_comes_back_before_the_next_few(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUT_TESTS", "")
    status, found = came_back(there, "a", "b", "c", "bad", "d", "e", "f", monkeypatch=monkeypatch)
    assert status == 1
    assert [each["name"] for each in found["tests"]] == ["a", "b", "c", "f"]
    assert found["not_run"] == ["bad", "d", "e"]


def test_there_has_to_be_time_for_all_of_a_few(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: list[Any] = []

    def ask(now: Any) -> dict[str, Any]:
        asked.append(now)
        return {"tests": [{"name": name, "verdict": "pass"} for name in now]}

    few = 2 * inside.FEW * (10 + inside.LATE)
    assert inside.run(["a", "b", "c", "d"], ask, tmp_path / "kut.json", timeout=10, limit=few) == 0
    assert asked == []
    assert "4 are left out" in capsys.readouterr().out
    inside.run(["a", "b", "c", "d"], ask, tmp_path / "kut.json", timeout=10, limit=few + 60)
    assert asked == [["a", "b", "c"], ["d"]]


# The judgement


def test_what_passes_in_qemu_has_to_pass(tmp_path: Path) -> None:
    found = document(
        a=("pass", "pass"), b=("fail", "pass"), c=("fail", "fail"), d=("pass", "timeout"), e=("skip", None)
    )
    line = "kut b: passes in QEMU, and in pyvmm it is fail: it is not so"
    assert judge.of_kut({}, found) == [line]
    assert judge.of_kut(wanted(tmp_path, f"b = {{ {WHY} }}"), found) == []
    assert judge.of_kut(wanted(tmp_path, 'b = { verdict = "crash", why = "a reason" }'), found) == [line]
    assert judge.counts_of_kut(found) == "kut 5 tests: QEMU passes 2, pyvmm 1 of those and 1 more"


def test_an_error_is_a_line_whatever_qemu_has() -> None:
    found = document(a=("pass", "pass"), b=("error", "timeout")) | {"not_run": ["c"]}
    assert judge.of_kut({}, found) == ["kut b: pyvmm failed: it is not so"]
    assert judge.counts_of_kut(found).endswith("and 0 more; 1 not run")


def test_where_nothing_passes_in_qemu_nothing_is_shown() -> None:
    (line,) = judge.of_kut({}, document(a=("pass", "timeout"), b=("pass", None)))
    assert "nothing was compared" in line


def test_an_expected_one_that_is_the_emulators_must_show_its_fault(tmp_path: Path) -> None:
    (tmp_path / expected.FAULTS).write_text('[f]\nemulator = "QEMU"\nwhat = "w"\ntold = "t"\nshows = "twice"\n')
    rows = wanted(tmp_path, 'b = { verdict = "fail", fault = "f" }')
    found = document(a=("pass", "pass"), b=("fail", "pass"))
    assert judge.of_kut(rows, found) == ["kut b: fail, but not as the fault f shows itself: it is not so"]
    found["tests"][1]["reason"] = "it came twice"
    assert judge.of_kut(rows, found) == []


def test_what_is_expected_says_why(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="does not say why"):
        wanted(tmp_path, 'b = "fail"')
