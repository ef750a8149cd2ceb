# SPDX-License-Identifier: GPL-2.0-or-later
"""The host lab where it starts nothing: names of hosts, order of modules, the cache, limits of a run, the judgement."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tools.hostlab import __main__ as command
from tools.hostlab import (
    bochs,
    draft,
    emulator,
    expected,
    hosts,
    judge,
    junit,
    kernel,
    lab,
    packages,
    parcel,
    qemu,
    root,
    selftests,
    store,
    tools,
)  # fmt: skip
from tools.hostlab.errors import HostFailed, LabError, NotToBeHad

ROOT = Path(__file__).resolve().parents[2]


# Names --------------------------------------------------------------------------------------------------------------


def test_a_name_says_cpu_and_kernel() -> None:
    host = hosts.parse("svm-6.12")
    assert (host.emulator, host.suite, host.cpus, host.name) == ("qemu", "trixie", 2, "svm-6.12")
    assert hosts.parse("vmx-6.1").emulator == "bochs"
    assert hosts.parse("svm-newest").suite == hosts.parse("svm-7.2").suite == "sid"
    assert hosts.parse("svm-7.2", release="sid").name == "svm-7.2"


def test_what_differs_from_the_usual_is_in_the_name_and_its_expected_verdicts_are_the_usual_ones() -> None:
    host = hosts.parse("svm-6.1", cpus=1, model="EPYC-Rome,+svm", flavour="amd64", release="bookworm-backports")
    assert host.name == "svm-6.1-amd64-bookworm-backports-1cpu-EPYC-Rome-svm"
    assert host.usual == "svm-6.1"


def test_a_name_may_say_it_all() -> None:
    host = hosts.parse("svm-6.12-amd64-bookworm-backports-1cpu", cpus=4, flavour="cloud-amd64")
    assert (host.flavour, host.suite, host.cpus) == ("amd64", "bookworm-backports", 1)
    assert host.name == "svm-6.12-amd64-bookworm-backports-1cpu"
    assert hosts.parse("vmx-6.1-trixie").suite == "trixie"


@pytest.mark.parametrize("word", ["svm", "svm-", "arm-6.1", "svm-six", "svm-6.1/../x", "-6.1", "svm-6.1-0", "svm-6"])
def test_a_word_that_is_no_host_is_refused(word: str) -> None:
    with pytest.raises(LabError, match="no host of the lab"):
        hosts.parse(word)


@pytest.mark.parametrize("cpus", [0, 9])
def test_a_host_has_one_to_eight_cpus(cpus: int) -> None:
    with pytest.raises(LabError, match="HOSTS_CPUS"):
        hosts.parse("svm-6.1", cpus=cpus)


def test_one_model_of_cpu_is_not_for_two_emulators() -> None:
    both = [hosts.parse(name, model="EPYC") for name in ("svm-6.1", "vmx-6.1")]
    hosts.one_emulator(both[:1])
    with pytest.raises(LabError, match="HOSTS_CPU=EPYC"):
        hosts.one_emulator(both)


def test_newest_is_named_by_what_there_is() -> None:
    assert hosts.settled(hosts.parse("svm-newest"), "7.2.13-1").name == "svm-7.2"
    assert hosts.settled(hosts.parse("vmx-newest-1cpu"), "7.10~rc3-1+b1").name == "vmx-7.10-1cpu"
    assert hosts.settled(hosts.parse("svm-6.1"), "6.1.176-1").name == "svm-6.1"
    assert hosts.settled(hosts.parse("svm-newest"), "6.12.9-1").name == "svm-6.12-sid"


def test_a_host_has_the_usual_steps_and_its_own_or_those_alone_that_were_asked_for() -> None:
    assert hosts.parse("vmx-6.1").steps == hosts.ALWAYS
    assert hosts.parse("svm-6.1", extra=("repeat", "user")).steps == (*hosts.ALWAYS, "user", "action", "repeat")
    assert hosts.parse("svm-6.1", extra=("repeat",), only=("user", "probe")).steps == ("user", "probe", "repeat")


def test_the_command_says_what_is_wrong_with_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--only", "--steps"):
        assert command.main(["svm-6.1", option, "jump"]) == 2
        assert capsys.readouterr().err.startswith("hosts: jump: no step of the lab; there are action, ")


def test_the_command_says_what_is_wrong_with_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["sparc-6.1"]) == 2
    assert capsys.readouterr().err.startswith("hosts: sparc-6.1: no host of the lab\n  try: svm-6.1")


# Packages -----------------------------------------------------------------------------------------------------------


def test_the_mirror_is_the_machines_own_of_debian_and_not_that_of_its_security() -> None:
    targets = "Ubuntu|Ubuntu|http://u\nDebian|Debian-Security|http://s/\nDebian|Debian|http://m/debian/\n"
    assert packages.mirror_in(targets) == "http://m/debian"
    assert packages.mirror_in("Ubuntu|Ubuntu|http://u\n\n") == ""


def test_what_a_mirror_lost_is_told_from_a_network_that_is_down() -> None:
    with pytest.raises(NotToBeHad), packages.told_apart():
        raise LabError("fetching: E: Failed to fetch http://m/x.deb  404  Not Found [IP: 1]")
    with pytest.raises(LabError) as caught, packages.told_apart():
        raise LabError("fetching: E: Could not connect to m:80")
    assert not isinstance(caught.value, NotToBeHad)


# Kernels ------------------------------------------------------------------------------------------------------------

MODULES_DEP = """\
kernel/arch/x86/kvm/kvm-amd.ko.xz: kernel/crypto/ccp.ko.xz kernel/arch/x86/kvm/kvm.ko.xz kernel/irqbypass.ko.xz
kernel/arch/x86/kvm/kvm.ko.xz: kernel/irqbypass.ko.xz
kernel/irqbypass.ko.xz:
kernel/crypto/ccp.ko.xz:
kernel/fs/ext4.ko:
"""


def test_modules_come_after_what_they_need() -> None:
    order = [
        kernel.module_name(file)
        for file in kernel.load_order(kernel.parse_dependencies(MODULES_DEP), ["kvm_amd"], [], [])
    ]
    assert sorted(order) == ["ccp", "irqbypass", "kvm", "kvm_amd"]
    assert order.index("irqbypass") < order.index("kvm") < order.index("kvm_amd") == 3
    assert order.index("ccp") < 3


def test_a_module_is_a_file_or_built_in_or_missed() -> None:
    needs = kernel.parse_dependencies(MODULES_DEP)
    assert kernel.load_order(needs, ["sd_mod", "ext4"], ["crc32c"], ["sd_mod"]) == ["kernel/fs/ext4.ko"]
    with pytest.raises(LabError, match="no module sd_mod"):
        kernel.load_order(needs, ["sd_mod"], [], ["ext4"])


# The cache ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return store.folder()


def test_a_key_is_of_every_part_and_of_a_files_bytes(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one")
    first = store.key("a", "b", file)
    assert first == store.key("a", "b", file)
    assert first != store.key("ab", "", file)
    file.write_text("two")
    assert first != store.key("a", "b", file)


def test_a_thing_is_made_once_and_whole(cache: Path) -> None:
    made = []

    def make(work: Path) -> None:
        made.append(work)
        (work / "x").write_text("1")

    assert (store.get("thing", "1", make) / "x").read_text() == "1"
    assert store.get("thing", "1", make) == cache / "thing-1"
    assert len(made) == 1

    def fail(work: Path) -> None:
        (work / "half").write_text("")
        raise LabError("no")

    with pytest.raises(LabError):
        store.get("thing", "2", fail)
    assert sorted(path.name for path in cache.iterdir()) == ["scratch.lock", "thing-1", "thing.lock", "work"]
    assert not list((cache / "work").iterdir())


def test_what_was_not_used_for_a_month_goes(cache: Path) -> None:
    now = time.time()
    for name, days in (("old-1", 31), ("new-1", 29), (".of-another-program", 2)):
        (cache / name).mkdir()
        os.utime(cache / name, (now - days * 86400,) * 2)
    assert store.prune(now) == ["old-1"]
    assert sorted(path.name for path in cache.iterdir() if path.is_dir()) == [".of-another-program", "new-1"]


def test_what_a_killed_run_left_goes_and_what_a_living_one_works_in_stays(cache: Path) -> None:
    dead = cache / "work" / "run-dead"
    with store.scratch("run") as alive:
        dead.mkdir()
        (dead / "in-use").touch()
        (cache / "work" / "no-lock-of-ours").mkdir()
        assert store.prune() == ["run-dead"]
        assert alive.is_dir()
    assert [path.name for path in (cache / "work").iterdir()] == ["no-lock-of-ours"]


def test_a_thing_that_another_makes_is_waited_for(cache: Path) -> None:
    said: list[str] = []
    program = (
        "import time; from tools.hostlab import store\n"
        "def make(work):\n    (work / 'x').write_text('theirs'); print('begun', flush=True); time.sleep(1)\n"
        "store.get('thing', '1', make)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ.copy(), stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "begun\n"
        made = store.get("thing", "1", lambda work: pytest.fail("made twice"), said.append)
    assert (made / "x").read_text() == "theirs"
    assert said == ["waiting: another run, or another host of this one, is at thing"]


# A run --------------------------------------------------------------------------------------------------------------


def start(script: str, tmp_path: Path, **limits: Any) -> tuple[float, list[str]]:
    said: list[str] = []
    words = [sys.executable, "-u", "-c", script]
    return emulator.run(words, tmp_path / "console.txt", limits=emulator.Limits(**limits), say=said.append), said


def test_a_run_ends_with_its_end(tmp_path: Path) -> None:
    script = "print('boot\\nhostlab: up\\nhostlab: step x\\n...\\nhostlab: step x ended: status 3\\nhostlab: end')"
    _, said = start(script, tmp_path)
    assert said == ["up", "step x", "step x ended: status 3, 0 s", "end"]
    assert (tmp_path / "console.txt").read_text().endswith("hostlab: end\n")
    found = emulator.END.match(said[2])
    assert found
    assert found[1] == "3"


SLEEP = "; import time; time.sleep(60)"


@pytest.mark.parametrize(
    ("script", "limits", "why"),
    [
        ("print('hostlab: up')", {}, "ended early, with status 0"),
        (f"print('Kernel panic - not syncing'){SLEEP}", {}, "Kernel panic - not syncing"),
        (f"print('hostlab: failed: no disk'){SLEEP}", {}, "no disk"),
        (f"print('x'){SLEEP}", {"boot": 0.1}, "more than 0.1 s to come up"),
        (f"print('hostlab: step x'){SLEEP}", {"steps": {"x": 0.1}}, "more than 0.1 s for the step x"),
        ("import time\nwhile True: print('x'); time.sleep(0.01)", {"whole": 0.1}, "did not end within 0.1 s"),
    ],
)
def test_a_run_that_goes_wrong_shows_the_console(tmp_path: Path, script: str, limits: dict[str, Any], why: str) -> None:
    begin = time.monotonic()
    with pytest.raises(HostFailed, match=why) as caught:
        start(script, tmp_path, **limits)
    assert time.monotonic() - begin < 30
    assert "console.txt" in str(caught.value)


def test_patience_is_for_every_limit() -> None:
    assert emulator.Limits({"x": 2.0}, boot=3.0, whole=5.0).times(2.0) == emulator.Limits({"x": 4.0}, 6.0, 10.0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_nothing_runs_on_after_a_signal(tmp_path: Path, number: int) -> None:
    """The command is ended while threads follow its emulators, here processes that say their ids and sleep."""
    inner = "import os,time; print('hostlab: pid', os.getpid(), flush=True); time.sleep(300)"
    program = (
        "import sys; from tools.hostlab import __main__ as m, emulator, store\n"
        "def say(line): sys.stdout.write(line + chr(10)); sys.stdout.flush()  # whole: two threads say\n"
        "m.lab.settle = lambda host, say: (host, None, None)\n"
        "m.lab.prepare = lambda host, archive, found, _: host\n"
        "m._need = lambda named: None\n"
        "def run(host, out, patience, _, crew):\n"
        "    with store.scratch('run'):\n"
        f"        emulator.run([sys.executable, '-c', {inner!r}], out / host.name, limits=emulator.Limits(), say=say)\n"
        "m.lab.run = run\n"
        f"sys.exit(m.main(['svm-6.1', 'vmx-6.1', '--out', {str(tmp_path / 'out')!r}]))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        pids = [int(process.stdout.readline().split()[1]) for _ in range(2)]
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        work = tmp_path / "pyvmm/hostlab/work"
        assert len(list(work.iterdir())) == 2
        process.send_signal(number)
        process.send_signal(number)
        assert process.wait(60) == (-number if number == signal.SIGKILL else 128 + number)
    until = time.monotonic() + 60
    while [pid for pid in pids if Path(f"/proc/{pid}").exists()]:  # a kill is told to them, and not waited for
        assert number == signal.SIGKILL
        assert time.monotonic() < until
        time.sleep(0.05)
    assert number == signal.SIGKILL or not list(work.iterdir())


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with command._alone(tmp_path), pytest.raises(LabError, match="another run writes into"), command._alone(tmp_path):
        pass


def test_results_come_back_from_behind_the_parcel(tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text("{}")
    disk, results = tmp_path / "disk", tmp_path / "results"
    with tarfile.open(results, "w") as tar:
        tar.add(tmp_path / "probe.json", "./probe.json")
    disk.write_bytes(bytes(3 * parcel.MIB) + results.read_bytes() + bytes(parcel.MIB))
    assert parcel.unpack(disk, 3, tmp_path / "out") == ["probe.json"]
    assert (tmp_path / "out/probe.json").read_text() == "{}"
    with pytest.raises(HostFailed, match="handed nothing back"):
        parcel.unpack(disk, 2, tmp_path / "out")


def test_each_step_has_a_limit_and_a_wrong_one_is_named() -> None:
    assert all(limit >= 60 for limit in parcel.limits(hosts.ALWAYS).values())
    for wrong in ("no-such-step", "../steps/doctor", ""):
        with pytest.raises(LabError, match=r"no step of the lab; there are .*doctor"):
            parcel.limits([wrong])


def test_a_step_says_which_file_of_checks_it_leaves() -> None:
    assert parcel.checks((*hosts.ALWAYS, "user", "action")) == {"user": "user.json", "action": "action.json"}


def test_a_host_can_install_pyvmm_without_a_network(tmp_path: Path) -> None:
    file = tmp_path / "pyvmm-1-any.whl"
    file.write_text("wheel")
    (tmp_path / "site").mkdir()
    parcel._write(tmp_path / "disk", [tmp_path / "site"], [file], {"linux": tmp_path / "site"})
    with tarfile.open(tmp_path / "disk") as tar:
        assert tar.getmember("lab/wheels/pyvmm-1-any.whl").size == 5
    runs, tests = parcel.requirements(), parcel.requirements("test")
    assert "cffi" in runs[0]
    assert tests[: len(runs)] == runs
    assert any(line.startswith("pytest") for line in tests)
    assert not any(line.startswith(("pytest", *parcel.NOT_THERE)) for line in runs)
    assert not any(line.startswith(parcel.NOT_THERE) for line in tests)


def test_the_scripts_of_a_host_are_sh() -> None:
    here = ROOT / "tools/hostlab"
    scripts = [*here.glob("guest/*"), *here.glob("steps/*.sh")]
    assert len(scripts) >= 5
    for script in scripts:
        done = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_missing_command_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "path_of", lambda command: None)
    with pytest.raises(LabError, match="missing on this machine: mmdebstrap, cpio") as caught:
        tools.need("mmdebstrap", "cpio")
    assert "tools/install-host-tools, or apt install cpio mmdebstrap" in str(caught.value)


def test_a_command_that_fails_or_hangs_is_told() -> None:
    with pytest.raises(LabError, match="making x: sh ended with status 3\n    oh"):
        tools.call(["sh", "-c", "echo oh; exit 3"], limit=30, what="making x")
    with pytest.raises(LabError, match=r"making x: sleep took longer than 0\.1 s"):
        tools.call(["sleep", "30"], limit=0.1, what="making x")


# The judgement ------------------------------------------------------------------------------------------------------

EXPECTED = """
[features]
A = "works"
B = { verdict = "absent", why = "removed" }
C = { verdict = "works", deviations = ["the bit"], why = "before 6.9" }

