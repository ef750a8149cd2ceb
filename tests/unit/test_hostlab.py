# SPDX-License-Identifier: GPL-2.0-or-later
"""The host lab where it starts nothing: names of hosts, order of modules, the cache, limits of a run, the judgement."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tools.hostlab import __main__ as command
from tools.hostlab import emulator, hosts, judge, junit, kernel, lab, parcel, store, tools
from tools.hostlab.errors import HostFailed, LabError

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


@pytest.mark.parametrize("word", ["svm", "svm-", "arm-6.1", "svm-six", "svm-6.1/../x", "-6.1"])
def test_a_word_that_is_no_host_is_refused(word: str) -> None:
    with pytest.raises(LabError, match="no host of the lab"):
        hosts.parse(word)
    with pytest.raises(LabError, match="HOSTS_CPUS"):
        hosts.parse("svm-6.1", cpus=0)


def test_the_command_says_what_is_wrong_with_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["sparc-6.1"]) == 2
    assert capsys.readouterr().err.startswith("hosts: sparc-6.1: no host of the lab\n  try: svm-6.1")


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
        kernel.module_name(file) for file in kernel.load_order(kernel.parse_dependencies(MODULES_DEP), ["kvm_amd"])
    ]
    assert sorted(order) == ["ccp", "irqbypass", "kvm", "kvm_amd"]
    assert order.index("irqbypass") < order.index("kvm") < order.index("kvm_amd") == 3
    assert order.index("ccp") < 3


def test_a_module_that_is_no_file_is_built_in() -> None:
    assert kernel.load_order(kernel.parse_dependencies(MODULES_DEP), ["sd_mod", "ext4"]) == ["kernel/fs/ext4.ko"]


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
    assert sorted(path.name for path in cache.iterdir()) == ["thing-1", "thing.lock"]


def test_what_was_not_used_for_a_month_goes(cache: Path) -> None:
    now = time.time()
    for name, days in (("old-1", 31), ("new-1", 29), (".half-x", 2), (".half-y", 0)):
        (cache / name).mkdir()
        os.utime(cache / name, (now - days * 86400,) * 2)
    assert sorted(store.prune(now)) == [".half-x", "old-1"]
    assert sorted(path.name for path in cache.iterdir()) == [".half-y", "new-1"]


# A run --------------------------------------------------------------------------------------------------------------


def start(script: str, tmp_path: Path, **limits: float) -> tuple[float, list[str]]:
    said: list[str] = []
    words = [sys.executable, "-u", "-c", script]
    return emulator.run(words, tmp_path / "console.txt", say=said.append, **({"limit": 60.0} | limits)), said


def test_a_run_ends_with_its_end(tmp_path: Path) -> None:
    _, said = start("print('boot\\nhostlab: up\\nhostlab: end')", tmp_path)
    assert said == ["up", "end"]
    assert (tmp_path / "console.txt").read_text() == "boot\nhostlab: up\nhostlab: end\n"


@pytest.mark.parametrize(
    ("script", "limits", "why"),
    [
        ("print('hostlab: up')", {}, "ended early, with status 0"),
        ("print('Kernel panic - not syncing'); import time; time.sleep(60)", {}, "Kernel panic - not syncing"),
        ("print('hostlab: failed: no disk'); import time; time.sleep(60)", {}, "no disk"),
        ("import time; time.sleep(60)", {"silence": 0.1}, "said nothing for 0.1 s"),
        ("import time\nwhile True: print('x'); time.sleep(0.01)", {"limit": 0.1}, "did not end within 0.1 s"),
    ],
)
def test_a_run_that_goes_wrong_shows_the_console(
    tmp_path: Path, script: str, limits: dict[str, float], why: str
) -> None:
    begin = time.monotonic()
    with pytest.raises(HostFailed, match=why) as caught:
        start(script, tmp_path, **limits)
    assert time.monotonic() - begin < 30
    assert "console.txt" in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_runs_on_after_a_signal(tmp_path: Path, number: int) -> None:
    """The command is ended while threads follow its emulators, here processes that say their ids and sleep."""
    inner = "import os,time; print('hostlab: pid', os.getpid(), flush=True); time.sleep(300)"
    program = (
        "import sys; from pathlib import Path; from tools.hostlab import __main__ as m, emulator, lab\n"
        "def say(line): print(line, flush=True)\n"
        "lab.prepare = lambda host, say: lab.Prepared(host, None)\n"
        "m.lab.run = lambda each, out, _: emulator.run("
        f"[sys.executable, '-c', {inner!r}], out / each.host.name, limit=300, say=say)\n"
        f"sys.exit(m.main(['svm-6.1', 'vmx-6.1', '--out', {str(tmp_path)!r}]))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT, env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        pids = [int(process.stdout.readline().split()[1]) for _ in range(2)]
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
        process.send_signal(number)
        process.send_signal(number)
        assert process.wait(60) == 130
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_results_come_back(tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text("{}")
    disk = tmp_path / "disk"
    with tarfile.open(disk, "w") as tar:
        tar.add(tmp_path / "probe.json", "./probe.json")
    assert parcel.unpack(disk, tmp_path / "out") == ["probe.json"]
    disk.write_bytes(parcel.RESULTS_MARK + bytes(4096))
    with pytest.raises(HostFailed, match="handed nothing back"):
        parcel.unpack(disk, tmp_path / "out")


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
"""


