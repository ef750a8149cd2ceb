# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's selftests in the host lab, without a host: what is built, what a program's end means, what is expected,
and that the page shows what is stored.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tools.hostlab import __main__ as command
from tools.hostlab import draft, expected, hosts, judge, lab, page, parcel, selftests
from tools.hostlab.errors import LabError, NotToBeHad
from tools.hostlab.inside import selftests as inside
from tools.hostlab.kernel import Source

ROOT = Path(__file__).resolve().parents[2]

# What is built ------------------------------------------------------------------------------------------------------


def test_every_selftest_stands_beside_rows_that_pyvmm_has() -> None:
    from vmm.payload.proof.probe import targets, topics

    known = {each.name for each in (*targets(), *topics())}
    for program in selftests.PROGRAMS:
        assert program.rows, program.name
        assert set(program.rows) <= known, program.name
        assert program.what
    names = [program.name for program in selftests.PROGRAMS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("version", "package", "upstream"),
    [
        ("6.1.176-1", "linux-source-6.1", "6.1.176"),
        ("6.12.57-1~bpo12+1", "linux-source-6.12", "6.12.57"),
        ("7.2~rc3-1", "linux-source-7.2", "7.2"),
    ],
)
def test_the_source_is_that_of_the_kernel(version: str, package: str, upstream: str) -> None:
    assert selftests.package(version) == package
    assert selftests.upstream(version) == upstream


class Release:
    """A Debian release that has this one version."""

    release = "sid"

    def __init__(self, version: str) -> None:
        self._version = version

    def version(self, package: str) -> str:
        assert package == "linux-source-7.2"
        return self._version


def test_a_source_of_another_version_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(selftests.store, "get", lambda kind, digest, *rest: tmp_path / digest)
    found = Source(("linux-image",), "7.2.13-1+b1", "7.2.13")
    first: Any = Release("7.2.13-1")
    second: Any = Release("7.2.13-2")
    other: Any = Release("7.2.14-1")
    assert selftests.programs(first, found) != selftests.programs(second, found)
    with pytest.raises(NotToBeHad, match=r"sid has linux-source-7\.2 7\.2\.14-1, and a kernel 7\.2\.13-1"):
        selftests.programs(other, found)


def test_a_program_is_found_wherever_a_kernel_has_it(tmp_path: Path) -> None:
    for name in ("x86_64/kvm_clock_test.c", "steal_time.c", "x86/debug_regs.c", "arm64/cpuid_test.c", "x86/other.c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert selftests.sources(tmp_path) == {
        "kvm_clock_test": "x86_64/kvm_clock_test",
        "steal_time": "steal_time",
        "debug_regs": "x86/debug_regs",
    }


MAKEFILE = """\
headers:
$(OUTPUT)/x86/%: x86/%.c
\tmkdir -p $(OUTPUT)/x86; if grep -q slow $<; then sleep 100; fi; grep -q good $< && cp /bin/true $@
"""


def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> Path:
    """What comes of a source whose programs have these texts."""
    import tarfile

    source, work = tmp_path / "linux-source-7.2", tmp_path / "made"
    tests = source / "tools/testing/selftests/kvm"
    (tests / "x86").mkdir(parents=True)
    work.mkdir()
    for path in (source / "Makefile", tests / "Makefile"):
        path.write_text(MAKEFILE)
    for name, text in texts.items():
        (tests / f"x86/{name}.c").write_text(text)

    def unpack(archive: object, name: str, into: Path) -> None:
        (into / "usr/src").mkdir(parents=True)
        with tarfile.open(into / f"usr/src/{name}.tar.xz", "w:xz") as tar:
            tar.add(source, name)

    monkeypatch.setattr(selftests, "unpack", unpack)
    monkeypatch.setattr(selftests, "PARTS", ("Makefile", "tools/testing/selftests/kvm"))
    archive: Any = None
    selftests._make(work, archive, "linux-source-7.2", "7.2.13-1")
    return work


def test_one_that_the_compiler_refuses_is_named_and_the_others_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selftests.os, "sched_getaffinity", lambda pid: {0})  # one after another, the bad one first
    work = built(tmp_path, monkeypatch, kvm_clock_test="bad", smm_test="good", debug_regs="good")
    assert json.loads((work / "programs.json").read_text()) == {
        "source": "7.2.13-1",
        "programs": ["smm_test", "debug_regs"],
        "unbuilt": ["kvm_clock_test"],
    }
    assert sorted(path.name for path in work.iterdir()) == ["debug_regs", "programs.json", "smm_test"]


