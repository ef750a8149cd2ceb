# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's step `fleet` where it starts nothing: what it asks of a host, the order of its story, what it concludes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.hostlab import __main__ as command
from tools.hostlab import expected, fleet, hosts, kernel, lab, parcel, qemu, store
from tools.hostlab.emulator import Disks
from tools.hostlab.errors import LabError
from tools.hostlab.kernel import Kernel, Source
from tools.hostlab.packages import Archive
from vmm.payload.proof.probe import select

distributed = pytest.importorskip("distributed", reason="pip install 'pyvmm[fleet]'")

NAMES = ("svm-6.1", "svm-7.2")
MACHINE = "build"
ROWS = [target.name for target in select(fleet.ASKED, api=True)]
PATIENCE = 60.0


def crew_of(*names: str) -> list[hosts.Host]:
    return [hosts.parse(name, only=("fleet",)) for name in names]


def document(*, without: str = "", lost: tuple[str, ...] = (), again: bool = True, left: tuple[str, ...] = ()) -> Any:
    """What `pyvmm fleet probe --json` says of these hosts, of which one has done nothing; (host, task) as HOST:TASK."""
    probes = {}
    for name in (*NAMES, MACHINE):
        features = expected.of(hosts.parse(NAMES[0])).features
        rows: dict[str, list[Any]] = {"features": [], "topics": []}
        for row in () if name == without else ROWS:
            rows["features" if row in features else "topics"].append(
                {"name": row, "verdict": "works", "outcome": "pass", "reason": "", "summary": "", "deviations": []}
            )
        probes[name] = {**rows, "not_run": ROWS if name == without else []}
    cells = [{"state": "works"} for _ in probes]
    return {
        "matrix": {
            "hosts": [{"name": name} for name in probes],
            "rows": [{"name": row, "cells": cells} for row in ROWS],
        },
        "probes": probes,
        "lost": [{"host": each.split(":")[0], "task": each.split(":")[1], "again": again} for each in lost],
        "not_done": [{"host": each.split(":")[0], "task": each.split(":")[1]} for each in left],
        "unusable": [],
    }


WELL = {
    "probe": (0, document()),
    "again": (0, document(lost=("svm-6.1:irqfd",))),
    "lost": (99, document(without="svm-7.2", lost=("svm-7.2:kvmclock",), left=("svm-7.2:kvmclock", "svm-7.2:irqfd"))),
}


class Client:
    """Dask's, of a scheduler whose workers come one by one. Each second time that one looks they have a proof to do."""

    names: tuple[str, ...] = ()
    looks = 0
    killed: tuple[Any, ...] = ()

    def __init__(self, address: str, **options: Any) -> None:
        self.address, self.seen = address, 0

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def scheduler_info(self, n_workers: int) -> Any:
        self.seen += 1
        return {"workers": {f"tcp://{name}": {"name": name} for name in self.names[: self.seen]}}

    def processing(self) -> dict[str, Any]:
        type(self).looks += 1
        task = ("asked-1", "proven-1")[self.looks % 2 == 0]
        return {f"tcp://{name}": (task,) for name in reversed(self.names)}

    def run(self, function: Callable[..., Any], *args: Any, workers: list[str], on_error: str = "raise") -> Any:
        if function is os.getpid:
            return {workers[0]: 4242}
        type(self).killed = (function, args, workers, on_error)
        return None