[topics]
t = { verdicts = ["works", "inert"], why = "either" }
f = { verdict = "broken", fault = "io" }

[tests]
"m::x" = { verdict = "failed", fault = "io" }
"m::y" = { verdict = "failed", why = "old kernel" }

[variant.1cpu.features]
A = { verdict = "unproven", why = "one CPU" }
"""
FAULTS = """
[io]
emulator = "E"
what = "IN is refused"
told = "F does it"
shows = "#GP"
"""


def row(name: str, verdict: str, *deviations: str, outcome: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "verdict": verdict,
        "outcome": outcome or {"broken": "fail"}.get(verdict, "pass"),
        "reason": f"{name} says why",
        "summary": "",
        "deviations": [{"what": what, "observed": "1", "expected": "0"} for what in deviations],
    }


FAULTY = row("f", "broken") | {"evidence": {"text": "#GP at x"}}


def probed(*features: dict[str, Any], topics: tuple[dict[str, Any], ...] = (row("t", "works"),)) -> dict[str, Any]:
    return {"features": list(features), "topics": [FAULTY, *topics]}


GOOD = (row("A", "works"), row("B", "absent"), row("C", "works", "the bit"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "faults.toml").write_text(FAULTS)
    (tmp_path / "svm-6.1.toml").write_text(EXPECTED)
    return tmp_path


@pytest.fixture
def wanted(folder: Path) -> expected.Expected:
    return expected.read(folder / "svm-6.1.toml")


def test_as_expected_is_no_line(wanted: expected.Expected) -> None:
    assert judge.differences(wanted, probed(*GOOD)) == []
    assert judge.differences(wanted, probed(*GOOD, topics=(row("t", "inert"),))) == []


@pytest.mark.parametrize(
    ("features", "line"),
    [
        ((row("A", "broken"), *GOOD[1:]), "A: expected works, was broken: A says why"),
        ((row("A", "unproven", outcome="error"), *GOOD[1:]), "A: expected works, and pyvmm failed: A says why"),
        (GOOD[1:], "A: expected works, and there is no such row"),
        ((row("A", "works", "odd"), *GOOD[1:]), "A: a deviation that was not expected: odd: 1, and the ABI says 0"),
        ((*GOOD[:2], row("C", "works")), "C: an expected deviation did not come: the bit"),
        ((*GOOD, row("D", "works")), "D: works, and the file of expected verdicts has no such row"),
        ((GOOD[0], row("B", "works"), GOOD[2]), "B: expected absent, was works: B says why"),
    ],
)
def test_each_difference_is_a_line(wanted: expected.Expected, features: tuple[dict[str, Any], ...], line: str) -> None:
    assert judge.differences(wanted, probed(*features)) == [line]


def test_a_row_of_the_emulators_fault_may_work_and_else_must_show_it(wanted: expected.Expected) -> None:
    def told(fault: dict[str, Any]) -> list[str]:
        return judge.differences(wanted, {"features": list(GOOD), "topics": [row("t", "works"), fault]})

    assert told(FAULTY) == told(row("f", "works")) == []
    assert told(row("f", "broken"))[0].startswith("f: expected broken by the fault io, was broken without what shows")
    assert told(row("f", "inert")) == ["f: expected broken, was inert: f says why"]


def test_what_a_variant_has_else_is_its_own(folder: Path) -> None:
    path = folder / "svm-6.1.toml"
    assert expected.read(path).features["A"].verdicts == ("works",)
    assert expected.read(path, ("amd64", "1cpu")).features["A"].verdicts == ("unproven",)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("svm-6.1", "svm-6.1"),
        ("svm-6.1-amd64-1cpu", "svm-6.1"),
        ("svm-6.6", "svm-6.1"),
        ("svm-6.18", "svm-6.12"),
        ("svm-5.10", "svm-6.1"),
        ("vmx-6.1", None),
    ],
)
def test_a_host_without_a_file_has_the_nearest(tmp_path: Path, name: str, file: str | None) -> None:
    for each in ("svm-6.1", "svm-6.12"):
        (tmp_path / f"{each}.toml").touch()
    found = expected.file_for(hosts.parse(name), tmp_path)
    assert (found.stem if found else None) == file


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[features]\nA = "broken"', "A is broken and does not say why"),
        ("[features]\nA = { verdicts = ['works', 'inert'] }", "does not say why"),
        ("[features]\nA = { verdict = 'works', deviations = ['x'] }", "does not say why"),
        ("[features]\nA = { why = 'x' }", "A needs a verdict"),
        ("[features]\nA = { verdict = 'works', colour = 'red' }", "beside it only"),
        ("[features]\nA = { verdict = 'broken', fault = 'nobody' }", "faults.toml does not have"),
        ("[variant.1cpu.features]\nA = 'inert'", "does not say why"),
        ("[hosts]", "unknown: hosts"),
        ("[", "toml"),
    ],
)
def test_a_file_that_does_not_say_why_is_refused(folder: Path, text: str, why: str) -> None:
    path = folder / "x.toml"
    path.write_text(text)
    with pytest.raises(LabError, match=why):
        expected.read(path)


def test_a_fault_that_does_not_say_how_it_was_told_is_refused(folder: Path) -> None:
    (folder / "faults.toml").write_text(FAULTS.replace("F does it", ""))
    with pytest.raises(LabError, match=r"io needs .*told"):
        expected.read(folder / "svm-6.1.toml")


FILES = [path for path in sorted(expected.FOLDER.glob("*.toml")) if path.name != expected.FAULTS]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_of_expected_verdicts_has_every_row_that_pyvmm_proves(path: Path) -> None:
    from vmm.payload.proof.probe import targets, topics
    from vmm.payload.proof.verdict import Verdict

    found = expected.read(path)
    assert set(found.features) == {each.name for each in targets()}
    assert set(found.topics) == {each.name for each in topics()}
    for wanted in (*found.features.values(), *found.topics.values()):
        assert set(wanted.verdicts) <= set(map(str, Verdict))


def test_a_draft_gives_no_reason_and_so_is_refused(folder: Path) -> None:
    (folder / "probe.json").write_text(json.dumps(probed(*GOOD)))
    (folder / "junit.xml").write_text(JUNIT)
    path = folder / "svm-9.9.toml"
    path.write_text(draft.draft(folder))
    assert '"A" = "works"' in path.read_text()
    with pytest.raises(LabError, match="B is absent and does not say why"):
        expected.read(path)
    path.write_text(path.read_text().replace('why = ""', 'why = "known"'))
    assert judge.differences(expected.read(path), probed(*GOOD)) == []
    assert judge.of_tests(expected.read(path), junit.read(folder / "junit.xml")) == []


def test_counts() -> None:
    probe = probed(*GOOD, row("D", "works"))
    assert judge.counts(probe) == ("4 features: 3 works, 1 absent, 0 broken, 1 deviation; 2 topics: 1 broken, 1 works")


JUNIT = (
    "<testsuites><testsuite><testcase classname='m' name='ok'/><testcase classname='m' name='x'>"
    "<failure message='#GP&#10;more'/></testcase><testcase classname='m' name='z'><skipped message='w'/></testcase>"
    "</testsuite></testsuites>"
)


def test_junit_counts_what_passed(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(JUNIT)
    found = junit.read(path)
    assert (found.line, found.failed) == ("1 tests passed, 1 failed, 1 skipped", {"m::x": "#GP"})
    for text, why in (("<testsuites>", "left no report"), ("<testsuites/>", "no test passed, of 0")):
        path.write_text(text)
        with pytest.raises(HostFailed, match=why):
            junit.read(path)


def test_a_test_that_fails_is_a_line_unless_it_is_expected_to(wanted: expected.Expected) -> None:
    def told(**failed: str) -> list[str]:
        return judge.of_tests(wanted, junit.Tests(9, {f"m::{name}": text for name, text in failed.items()}, {}))

    assert told(x="#GP", y="anything") == told(y="anything") == []
    assert told(y="1", q="oh") == ["m::q: failed: oh"]
    assert told(y="1", x="oh") == ["m::x: failed, but not as the fault io shows itself: oh"]
    assert told() == ["m::y: expected failed, did not fail"]


def test_a_host_is_of_the_kind_that_its_name_says() -> None:
    found = {"usable": True, "backend": {"kind": "svm", "text": "AMD SVM"}}
    assert judge.of_doctor("svm", found) == []
    assert judge.of_doctor("vmx", found) == ["doctor: expected backend vmx, was svm: AMD SVM"]
    assert judge.of_doctor("svm", found | {"usable": False, "reason": "no"}) == ["doctor: KVM is not usable: no"]


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("svm-7.2", {("doctor", "probe", "tests"): "console.txt"}),
        ("vmx-6.1", {("doctor", "probe"): "console.txt", ("tests",): "console-2.txt"}),
    ],
)
def test_where_the_emulator_has_one_thread_the_tests_have_a_machine_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shares: dict[tuple[str, ...], str]
) -> None:
    """Machines side by side, a disk, a console and limits each, and what they hand back in one folder."""
    disks, together = {}, threading.Barrier(len(shares))

    def build(work: Path, steps: tuple[str, ...], *_: object) -> tuple[Path, int]:
        assert work.is_dir()
        disks[work / "disk"] = steps
        return work / "disk", 1

    def run(words: list[Path], console: Path, *, limits: emulator.Limits, say: Any, began: Any) -> None:
        steps = disks[words[0]]
        assert (shares[steps], set(limits.steps)) == (console.name, set(steps))
        together.wait(20)
        say(f"step {steps[-1]} ended: status {int(steps == ('tests',))}")

    monkeypatch.setattr(parcel, "build", build)
    monkeypatch.setattr(emulator, "run", run)
    monkeypatch.setattr(parcel, "unpack", lambda disk, at, into: (into / f"{disks[disk][-1]}.txt").touch())
    for each in (bochs, qemu):
        monkeypatch.setattr(each, "command", lambda host, kernel, disks, work: [disks.parcel])
    found = kernel.Kernel(tmp_path, tmp_path, "6.1.1-1", "6.1.1")
    report = lab.run(lab.Prepared(hosts.parse(name), found, tmp_path, {}), tmp_path, 1, lambda _: None)
    assert {each.name for each in (tmp_path / name).iterdir()} == {f"{steps[-1]}.txt" for steps in shares}
    failed = f"step tests ended: status 1: see {tmp_path / name / 'console-2.txt'}"
    assert (failed in report.failed) == (name == "vmx-6.1")


def test_what_did_not_come_back_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected, "FOLDER", folder)
    (folder / "doctor.json").write_text('{"usable": true')
    report = lab.judged(hosts.parse("svm-6.1"), folder, ["it hung"], 9.0)
    assert report.failed[0] == "it hung"
    assert [line.split(":")[0] for line in report.failed[1:4]] == ["doctor.json", "probe.json", "junit.xml"]
    report = lab.judged(hosts.parse("vmx-6.1"), folder, [], 9.0)
    assert report.failed[0].startswith("no file of expected verdicts for vmx")


def checked(*good: bool) -> dict[str, Any]:
    return {"checks": [{"what": f"thing {at}", "ok": ok, "seen": f"status {at}"} for at, ok in enumerate(good)]}


def test_each_check_that_is_not_ok_is_a_line() -> None:
    assert judge.of_checks("user", checked(True, True)) == []
    assert judge.of_checks("user", checked(True, False)) == ["user: thing 1: status 1"]
    assert judge.of_checks("user", checked()) == ["user: nothing was checked"]
    assert judge.counted_checks("user", checked(True, True)) == "user 2 checks ok"
    assert judge.counted_checks("user", checked(True, False)) == "user 1 checks ok, 1 not"


def test_only_what_was_asked_for_is_judged_and_the_line_says_so(tmp_path: Path) -> None:
    for name in ("svm-6.1", "svm-4.9"):
        host = hosts.parse(name, only=("user",), extra=("action",))
        report = lab.judged(host, tmp_path, [], 9.0)
        assert [line.split(":")[0] for line in report.failed] == ["user.json", "action.json"]
        (tmp_path / "user.json").write_text(json.dumps(checked(True, True)))
        (tmp_path / "action.json").write_text(json.dumps(checked(False)))
        report = lab.judged(host, tmp_path, [], 9.0)
        assert report.failed == ("action: thing 0: status 0",)
        assert report.line == "only user, action; user 2 checks ok; action 0 checks ok, 1 not; 9 s"
        for file in tmp_path.iterdir():
            file.unlink()


def test_the_usual_steps_are_judged_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expected, "FOLDER", folder)
    report = lab.judged(hosts.parse("svm-6.1"), folder, [], 9.0)
    files = [line.split(":")[0] for line in report.failed]
    assert files == ["doctor.json", "probe.json", "junit.xml", "user.json", "action.json"]
    assert "only" not in report.line


def test_the_last_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = lab.Report("svm-6.1", "25 features: 25 works; 9 s")
    skipped = lab.Report("vmx-6.1", "", skipped="Debian's trixie\nhas no source")
    assert command.tell([good, skipped], tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "svm-6.1  25 features: 25 works; 9 s",
        "vmx-6.1  skipped: Debian's trixie has no source",
    ]
    assert command.tell([skipped, skipped], tmp_path) == 77
    assert capsys.readouterr().out.endswith("\nevery host was skipped: nothing was shown\n")
    bad = lab.Report("svm-6.12", "25 features: 1 broken", ("A: expected works, was broken: x",))
    assert command.tell([good, bad], tmp_path) == 1
    out = capsys.readouterr().out
    assert "svm-6.12  A: expected works, was broken: x\n" in out
    assert out.endswith("svm-6.12  25 features: 1 broken  1 NOT as expected\n")


@pytest.mark.parametrize("name", ["svm-6.1", "vmx-6.12"])
def test_the_draft_of_a_host_reads_as_what_the_host_said(folder: Path, name: str) -> None:
    """Names that are sentences, and reasons of several lines, among them."""
    document = json.loads((ROOT / "docs" / "hosts" / f"{name}.json").read_text())
    document["features"][2]["reason"] += "\nand more"
    (folder / "probe.json").write_text(json.dumps(document))
    (folder / "junit.xml").write_text(JUNIT)
    drafted = tomllib.loads(draft.draft(folder))
    assert [*drafted["features"]] == [row["name"] for row in document["features"]]
    assert [*drafted["topics"]] == [row["name"] for row in document["topics"]]


def test_a_draft_of_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert draft.main([str(tmp_path)]) == 1
    assert draft.main([]) == 2
    said = capsys.readouterr().err
    assert "not what a host hands back" in said
    assert "give one folder" in said


def test_the_installer_knows_every_command_of_the_lab() -> None:
    text = (ROOT / "tools/install-host-tools").read_text()
    assert "hostlab/commands.txt" in text
    needed = {*command.ALWAYS_NEEDED, *qemu.COMMANDS, *bochs.COMMANDS, *selftests.COMMANDS, "newuidmap"}
    assert needed <= set(tools.PACKAGES)


def test_the_wheels_python_is_the_roots() -> None:
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert oldest == f">={root.PYTHON}"


def test_the_page_has_each_host_that_gave_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = Path(__file__).resolve().parents[2] / "docs/hosts/svm-7.2.json"
    (tmp_path / "svm-7.2").mkdir()
    (tmp_path / "svm-7.2/probe.json").write_text(table.read_text(encoding="utf-8"), encoding="utf-8")
    reports = [lab.Report("svm-7.2", "x"), lab.Report("vmx-6.1", "", skipped="gone"), lab.Report("svm-6.1", "failed")]
    command.write_page(reports, tmp_path, tmp_path / "hosts.html")
    page = (tmp_path / "hosts.html").read_text(encoding="utf-8")
    assert "<h3>svm-7.2</h3>" in page
    assert "vmx-6.1" not in page
    command.write_page(reports[1:], tmp_path, tmp_path / "none.html")
    assert not (tmp_path / "none.html").exists()
    assert "no host gave a table" in capsys.readouterr().err
    with pytest.raises(LabError, match="writing"):
        command.write_page(reports, tmp_path, tmp_path / "no/such/page.html")