def test_none_at_all_is_an_error_with_what_the_compiler_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LabError, match=r"none of KVM's selftests of Linux 7\.2\.13-1 was built\n(.|\n)*debug_regs"):
        built(tmp_path, monkeypatch, debug_regs="bad")


def test_what_was_not_built_in_time_was_not_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = selftests.call

    def slow(words: Any, *, limit: float, what: str, **more: Any) -> str:
        return plain(words, limit=0.01 if what == "building" else limit, what=what, **more)

    monkeypatch.setattr(selftests, "call", slow)
    with pytest.raises(LabError, match=r"^building: make took longer"):
        built(tmp_path, monkeypatch, debug_regs="slow and good")


def test_they_are_asked_for_by_an_option_and_are_a_step_with_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    needed: list[str] = []
    monkeypatch.setattr(command, "_all", lambda named, args: asked.append(named[0].steps) or 0)
    monkeypatch.setattr(command.tools, "need", lambda *commands: needed.extend(commands))
    monkeypatch.setattr(command.signal, "signal", lambda *words: None)
    words = ["svm-6.1", "--out", str(tmp_path)]
    assert command.main(words) == 0
    assert "gcc" not in needed
    assert command.main([*words, "--selftests"]) == 0
    assert set(selftests.COMMANDS) <= set(needed)
    assert [selftests.STEP in steps for steps in asked] == [False, True]
    assert parcel.limits([selftests.STEP])[selftests.STEP] >= 600
    assert "$(filter-out 0,$(SELFTESTS)),--selftests)" in (ROOT / "Makefile").read_text()


# In the host --------------------------------------------------------------------------------------------------------


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("script", "status", "last"),
    [
        ("echo a; echo sh: 1: addr2line: not found", "pass", ["a"]),
        ("echo one; echo two", "pass", ["one", "two"]),
        ("echo no SVM >&2; exit 4", "skip", ["no SVM"]),
        ("echo assertion; exit 254", "fail", ["assertion"]),
        ("echo x; kill -SEGV $$", "fail", ["x", "ended by SIGSEGV"]),
        ("echo begun; sleep 60", "timeout", ["begun"]),
    ],
)
def test_what_the_end_of_a_program_means(tmp_path: Path, script: str, status: str, last: list[str]) -> None:
    found = inside.run(program(tmp_path, "x", script), limit=0.5 if status == "timeout" else 60.0)
    assert (found["name"], found["status"], found["output"]) == ("x", status, last)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_what_a_program_says_is_kept_in_part_and_what_it_started_ends(tmp_path: Path) -> None:
    script = f"i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo line $i; done; sleep 60 & echo $! >{tmp_path}/pid"
    found = inside.run(program(tmp_path, "x", script), limit=60.0)
    assert found["output"] == [f"line {number}" for number in range(35, 51)]
    pid = int((tmp_path / "pid").read_text())
    until = time.monotonic() + 30
    while alive(pid):  # it was killed, and nobody waits for it
        assert time.monotonic() < until
        time.sleep(0.05)


def test_each_result_is_written_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "selftests"
    folder.mkdir()
    (tmp_path / "parameters").write_text("KVM=kvm_amd\n")
    program(folder, "first", "true")
    program(folder, "second", f"cp {tmp_path}/selftests.json {tmp_path}/before.json; echo why; exit 1")
    listed = {"source": "7.2.13-1", "programs": ["first", "second"], "unbuilt": ["third"]}
    (folder / "programs.json").write_text(json.dumps(listed))
    assert inside.main(folder, tmp_path) == 0
    document = json.loads((tmp_path / "selftests.json").read_text())
    assert document["source"] == "7.2.13-1"
    assert [each["status"] for each in document["selftests"]] == ["pass", "fail", "unbuilt"]
    before = json.loads((tmp_path / "before.json").read_text())
    assert [each["name"] for each in before["selftests"]] == ["first"]
    assert "    why\n" in capsys.readouterr().out


def test_limits_are_of_the_emulators_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.hostlab import lab

    assert set(inside.LIMITS) == set(lab.KVM.values())
    assert inside.module_in('KVM=kvm_amd\nSTEPS="selftests"\n') == "kvm_amd"
    assert inside.LIMITS[inside.module_in("")] == min(inside.LIMITS.values())
    listed = {"programs": ["steal_time", "tsc_scaling_sync"], "unbuilt": []}
    (tmp_path / "programs.json").write_text(json.dumps(listed))
    monkeypatch.setattr(inside, "run", lambda path, limit: {"name": path.name, "status": limit, "output": []})
    assert [each["status"] for each in inside.results(tmp_path, "kvm_amd")] == [600.0, 600.0]
    assert [each["status"] for each in inside.results(tmp_path, "kvm_intel")] == [40.0, 40.0]


