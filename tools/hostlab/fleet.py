# SPDX-License-Identifier: GPL-2.0-or-later
"""The step `fleet` from outside: a Dask scheduler on this machine's loopback, a worker of this machine, and `pyvmm
fleet probe` of all that came: first as it is, then with a worker of one host that is killed while it has a task, then
with a host whose emulator is.

The hosts are workers by steps/fleet.sh; what is concluded is laid beside what each hands back, as its list of checks.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vmm.payload.proof.probe import select

from . import expected, judge, parcel, qemu, store, tools
from .errors import LabError, Stopped
from .hosts import Host
from .progress import Say

STEP = "fleet"
WORKERS = 2  # of each host: where one is lost, the other has its task
HERE = "here"  # the name of this machine's worker
CHECKS = "fleet.json"
# Rows that differ between hosts, and cost little: an emulated CPU is asked twice.
ASKED = ("CLOCKSOURCE", "STEAL_TIME", "PV_EOI", "MIGRATION_CONTROL", "irqfd")
PROOF = "proven-"  # Dask's name of a task begins with that of its function: vmm.fleet.work.proven
LIMIT = 600.0  # seconds for one `pyvmm fleet probe`
TICK = 0.1
NO_WORKER = 99  # pyvmm's status where a host was lost
ENVIRONMENT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "120s", "DASK_LOGGING__DISTRIBUTED": "warning"}


def check(hosts: Sequence[Host], at_once: int) -> None:
    """Raises: LabError, where the step cannot be done as it was asked for."""
    crew = [host for host in hosts if STEP in host.steps]
    if not crew:
        return
    if any(host.emulator != "qemu" for host in crew):
        raise LabError("fleet: a VMX host of the lab has no network card", hint="HOSTS of kind svm alone")
    if len(crew) < len(hosts) or any(host.steps != (STEP,) for host in crew):
        raise LabError(
            "fleet: hosts wait for each other there, so that this step is the only one", hint="HOSTS_ONLY=fleet"
        )
    if len(crew) > at_once:
        raise LabError(f"fleet: {len(crew)} hosts have to run at once", hint=f"HOSTS_AT_ONCE={len(crew)}")
    if importlib.util.find_spec("distributed") is None:
        raise LabError("fleet: Dask's distributed is not installed", hint="pip install 'pyvmm[fleet]'")


@dataclass
class Member:
    """A host of the crew. `ports` are its workers', in the host and outside."""

    crew: Crew
    host: Host
    room: Path
    ports: tuple[int, ...]
    pid: int = 0
    killed: bool = False
    checks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def parameters(self) -> dict[str, str]:
        """What steps/fleet.sh reads."""
        return {"NAME": self.host.name, "SCHEDULER": str(self.crew.port), "WORKERS": " ".join(map(str, self.ports))}

    @property
    def workers(self) -> tuple[str, ...]:
        """Their names, as Dask has them."""
        return tuple(f"{self.host.name}/{port}" for port in self.ports)

    def began(self, pid: int) -> None:
        """Its emulator is this process."""
        self.pid = pid

    def kill(self) -> None:
        """End the emulator, so that the host says no word more."""
        self.killed = True
        os.kill(self.pid, signal.SIGKILL)

    def see(self, what: str, ok: bool, seen: object) -> None:
        """Note a check; `seen` is the evidence."""
        self.checks.append({"what": what, "ok": ok, "seen": seen if isinstance(seen, str) else json.dumps(seen)})

    def left(self, failed: list[str]) -> list[str]:
        """Its emulator has ended with these troubles; those that are one, once all was concluded."""
        if not self.killed:
            self.crew.fewer()
        self.crew.wait()
        return [] if self.killed else failed


