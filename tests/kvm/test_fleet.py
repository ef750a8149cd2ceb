# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm fleet` on a cluster of two processes: the matrix, a worker that is killed, one with another pyvmm, no time."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.unit.conftest import SCHEMAS, closed
from vmm.cli import main
from vmm.errors import HostError, UsageError
from vmm.fleet import cluster, fuzzing, work
from vmm.fleet.cluster import Fleet, Task
from vmm.payload.proof.probe import Probe, select

distributed = pytest.importorskip("distributed", reason="pip install 'pyvmm[fleet]'")
pytestmark = pytest.mark.kvm

PATIENCE = 60.0
ROOT = Path(__file__).resolve().parents[2]
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def local() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", memory_limit=0
    ) as made:
        yield made
    gc.collect()  # Dask leaves its sockets and pipes to the collector, and later tests count theirs


@pytest.fixture
def fleet(capsys: pytest.CaptureFixture[str], local: Any) -> Say:
    def run(*words: str) -> tuple[int, str, str]:
        status = main(["fleet", *words, "--scheduler", local.scheduler_address])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def client(local: Any) -> Iterator[Any]:
    with distributed.Client(local, set_as_default=False) as made:
        made.wait_for_workers(2, timeout=PATIENCE)
        yield made


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def joined(client: Any, said: list[str]) -> Fleet:
    made = Fleet(client, said.append)
    made.meet()
    return made


def addresses(client: Any) -> list[str]:
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def follows(name: str, document: Any) -> Any:
    """What a reader gets, after it was held against its schema."""
    schema = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    read = json.loads(document if isinstance(document, str) else json.dumps(document))
    jsonschema.validate(read, closed(schema), cls=jsonschema.Draft202012Validator)
    return read


def test_a_host_has_in_the_matrix_what_it_has_by_itself(fleet: Say, tmp_path: Path) -> None:
    status, out, err = fleet("probe", "MIGRATION_CONTROL", "irqfd", "nmi", "--api", "--per", "core", "--json",
                             "--save", str(tmp_path / "said"))  # fmt: skip
    doc = follows("fleet", out)
    assert status == doc["exit_code"] == 0, err
    alone = {row.name: str(row.verdict) for row in Probe(select(["MIGRATION_CONTROL", "irqfd", "nmi"], api=True))}
    assert {row["name"]: row["cells"][0]["state"] for row in doc["matrix"]["rows"]} == alone
    (host,) = doc["probes"]
    assert len(doc["workers"]) == 2
    assert {each["host"] for each in doc["workers"]} == {host}
    assert not doc["lost"] + doc["not_done"]
    assert json.loads((tmp_path / "said" / f"{host}.json").read_text()) == follows("probe", doc["probes"][host])
    said = str(tmp_path / "said" / f"{host}.json")
    status, out, err = fleet("diff", "nmi", "--api", "--against", said, "--json")
    (difference,) = follows("fleet", out)["differences"]
    assert (status, difference["features"], difference["unchanged"]) == (0, [], 1), err
    worse = doc["probes"][host]
    worse["features"][0]["verdict"] = "inert"
    known = tmp_path / "known.json"
    known.write_text(json.dumps(worse))
    assert "1 improvement" in fleet("diff", "MIGRATION_CONTROL", "--against", str(known))[1]
    assert fleet("diff", "MIGRATION_CONTROL")[0] == 2  # one host alone