def row(name: str, verdict: str, *deviations: str, outcome: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "verdict": verdict,
        "outcome": outcome or {"broken": "fail"}.get(verdict, "pass"),
        "reason": f"{name} says why",
        "summary": "",
        "deviations": [{"what": what} for what in deviations],
    }


def probed(*features: dict[str, Any], topics: tuple[dict[str, Any], ...] = (row("t", "works"),)) -> dict[str, Any]:
    return {"features": list(features), "topics": list(topics)}


GOOD = (row("A", "works"), row("B", "absent"), row("C", "works", "the bit"))


@pytest.fixture
def expected(tmp_path: Path) -> judge.Expected:
    path = tmp_path / "svm-6.1.toml"
    path.write_text(EXPECTED)
    return judge.read(path)


def test_as_expected_is_no_line(expected: judge.Expected) -> None:
    assert judge.differences(expected, probed(*GOOD)) == []
    assert judge.differences(expected, probed(*GOOD, topics=(row("t", "inert"),))) == []


@pytest.mark.parametrize(
    ("features", "line"),
    [
        ((row("A", "broken"), *GOOD[1:]), "A: expected works, was broken: A says why"),
        ((row("A", "unproven", outcome="error"), *GOOD[1:]), "A: expected works, and pyvmm failed: A says why"),
        (GOOD[1:], "A: expected works, and there is no such row"),
        ((row("A", "works", "odd"), *GOOD[1:]), "A: a deviation that was not expected: odd"),
        ((*GOOD[:2], row("C", "works")), "C: an expected deviation did not come: the bit"),
        ((*GOOD, row("D", "works")), "D: works, and the file of expected verdicts has no such row"),
        ((GOOD[0], row("B", "works"), GOOD[2]), "B: expected absent, was works: B says why"),
    ],
)
def test_each_difference_is_a_line(expected: judge.Expected, features: tuple[dict[str, Any], ...], line: str) -> None:
    assert judge.differences(expected, probed(*features)) == [line]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[features]\nA = "broken"', "A is broken and does not say why"),
        ("[features]\nA = { verdicts = ['works', 'inert'] }", "does not say why"),
        ("[features]\nA = { verdict = 'works', deviations = ['x'] }", "does not say why"),
        ("[features]\nA = { why = 'x' }", "A needs a verdict"),
        ("[features]\nA = { verdict = 'works', colour = 'red' }", "beside it only"),
        ("[hosts]", "there are"),
        ("[", "toml"),
    ],
)
def test_a_file_that_does_not_say_why_is_refused(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(LabError, match=why):
        judge.read(path)


def test_every_file_of_expected_verdicts_can_be_read_and_names_no_verdict_that_is_not_one() -> None:
    from vmm.payload.verdict import Verdict

    for path in judge.EXPECTED.glob("*.toml"):
        found = judge.read(path)
        for wanted in (*found.features.values(), *found.topics.values()):
            assert set(wanted.verdicts) <= set(map(str, Verdict)), path


def test_every_row_that_pyvmm_proves_is_expected() -> None:
    from vmm.payload.probe import targets, topics

    for path in judge.EXPECTED.glob("*.toml"):
        found = judge.read(path)
        assert set(found.features) == {each.name for each in targets()}, path
        assert set(found.topics) == {each.name for each in topics()}, path


def test_counts() -> None:
    probe = probed(*GOOD, row("D", "works"))
    assert judge.counts(probe) == "4 features: 3 works, 1 absent, 0 broken, 1 deviation; 1 topics: 1 works, 0 broken"


def test_junit_counts_what_passed(tmp_path: Path) -> None:
    path = tmp_path / "junit.xml"
    path.write_text(
        "<testsuites><testsuite><testcase classname='a' name='x'/><testcase classname='a' name='y'>"
        "<failure message='no&#10;more'/></testcase><testcase classname='a' name='z'><skipped message='w'/></testcase>"
        "</testsuite></testsuites>"
    )
    found = junit.read(path)
    assert (found.line, found.failed) == ("1 tests passed, 1 failed, 1 skipped", ("a::y: no",))
    path.write_text("<testsuites>")
    with pytest.raises(HostFailed, match="left no report"):
        junit.read(path)


def test_the_last_lines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = lab.Report("svm-6.1", "25 features: 25 works; 9 s")
    skipped = lab.Report("vmx-6.1", "", skipped="Debian's trixie\nhas no source")
    assert command._tell([good, skipped], tmp_path) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "svm-6.1  25 features: 25 works; 9 s",
        "vmx-6.1  skipped: Debian's trixie has no source",
    ]
    bad = lab.Report("svm-6.12", "25 features: 1 broken", ("A: expected works, was broken: x",))
    assert command._tell([good, bad], tmp_path) == 1
    out = capsys.readouterr().out
    assert "svm-6.12  A: expected works, was broken: x\n" in out
    assert out.endswith("svm-6.12  25 features: 1 broken  1 NOT as expected\n")


def test_the_installer_knows_every_command_of_the_table() -> None:
    text = (ROOT / "tools/install-host-tools").read_text()
    assert "hostlab/commands.txt" in text
    assert set(tools.PACKAGES) >= {"mmdebstrap", "qemu-system-x86_64", "grub-mkrescue", "depmod", "cpio", "busybox"}


def test_the_wheels_python_is_the_roots() -> None:
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert oldest == f">={parcel.PYTHON}"