def test_a_host_without_them_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inside.main(tmp_path / "none", tmp_path) == 2
    assert "there are none in" in capsys.readouterr().err


# The judgement ------------------------------------------------------------------------------------------------------

EXPECTED = """
[selftests]
known = { verdict = "fail", why = "an old kernel" }
fault = { verdict = "fail", fault = "io" }
here = { verdict = "pass", why = "it does not ask that" }
"""
FAULTS = '[io]\nemulator = "E"\nwhat = "IN is refused"\ntold = "F does it"\nshows = "#GP"\n'


@pytest.fixture
def wanted(tmp_path: Path) -> expected.Expected:
    (tmp_path / "faults.toml").write_text(FAULTS)
    (tmp_path / "svm-6.1.toml").write_text(EXPECTED)
    return expected.read(tmp_path / "svm-6.1.toml")


def said(**statuses: str) -> dict[str, Any]:
    found = {"known": "fail", "fault": "fail", "here": "pass"} | statuses
    return {
        "kernel": "7.2.13-amd64",
        "source": "7.2.13-1",
        "selftests": [
            {"name": name, "status": status, "seconds": 1.0, "output": ["begin", f"{name}: #GP"]}
            for name, status in found.items()
            if status
        ],
    }


@pytest.mark.parametrize(
    ("statuses", "lines"),
    [
        ({}, []),
        ({"new": "pass", "other": "skip", "fault": "pass"}, []),
        ({"new": "fail"}, ["selftest new: expected pass or skip, was fail: begin / new: #GP"]),
        ({"new": "timeout"}, ["selftest new: expected pass or skip, was timeout: begin / new: #GP"]),
        ({"new": "unbuilt"}, ["selftest new: expected pass or skip, was unbuilt: begin / new: #GP"]),
        ({"known": "pass"}, ["selftest known: expected fail, was pass: begin / known: #GP"]),
        ({"here": "skip"}, ["selftest here: expected pass, was skip: begin / here: #GP"]),
        ({"here": ""}, ["selftest here: expected pass, was not run"]),
    ],
)
def test_each_difference_is_a_line(wanted: expected.Expected, statuses: dict[str, str], lines: list[str]) -> None:
    assert judge.of_selftests(wanted, said(**statuses)) == lines


def test_a_failure_by_the_emulators_fault_must_show_it(wanted: expected.Expected) -> None:
    document = said()
    document["selftests"][1]["output"] = ["another thing"]
    assert judge.of_selftests(wanted, document) == [
        "selftest fault: fail, but not as the fault io shows itself: another thing"
    ]


@pytest.mark.parametrize("row", ['"fail"', '{ verdict = "skip" }', '{ verdicts = ["pass", "fail"] }'])
def test_one_that_does_not_pass_says_why(tmp_path: Path, row: str) -> None:
    (tmp_path / "x.toml").write_text(f"[selftests]\nx = {row}")
    with pytest.raises(LabError, match="does not say why"):
        expected.read(tmp_path / "x.toml")


def test_they_count_only_where_they_were_asked_for(
    wanted: expected.Expected, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expected, "FOLDER", tmp_path)
    without = lab.judged(hosts.parse("svm-6.1"), tmp_path, [], 9.0)
    assert not [line for line in without.failed if "selftest" in line]
    host = hosts.parse("svm-6.1", extra=(selftests.STEP,))
    report = lab.judged(host, tmp_path, [], 9.0)
    assert any(line.startswith("selftests.json: did not come back") for line in report.failed)
    (tmp_path / "selftests.json").write_text(json.dumps(said(new="pass", bad="fail")))
    report = lab.judged(host, tmp_path, [], 9.0)
    assert "selftests: 3 fail, 2 pass" in report.line
    assert "selftest bad: expected pass or skip, was fail: begin / bad: #GP" in report.failed


def test_a_draft_has_what_did_not_pass_without_its_reason(tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text(json.dumps({"features": [], "topics": []}))
    (tmp_path / "junit.xml").write_text("<t><testcase classname='m' name='ok'/></t>")
    (tmp_path / "selftests.json").write_text(json.dumps(said(new="timeout", other="skip")))
    text = draft.draft(tmp_path)
    assert '# new: #GP\nnew = { verdict = "timeout", why = "" }' in text
    assert "here" not in text
    assert "other" not in text


# The page -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "verdicts", "view"),
    [
        ("pass", ["works", "advertised"], "agrees"),
        ("pass", ["works", "absent"], "agrees"),
        ("pass", ["works", "inert"], "disagrees"),
        ("pass", ["absent"], "disagrees"),
        ("pass", ["works", "works, deviates"], "disagrees"),
        ("fail", ["works"], "disagrees"),
        ("timeout", ["works"], "disagrees"),
        ("fail", ["works", "broken"], "agrees"),
        ("fail", ["absent"], "disagrees"),
        ("skip", ["absent"], "agrees"),
        ("skip", ["works", "absent"], ""),
        ("unbuilt", ["works"], ""),
        ("pass", [], ""),
    ],
)
def test_when_the_two_agree(status: str, verdicts: list[str], view: str) -> None:
    assert page.opinion(status, verdicts) == view