class Crew:
    """The hosts of the step, and what is asked of them. Made by `crew`."""

    def __init__(self, count: int, port: int, say: Say, ask: Callable[..., tuple[int, Any]]) -> None:
        self.port, self._say, self._ask = port, say, ask
        self._count, self._lock, self._done = count, threading.Lock(), threading.Event()
        self.members: dict[str, Member] = {}

    @property
    def address(self) -> str:
        """Dask's, of the scheduler as this machine reaches it."""
        return f"tcp://{qemu.LOOPBACK}:{self.port}"

    def join(self, host: Host, room: Path) -> Member:
        """A host that will be started."""
        with self._lock:
            ports = tuple(free_port() for _ in range(WORKERS))
            return self.members.setdefault(host.name, Member(self, host, room, ports))

    def fewer(self) -> None:
        """One does not come, or has gone."""
        with self._lock:
            self._count -= 1

    def wait(self) -> None:
        """Until all is concluded and written. Raises: Stopped."""
        while not self._done.wait(TICK):
            if tools.stopping.is_set():
                raise Stopped

    def conduct(self, end: Callable[[], object]) -> None:
        """The whole story; `end` ends the scheduler, and with it the step in each host. For a thread of its own."""
        try:
            self._story()
        except Stopped:
            pass
        except Exception as error:  # of whatever kind: the hosts' reports have to say it
            why = f"{type(error).__name__}: {error}"
            self._say(why)
            for member in self.members.values():
                member.see("it comes to its end", False, why)
        finally:
            for member in self.members.values():
                (member.room / CHECKS).write_text(json.dumps({"checks": member.checks}, indent=1) + "\n")
            end()
            self._done.set()

    def _story(self) -> None:
        import distributed

        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with distributed.Client(self.address, timeout=60, set_as_default=False) as client:
                workers = self._gather(client)
                if not workers:
                    return
                self._say(f"{len(workers)} workers: {', '.join(sorted(workers))}")
                status, document = self._ask("probe")
                for member in self.members.values():
                    of_matrix(member, status, document)
                crew = [member for _, member in sorted(self.members.items()) if workers.keys() >= {*member.workers}]
                first, last = crew[0], crew[-1]

                def kill_worker(address: str) -> None:  # it has no time to answer
                    (pid,) = client.run(os.getpid, workers=[address]).values()
                    client.run(os.kill, pid, signal.SIGKILL, workers=[address], on_error="ignore")

                status, document = self._ask("again", self._in_proof(client, workers, first, kill_worker))
                for member in self.members.values():
                    of_another(member, first, status, document)
                status, document = self._ask("lost", self._in_proof(client, workers, last, lambda _: last.kill()))
                for member in self.members.values():
                    of_loss(member, last, status, document)

    def _gather(self, client: Any) -> dict[str, str]:
        """The address of each worker by its name, when all are there that will be; none, when no host will be.

        Raises:
            Stopped: the lab is being ended.
        """
        while True:
            there = client.scheduler_info(n_workers=-1)["workers"]
            named = {str(about["name"]): address for address, about in there.items()}
            with self._lock:
                if self._count <= 0:
                    return {}
                ready = [each for each in self.members.values() if named.keys() >= {*each.workers}]
                if HERE in named and len(ready) >= self._count:
                    return named
            if tools.stopping.wait(1.0):
                raise Stopped

    def _in_proof(
        self, client: Any, workers: Mapping[str, str], member: Member, then: Callable[[str], object]
    ) -> Callable[[subprocess.Popen[bytes]], None]:
        """What is to be done beside a process of `pyvmm fleet`: `then`, with the address of a worker of this host, as
        soon as one has a proof to do.
        """
        addresses = [workers[name] for name in member.workers]

        def watch(process: subprocess.Popen[bytes]) -> None:
            while process.poll() is None:
                for address, keys in client.processing().items():  # asked for one that is gone it fails
                    held = [str(key) for key in keys if str(key).startswith(PROOF)]
                    if held and address in addresses:
                        self._say(f"{address} on {member.host.name} has {held[0]}, and is killed")
                        then(address)
                        return
                if tools.stopping.wait(TICK):
                    raise Stopped

        return watch


def judged(host: Host, document: Mapping[str, Any]) -> list[str]:
    """What of the asked rows is not as expected of the host; a row that is missing is."""
    rows = {target.name for target in select(ASKED, api=True)}
    wanted = expected.of(host)
    asked = replace(
        wanted,
        features={name: each for name, each in wanted.features.items() if name in rows},
        topics={name: each for name, each in wanted.topics.items() if name in rows},
    )
    return judge.differences(asked, document)


def of_matrix(member: Member, status: int, document: Mapping[str, Any]) -> None:
    """What all of them said, as one matrix: is this host in it, with the verdicts that it should have?"""
    name = member.host.name
    columns = [host["name"] for host in document["matrix"]["hosts"]]
    others = {each.host.name for each in member.crew.members.values()}
    ok = name in columns and others <= {*columns} and len(columns) == len(others) + 1
    member.see("the matrix has a column for each host, and one for this machine", ok, columns)
    lines = judged(member.host, document["probes"][name]) if name in document["probes"] else ["no row"]
    member.see("its rows are the expected ones", not lines, lines or verdicts(document, name))
    nothing = [*document["lost"], *document["not_done"], *document["unusable"]]
    member.see("nobody was lost, and all was done", status == 0 and not nothing, [status, *nothing])


def of_another(member: Member, struck: Member, status: int, document: Mapping[str, Any]) -> None:
    """The same with one of two workers of a host that was killed: its task is done by the other one."""
    name = member.host.name
    if member is struck:
        lost = [each for each in document["lost"] if each["host"] == name and each["again"]]
        member.see("a worker that is killed in a task is named, once", len(lost) == 1, document["lost"])
    lines = judged(member.host, document["probes"][name]) if name in document["probes"] else ["no row"]
    member.see(f"its rows are the expected ones, though a worker of {struck.host.name} was killed", not lines, lines)
    done = status == 0 and not document["not_done"]
    member.see("all was done, though a worker was killed", done, [status, *document["not_done"]])