class Story:
    """A crew of two whose emulators sleep, told to its end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: dict[str, Any]) -> None:
        self.asked: list[str] = []
        self.said = said
        monkeypatch.setattr(distributed, "Client", Client)
        monkeypatch.setattr(fleet.tools.stopping, "wait", lambda seconds: False)
        monkeypatch.setattr(Client, "killed", ())
        monkeypatch.setattr(Client, "looks", 0)
        self.crew = fleet.Crew(len(NAMES), 1, lambda line: None, self.ask)
        self.members = {host.name: self.crew.join(host, tmp_path / host.name) for host in crew_of(*NAMES)}
        for name, member in self.members.items():
            (tmp_path / name).mkdir()
            member.emulator = subprocess.Popen(["sleep", "60"])  # type: ignore[attr-defined]
            member.began(member.emulator.pid)  # type: ignore[attr-defined]
        monkeypatch.setattr(
            Client, "names", (fleet.HERE, *(name for each in self.members.values() for name in each.workers))
        )

    def ask(self, name: str, meanwhile: Callable[[Any], object] | None = None) -> tuple[int, Any]:
        self.asked.append(name)
        if meanwhile:
            with subprocess.Popen(["sleep", "60"]) as process:
                meanwhile(process)
                process.kill()
        result: tuple[int, Any] = self.said[name]
        return result

    def end(self) -> dict[str, int | None]:
        """How each emulator ended: None for one that runs on."""
        found = {}
        for name, member in self.members.items():
            process = member.emulator  # type: ignore[attr-defined]
            found[name] = process.wait(PATIENCE) if member.killed else process.poll()
            process.kill()
            process.wait(PATIENCE)
        return found


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., tuple[Story, dict[str, Any]]]]:
    stories = []

    def tell(**said: Any) -> tuple[Story, dict[str, Any]]:
        story = Story(monkeypatch, tmp_path, WELL | said)
        stories.append(story)
        story.crew.conduct(lambda: story.asked.append("ended"))
        checks = {name: json.loads((tmp_path / name / "fleet.json").read_text())["checks"] for name in NAMES}
        return story, {name: [each["what"] for each in found if not each["ok"]] for name, found in checks.items()}

    yield tell
    for story in stories:
        story.end()


def test_a_story_as_it_should_be(told: Callable[..., tuple[Story, dict[str, Any]]]) -> None:
    story, bad = told()
    assert bad == {"svm-6.1": [], "svm-7.2": []}
    assert story.asked == ["probe", "again", "lost", "ended"]
    first, last = story.members.values()
    assert Client.killed == (os.kill, (4242, signal.SIGKILL), [f"tcp://{first.workers[-1]}"], "ignore")
    assert Client.looks == 4  # none is killed in a task that is no proof
    assert story.end() == {"svm-6.1": None, "svm-7.2": -signal.SIGKILL}
    assert len(first.checks) == 8
    assert len(last.checks) == 10
    assert first.left(["trouble"]) == ["trouble"]
    assert last.left(["the emulator ended early"]) == []


ROWS_OF = "its rows are the expected ones"
LEFT = "what it did not do is named, that task too"
ONCE = "a worker that is killed in a task is named, once"
ALL_DONE = "all was done, though a worker was killed"
WRONG = [
    ("probe", (0, document(without="svm-6.1")), "svm-6.1", ROWS_OF),
    ("probe", (0, document(lost=("svm-6.1:irqfd",))), "svm-7.2", "nobody was lost, and all was done"),
    ("probe", (1, document()), "svm-6.1", "nobody was lost, and all was done"),
    ("again", (0, document()), "svm-6.1", ONCE),
    ("again", (0, document(lost=("svm-6.1:x",), again=False)), "svm-6.1", ONCE),
    ("again", (99, document(lost=("svm-6.1:x",))), "svm-7.2", ALL_DONE),
    ("again", (0, document(left=("svm-6.1:x",))), "svm-7.2", ALL_DONE),
    ("again", (0, document(without="svm-6.1")), "svm-6.1", f"{ROWS_OF}, though a worker of svm-6.1 was killed"),
    ("lost", (99, document(left=("svm-7.2:x",))), "svm-7.2", "its worker is named as lost, in that task"),
    ("lost", (99, document(lost=("svm-7.2:x",), left=("svm-7.2:y",))), "svm-7.2", LEFT),
    ("lost", (0, WELL["lost"][1]), "svm-7.2", "the status says that a host was lost"),
    ("lost", (99, document(without="svm-6.1")), "svm-6.1", f"{ROWS_OF}, though svm-7.2 was killed"),
    ("lost", (99, document(without=MACHINE)), "svm-6.1", "nothing is missing of the others, and of this machine"),
]


@pytest.mark.parametrize(("name", "said", "where", "what"), WRONG)
def test_what_is_not_as_it_should_be_is_a_check(
    told: Callable[..., tuple[Story, dict[str, Any]]], name: str, said: Any, where: str, what: str
) -> None:
    assert what in told(**{name: said})[1][where]


@pytest.mark.parametrize("gone", ["svm-7.2", MACHINE])
def test_a_column_that_is_missing_is_a_check(told: Callable[..., tuple[Story, dict[str, Any]]], gone: str) -> None:
    few = document()
    few["matrix"]["hosts"] = [each for each in few["matrix"]["hosts"] if each["name"] != gone]
    del few["probes"][gone]
    wanted: dict[str, list[str]] = {
        name: ["the matrix has a column for each host, and one for this machine"] for name in NAMES
    }
    wanted.get(gone, []).append(ROWS_OF)
    assert told(probe=(0, few))[1] == wanted


def test_this_machine_that_is_missing_after_a_loss_is_a_check(
    told: Callable[..., tuple[Story, dict[str, Any]]],
) -> None:
    few = json.loads(json.dumps(WELL["lost"][1]))
    del few["probes"][MACHINE]
    missing = "nothing is missing of the others, and of this machine"
    assert told(lost=(99, few))[1] == {name: [missing] for name in NAMES}


def test_another_verdict_is_a_check(told: Callable[..., tuple[Story, dict[str, Any]]]) -> None:
    other = document()
    other["probes"]["svm-6.1"]["features"][0]["verdict"] = "inert"
    assert told(probe=(0, other))[1] == {"svm-6.1": ["its rows are the expected ones"], "svm-7.2": []}


def test_a_story_that_breaks_off_is_a_check(told: Callable[..., tuple[Story, dict[str, Any]]]) -> None:
    story, bad = told(probe=None)
    assert bad == {name: ["it comes to its end"] for name in NAMES}
    assert story.asked == ["probe", "ended"]
    assert story.end() == dict.fromkeys(NAMES)


def test_hosts_that_do_not_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The last one to go ends the wait; what it says of its end is kept."""
    story = Story(monkeypatch, tmp_path, WELL)
    monkeypatch.setattr(Client, "names", (fleet.HERE,))
    thread = threading.Thread(target=story.crew.conduct, args=(lambda: story.asked.append("ended"),))
    thread.start()
    story.crew.fewer()
    assert story.members["svm-6.1"].left(["it did not come up"]) == ["it did not come up"]
    thread.join(PATIENCE)
    assert story.asked == ["ended"]
    story.end()