def test_a_worker_that_is_killed_in_a_task(fleet: Say, client: Any, tmp_path: Path) -> None:
    """Whoever comes to this proof first stays in it until it is killed."""
    here = str(tmp_path / "here")

    def linger() -> None:
        real = work.proven

        def proven(names: tuple[str, ...], **options: bool) -> Any:
            if names == ("irqfd", "irqfd_resample", "gsi_routing", "msi"):
                try:
                    file = os.open(here, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                except FileExistsError:
                    return real(names, **options)
                os.write(file, f"{os.getpid():8}".encode())
                time.sleep(PATIENCE)
            return real(names, **options)

        work.proven = proven

    client.run(linger)
    pids = client.run(os.getpid)

    def kill() -> None:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            if Path(here).exists() and len(pid := Path(here).read_text()) == 8:
                os.kill(int(pid), signal.SIGKILL)
                return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        status, out, err = fleet("probe", "nmi", "irqfd", "--api", "--json")
    finally:
        killer.join()
    doc = json.loads(out)
    (lost,) = doc["lost"]
    assert (lost["task"], lost["again"]) == ("irqfd", True)
    assert pids[lost["worker"]] == int(Path(here).read_text())
    assert f"worker {lost['worker']} on {lost['host']} was lost in irqfd; the task waits for another one there" in err
    assert status == 0
    (found,) = doc["probes"].values()
    assert not doc["not_done"] + found["not_run"]
    assert {row["name"]: row["verdict"] for row in found["topics"]} == {
        row.name: str(row.verdict) for row in Probe(select(["nmi", "irqfd"], api=True))
    }


@contextmanager
def another(client: Any, address: str, change: dict[str, str]) -> Iterator[None]:
    """That worker says something else of itself."""

    def other() -> None:
        real = work.identity
        work.identity = lambda: real() | change
        work.identity.real = real  # type: ignore[attr-defined]

    def again() -> None:
        work.identity = work.identity.real  # type: ignore[attr-defined]

    client.run(other, workers=[address])
    try:
        yield
    finally:
        client.run(again, workers=[address])


@pytest.mark.parametrize(
    ("change", "says"), [({"version": "9.9"}, "has pyvmm 9.9, and this is"), ({"files": "x"}, "its files differ")]
)
def test_a_worker_with_another_pyvmm_is_refused_by_name(
    fleet: Say, client: Any, change: dict[str, str], says: str
) -> None:
    one = addresses(client)[0]
    with another(client, one, change):
        status, out, err = fleet("probe", "MIGRATION_CONTROL")
    assert (status, out) == (2, "")
    assert f"worker {one} on " in err
    assert says in err


def test_one_that_comes_later_with_another_pyvmm_takes_no_part(client: Any, said: list[str], joined: Fleet) -> None:
    late, other = addresses(client)
    del joined.workers[late]
    with another(client, late, {"version": "9.9"}):
        for _ in range(2):
            assert joined.look() == {other}
    assert len(said) == 1
    assert said[0].startswith(f"worker {late} on ")
    assert said[0].endswith("; it takes no part")


DEVICE = """
class Mine:
    def read(self, offset, size):
        return 0

    def write(self, offset, size, value):
        if value == 0x41:
            raise ValueError("planted")

def device():
    return Mine()
"""


def test_a_planted_bug_is_found_and_brought_home(
    fleet: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(DEVICE)
    status, out, err = fleet("fuzz", "mine.py", "--seconds", "1", "--seed", "5", "--json")
    doc = follows("fleet", out)
    assert (status, len(doc["kinds"])) == (1, 1), err
    assert doc["inputs"] == len(list(Path("fuzz-mine/corpus").iterdir())) > 0
    assert doc["rounds"] >= 1
    assert doc["execs"] > doc["crashed"] > 0
    (crash,) = Path("fuzz-mine/crashes").glob("*.json")
    assert "planted" in crash.with_suffix(".txt").read_text()
    assert main(["fuzz", "--replay", str(crash)]) == 1  # it names the file here, and not where it was over there
    assert "planted" in capsys.readouterr().out


# Nobody guesses it.
DEEP = DEVICE.replace("value == 0x41", "value * 0x9E3779B97F4A7C15 % 2**64 == 0x6EDC9E5BA1F037C2")
FOUND = pow(0x9E3779B97F4A7C15, -1, 1 << 64) * 0x6EDC9E5BA1F037C2 % (1 << 64)


def test_a_round_begins_with_what_is_known_and_brings_what_is_new() -> None:
    first = fuzzing.one_round("mine.py", DEEP, 1, 0.2, {})
    assert first["inputs"]
    assert not first["crashes"]
    given = {hashlib.sha256(data).hexdigest()[:16]: data for data in first["inputs"]}
    deep = struct.pack("<BHQ", 1 | 3 << 4, 0, FOUND)  # a write of 8 bytes
    again = fuzzing.one_round("mine.py", DEEP, 1, 0.2, given | {hashlib.sha256(deep).hexdigest()[:16]: deep})
    assert not set(again["inputs"]) & set(first["inputs"])
    ((kind, files),) = again["crashes"].items()
    assert "ValueError" in kind
    assert set(files) == {".json", ".txt"}
    with pytest.raises(HostError, match=r"with seed 1 failed: .*"):
        fuzzing.one_round("mine.py", "device = 1", 1, 0.2, {})


def _never() -> None:
    raise AssertionError("cannot be")


def test_no_time_and_no_worker(fleet: Say, joined: Fleet, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(joined.hosts[0], "ok", os.getpid)
    assert joined.run([task], _never, deadline=time.monotonic()) == [task]
    nobody = Task("nobody", "never", os.getpid)
    monkeypatch.setattr(cluster, "GRACE", 0.1)
    got: list[Any] = []
    left = joined.run([nobody, task], lambda *each: got.append(each), deadline=time.monotonic() + PATIENCE)
    assert left == [nobody]
    assert [name for name, _ in got] == [task]
    with pytest.raises(HostError, match=r"bad failed on .*: FileNotFoundError"):
        joined.run([Task(task.host, "bad", os.stat, ("/none",))], _never, deadline=time.monotonic() + PATIENCE)
    monkeypatch.setattr(cluster, "ATTEMPTS", 1)
    dies = Task(task.host, "dies", os._exit, (1,))
    assert joined.run([dies], _never, deadline=time.monotonic() + PATIENCE) == [dies]
    assert said[-1].endswith("was lost in dies; that was attempt 1, and the last")
    status, out, err = fleet("probe", "MIGRATION_CONTROL", "--json", "--timeout", "0.001")
    assert status in (99, 124)  # of what the hosts are nothing is known
    assert "none has said what it is" in err
    assert out == ""


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["probe", "NOTHING"], "NOTHING"),
        (["probe", "--workers", "0"], "at least 1"),
        (["probe", "--workers", "1", "--scheduler", "tcp://a:1"], "--workers and --scheduler"),
        (["probe", "--against", "x.json"], "goes with diff"),
        (["diff", "--against", "none.json"], "none.json"),
        (["probe", "--timeout", "0"], "time limit"),
        (["probe", "--scheduler", "http://a:1"], "unknown address scheme"),
        (["probe", "--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers at tcp://127.0.0.1:1"),
        (["wobble"], "invalid choice"),
        (["probe", "--seconds", "1"], "--seconds goes with fuzz"),
        (["fuzz", "uart", "--no-refusals"], "--no-refusals goes with probe and diff"),
        (["fuzz"], "fuzz takes one target, and 0"),
        (["fuzz", "nothing"], "a fleet fuzzes a target"),
        (["fuzz", "nothing.py"], "reading 'nothing.py': No such file"),
        (["fuzz", "uart", "--seconds", "0"], "time limit"),
    ],
)
def test_what_cannot_be_is_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "ANSWER", 0.2)
    assert main(["fleet", *words]) in (2, 99)
    err = capsys.readouterr().err
    assert says in err
    assert "Traceback" not in err


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    assert main(["fleet", "probe", "MIGRATION_CONTROL"]) == 99
    assert "pip install 'pyvmm[fleet]'" in capsys.readouterr().err