def of_loss(member: Member, victim: Member, status: int, document: Mapping[str, Any]) -> None:
    """The same with one that was killed: whose task it was is said, and the rows of the rest are whole."""
    name, dead = member.host.name, victim.host.name
    tasks = [each["task"] for each in document["lost"] if each["host"] == dead]
    left = [each["task"] for each in document["not_done"] if each["host"] == dead]
    if member is victim:
        member.see("it is killed while it has a task", member.killed, member.killed)
        member.see("its worker is named as lost, in that task", bool(tasks) and len(set(tasks)) == 1, document["lost"])
        member.see("what it did not do is named, that task too", bool(tasks) and {*tasks} <= {*left}, left)
        member.see("the status says that a host was lost", status == NO_WORKER, str(status))
    else:
        lines = judged(member.host, document["probes"][name]) if name in document["probes"] else ["no row"]
        member.see(f"its rows are the expected ones, though {dead} was killed", not lines, lines)
    rest = {other: each["not_run"] for other, each in document["probes"].items() if other != dead}
    others = {each.host.name for each in member.crew.members.values()} - {dead}
    whole = others <= rest.keys() and len(rest) == len(others) + 1 and not any(rest.values())
    member.see("nothing is missing of the others, and of this machine", whole, rest)


def verdicts(document: Mapping[str, Any], name: str) -> dict[str, str]:
    """Of the host of this name, by row."""
    at = [host["name"] for host in document["matrix"]["hosts"]].index(name)
    return {row["name"]: row["cells"][at]["state"] for row in document["matrix"]["rows"]}


def free_port() -> int:
    """One of this machine's loopback that nobody has now."""
    with socket.socket() as asked:
        asked.bind((qemu.LOOPBACK, 0))
        port: int = asked.getsockname()[1]
        return port


@contextlib.contextmanager
def crew(count: int, out: Path, patience: float, say: Say) -> Iterator[Crew]:
    """A crew of so many hosts, which will join. Scheduler and this machine's worker run with the wheel, as the hosts
    do, so that all have one pyvmm. What `pyvmm fleet` says goes below `out`.

    Raises:
        LabError: something is missing here, or failed.
    """
    room = out / STEP
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(store.scratch(STEP))
        parcel.install(work / "installed", "--no-deps", parcel.wheel())
        env = {**ENVIRONMENT, "PYTHONPATH": str(work / "installed")}
        log = stack.enter_context((room / "dask.txt").open("wb"))
        port = free_port()
        address = f"tcp://{qemu.LOOPBACK}:{port}"

        def ask(name: str, meanwhile: Callable[[subprocess.Popen[bytes]], object] | None = None) -> tuple[int, Any]:
            words = ["-m", "vmm", "fleet", "probe", *ASKED, "--api", "--json", "--scheduler", address]
            words += ["--timeout", f"{LIMIT * patience:g}"]
            file = room / f"{name}.json"
            with (
                file.open("wb") as output,
                (room / f"{name}.txt").open("wb") as errors,
                tools.started([sys.executable, *words], output=output, errors=errors, cwd=work, env=env) as process,
            ):
                if meanwhile:
                    meanwhile(process)
                status = tools.waited(process, (LIMIT + 60) * patience)
            say(f"pyvmm {' '.join(words[2:-2])}: status {status}")
            if status is None or not file.stat().st_size:
                raise LabError((room / f"{name}.txt").read_text(errors="replace").strip() or "pyvmm fleet said nothing")
            return status, json.loads(file.read_text())

        made = Crew(count, port, say, ask)
        dask = [sys.executable, "-m", "dask"]
        scheduler = stack.enter_context(contextlib.ExitStack())
        own = ["scheduler", "--host", qemu.LOOPBACK, "--port", str(port), "--no-dashboard"]
        own += ["--dashboard-address", f"{qemu.LOOPBACK}:0"]  # Dask has an HTTP server whatever one says
        scheduler.enter_context(tools.started([*dask, *own], output=log, cwd=work, env=env))
        worker = ["worker", address, "--name", HERE, "--nthreads", "1", "--no-nanny", "--memory-limit", "0"]
        worker += ["--host", qemu.LOOPBACK, "--no-dashboard", "--local-directory", str(work)]
        stack.enter_context(tools.started([*dask, *worker], output=log, cwd=work, env=env))
        thread = threading.Thread(target=made.conduct, args=(scheduler.close,))
        thread.start()
        try:
            yield made
        finally:
            tools.stop()
            thread.join()