def test_a_scheduler_on_loopback_with_this_machine_and_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A question that cannot be answered is an error with pyvmm's own words."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fleet.tools, "stopping", threading.Event())
    monkeypatch.setattr(parcel, "install", lambda *words: None)  # then it is the tree's pyvmm
    monkeypatch.setattr(parcel, "wheel", lambda: tmp_path)
    monkeypatch.setattr(fleet, "ASKED", ("no-such-feature",))
    with fleet.crew(1, tmp_path, 1.0, lambda line: None) as made:
        with distributed.Client(made.address, timeout=PATIENCE, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=PATIENCE)
            (only,) = client.scheduler_info(n_workers=-1)["workers"].values()
        assert (only["name"], only["host"]) == (fleet.HERE, "127.0.0.1")
        with pytest.raises(LabError, match="NO_SUCH_FEATURE"):
            made._ask("probe")
        made.fewer()
        made.wait()
        with pytest.raises(ConnectionRefusedError), socket.socket() as asked:
            asked.connect((qemu.LOOPBACK, made.port))


def test_the_step_says_what_it_needs() -> None:
    assert parcel.card(("doctor", "fleet")) == "virtio_net"
    assert not parcel.card(sorted({path.stem for path in parcel.STEPS.glob("*.sh")} - {"fleet"}))
    assert parcel.checks(("fleet",)) == {"fleet": fleet.CHECKS}
    assert fleet.STEP in parcel.limits(("fleet",))