def test_a_disagreement_without_an_explanation_is_seen(wanted: expected.Expected) -> None:
    output = {"output": ["Requirement not met: x"]}
    doc = {
        "host": "svm-6.1",
        "kernel": "6.1.0",
        "source": "6.1.176-1",
        "pyvmm": {"STEAL_TIME": "works", "tsc_khz": "absent", "sync_regs": "works", "tsc_offset": "works"},
        "selftests": [
            {"name": "steal_time", "status": "fail", **output},
            {"name": "tsc_scaling_sync", "status": "skip", **output},
            {"name": "sync_regs_test", "status": "pass"},
            {"name": "system_counter_offset_test", "status": "timeout", **output},
        ],
    }
    wanted.selftests["steal_time"] = expected.Wanted(("fail",), "it wants <4> CPUs")  # type: ignore[index]
    table = page.rendered([(doc, wanted)])
    assert "| steal\\_time | **fail** | works: STEAL\\_TIME | **disagrees** <sup>1</sup> |" in table
    assert "\n1. it wants \\<4\\> CPUs\n2. it says itself: Requirement not met: x\n3. not explained\n" in table
    assert "| tsc\\_scaling\\_sync | skip | absent: tsc\\_khz | agrees <sup>2</sup> |" in table
    assert "2 agree with pyvmm, 2 disagree, 0 say nothing" in table


def test_a_document_is_small_and_has_the_verdicts_beside(tmp_path: Path) -> None:
    folder = tmp_path / "svm-6.1"
    folder.mkdir()
    document = said()
    document["selftests"] = [
        {"name": "steal_time", "status": "pass", "seconds": 1.0, "output": ["x"]},
        {"name": "tsc_scaling_sync", "status": "skip", "seconds": 1.0, "output": ["y"]},
    ]
    (folder / "selftests.json").write_text(json.dumps(document))
    with pytest.raises(LabError, match="not what a host hands back"):
        page.stored(folder)
    rows = [
        {"name": "STEAL_TIME", "verdict": "works", "deviations": [{"what": "x"}]},
        {"name": "PV_EOI", "verdict": "works"},
    ]
    (folder / "probe.json").write_text(json.dumps({"features": rows, "topics": []}))
    assert page.stored(folder) == {
        "schema": 1,
        "host": "svm-6.1",
        "kernel": "7.2.13-amd64",
        "source": "7.2.13-1",
        "selftests": [
            {"name": "steal_time", "status": "pass"},
            {"name": "tsc_scaling_sync", "status": "skip", "output": ["y"]},
        ],
        "pyvmm": {"STEAL_TIME": "works, deviates"},
    }


STORED = page.documents()


def test_the_page_is_that_of_the_stored_documents() -> None:
    assert STORED
    assert (page.DOCS / page.PAGE).read_text() == page.written(), "python -m tools.hostlab.page"


@pytest.mark.parametrize(("doc", "wanted"), STORED, ids=[doc["host"] for doc, _ in STORED])
def test_each_stored_disagreement_is_explained(doc: dict[str, Any], wanted: expected.Expected) -> None:
    assert page.UNEXPLAINED not in [told for *_, told in page.compared(doc, wanted)]
    assert judge.of_selftests(wanted, doc | {"selftests": [{"output": []} | each for each in doc["selftests"]]}) == []


def test_the_command_writes_what_it_is_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, docs = tmp_path / "svm-6.1", tmp_path / "docs"
    folder.mkdir()
    docs.mkdir()
    (docs / "selftests.md").write_text("no marks")
    (folder / "selftests.json").write_text(json.dumps(said() | {"selftests": []}))
    (folder / "probe.json").write_text(json.dumps({"features": []}))
    assert page.main([str(folder)], docs) == 2
    assert "it has not one pair of marks" in capsys.readouterr().err
    (docs / "selftests.md").write_text(f"# x\n{page.BEGIN}\n{page.END}\n")
    assert page.main([str(folder)], docs) == 0
    assert "## svm-6.1" in (docs / "selftests.md").read_text()
    assert page.main([str(tmp_path / "nothing")], docs) == 2
    assert "make hosts SELFTESTS=1" in capsys.readouterr().err