class Gone:
    """A client whose scheduler has ended."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        if self.error is not None:
            raise self.error
        return {}


@pytest.mark.parametrize("error", [None, OSError("closed"), RuntimeError("no loop")])
def test_a_scheduler_that_went_away_is_one_line(error: Exception | None) -> None:
    task = Task("host", "task", os.getpid)
    with pytest.raises(HostError, match="the scheduler went away"):
        Fleet(Gone(error), print).run([task], _never, deadline=time.monotonic() + PATIENCE)


def test_two_hosts_of_one_name_are_two() -> None:
    made = Fleet(None, print)

    def host(boot: str) -> str:
        who = {"name": "node", "boot": boot}
        name = made._host(who)
        made.workers[f"{boot}{len(made.workers)}"] = cluster.Worker("a", name, who)
        return name

    assert [host("x"), host("y"), host("x"), host("z")] == ["node", "node-2", "node", "node-3"]
    assert made.hosts == ("node", "node-2", "node-3")


def test_an_error_of_pyvmm_from_over_there_is_that_error() -> None:
    worker = cluster.Worker("tcp://a:1", "h", {})
    error = UsageError("no such thing", hint="another")
    assert cluster._told(Task("h", "t", print), worker, error) is error


def test_ctrl_c_of_a_terminal_is_one_line(uncovered: dict[str, str]) -> None:
    """It goes to every process of the group, Dask's too."""
    command = [sys.executable, "-m", "vmm", "fleet", "probe"]
    with subprocess.Popen(
        command, cwd=ROOT, env=uncovered, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    ) as running:  # fmt: skip
        assert running.stderr is not None
        assert "2 workers" in running.stderr.readline()
        os.killpg(running.pid, signal.SIGINT)
        said = running.stderr.read()
    assert (running.returncode, said) == (130, "pyvmm: interrupted\n")


def test_a_local_cluster_that_does_not_start_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("Nanny failed to start.") from OSError("no room")

    monkeypatch.setattr(distributed, "LocalCluster", refuse)
    with pytest.raises(HostError, match="does not start: OSError: no room"), cluster.fleet(None, 1, print):
        pass