@pytest.mark.parametrize(
    ("named", "at_once", "why"),
    [
        (crew_of("vmx-6.1"), 2, "no network"),
        ([*crew_of("svm-6.1"), hosts.parse("svm-7.2")], 2, "the only one"),
        ([hosts.parse("svm-6.1", extra=("fleet",))], 2, "the only one"),
        (crew_of("svm-6.1", "svm-7.2"), 1, "2 hosts have to run at once"),
    ],
)
def test_what_cannot_be_done_is_said_first(named: list[hosts.Host], at_once: int, why: str) -> None:
    with pytest.raises(LabError, match=why):
        fleet.check(named, at_once)


def test_without_dask_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.check(crew_of("svm-6.1", "svm-7.2"), 2)
    monkeypatch.setattr(fleet.importlib.util, "find_spec", lambda name: None)
    fleet.check([hosts.parse("svm-6.1")], 1)
    with pytest.raises(LabError, match="not installed"):
        fleet.check(crew_of("svm-6.1"), 2)


def test_the_command_says_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["vmx-6.1", "--only", "fleet"]) == 2
    assert capsys.readouterr().err.startswith("hosts: fleet: a VMX host of the lab has no network card")


def test_only_its_hosts_have_a_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its ports are those that the host's workers listen on; the host is told them."""
    monkeypatch.setattr(qemu, "path_of", lambda name: Path("/usr/bin") / name)
    started: list[list[str]] = []
    parameters: list[Any] = []

    def build(*args: Any) -> tuple[Path, int]:
        parameters.append(args[-1])
        return tmp_path / "disk", 1

    monkeypatch.setattr(lab.parcel, "build", build)
    monkeypatch.setattr(lab.parcel, "unpack", lambda *args: [])
    monkeypatch.setattr(
        lab.emulator, "run", lambda words, console, *, began, **options: (began(7), started.append(words))
    )
    host = crew_of("svm-6.1")[0]
    disks = Disks(tmp_path, tmp_path / "disk", 1)
    prepared = lab.Prepared(host, Kernel(tmp_path, tmp_path, "", ""), tmp_path, {})
    member = fleet.Crew(1, 8786, lambda line: None, lambda name: (0, None)).join(host, tmp_path)
    for number, each in enumerate((None, member)):
        assert not lab._share(
            prepared, ("fleet",), tmp_path / str(number), tmp_path / "c", 1.0, lambda line: None, each
        )
    without, having = started
    assert having[2 : len(without)] == without[2:]  # before that stands the folder
    assert without[1:] == qemu.command(host, prepared.kernel, disks, tmp_path / "0")[1:]
    one, two = member.ports
    assert f"user,id=net,hostfwd=tcp:127.0.0.1:{one}-:{one},hostfwd=tcp:127.0.0.1:{two}-:{two}" in having
    assert "-netdev" not in without
    assert parameters == [{}, {"NAME": "svm-6.1", "SCHEDULER": "8786", "WORKERS": f"{one} {two}"}]
    assert member.pid == 7


def test_a_card_is_another_initramfs_and_none_is_the_usual_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Busybox:
        def refresh(self, say: object) -> None:
            pass

        def version(self, package: str) -> str:
            return "1"

    digests: list[str] = []
    monkeypatch.setattr(kernel, "Archive", lambda release: Busybox())
    monkeypatch.setattr(store, "get", lambda kind, digest, *rest: (digests.append(digest), tmp_path)[1])
    source = Source(("linux-image-x",), "6.1.1", "6.1.0-1")
    for extra in ((), ["virtio_net"]):
        kernel.kernel(hosts.parse("svm-6.1"), Archive.__new__(Archive), source, extra=extra)
    usual = store.key(kernel.RECIPE, source, "1", kernel.MODULES, kernel.IF_THERE, kernel.INIT)
    assert digests[0] == usual != digests[1]
