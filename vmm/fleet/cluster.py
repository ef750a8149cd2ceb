# SPDX-License-Identifier: GPL-2.0-or-later
"""Dask's part: a cluster, who works in it, and tasks that are done once each although workers are lost.

A task is for one host, and given to one worker of it by address, so that we know whose it was when that worker is gone:
Dask itself would run it anywhere. Imported only by who wants a fleet; `distributed` is loaded here and nowhere else.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import tempfile
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import resource_tracker
from typing import Any

from vmm.base.record import Record, field
from vmm.errors import HostError, UsageError, VmmError
from vmm.fleet import work

EXTRA = "pip install 'pyvmm[fleet]'"
LOOPBACK = "127.0.0.1"
ANY_PORT = f"{LOOPBACK}:0"  # Dask has an HTTP server whatever one says
ANSWER = 30.0
"""Seconds for a scheduler, or a worker, to answer."""
TICK = 0.25  # seconds from one look at who is there to the next
GRACE = 15.0  # seconds that a host without a worker is waited for: a nanny starts another
ATTEMPTS = 4  # of a task; whoever has lost so many workers is what ends them


class Worker(Record):
    """One that works: Dask's address of it, the name of its host (unique in the fleet), and its identity."""

    address: str
    host: str
    identity: dict[str, Any]


class Task(Record):
    """`function(*args, **options)`, for a worker of `host`. `name` is what is shown."""

    host: str
    name: str
    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


class Lost(Record):
    """A worker that went away with a task; `again` whether another one was given it."""

    worker: str
    host: str
    task: str
    again: bool


class Fleet:
    """Workers of one scheduler, all with this pyvmm. Made by `fleet`."""

    def __init__(self, client: Any, say: Callable[[str], object]) -> None:
        self._client, self._say = client, say
        self.workers: dict[str, Worker] = {}
        self.lost: list[Lost] = []
        self._refused: set[str] = set()

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names, in the order of the alphabet."""
        return tuple(sorted({each.host for each in self.workers.values()}))

    def _there(self) -> set[str]:
        """Addresses. HostError: the scheduler went away."""
        try:
            return set(self._client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, KeyError, RuntimeError) as error:  # a client that has lost it knows of nothing
            raise HostError("the scheduler went away", hint="it has to run as long as `pyvmm fleet` does") from error

    def meet(self) -> None:
        """Ask every worker who it is.

        Raises:
            HostError: there is none, or one does not answer.
            UsageError: one has another pyvmm, or none.
        """
        self._client.wait_for_workers(1, timeout=ANSWER)
        wrong = [text for text in map(self._adopt, sorted(self._there())) if text]
        if wrong:
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            raise UsageError(wrong[0] + more, hint="the same pyvmm for every worker, which then is started anew")

    def _adopt(self, address: str) -> str:
        """Let a worker take part; why it cannot, else nothing."""
        future = self._client.submit(work.identity, workers=[address], pure=False)
        try:
            who = future.result(timeout=ANSWER)
        except (TimeoutError, OSError) as error:
            raise HostError(f"worker {address} does not answer") from error
        except Exception as error:  # of whatever kind: it could not call a function of ours
            return f"worker {address}, or its scheduler, has no pyvmm that knows of fleets: {_cause(error)}"
        mine = work.identity()
        if who["version"] != mine["version"]:
            return f"worker {address} on {who['name']} has pyvmm {who['version']}, and this is {mine['version']}"
        if who["files"] != mine["files"]:
            return f"worker {address} on {who['name']} has another pyvmm {who['version']}: its files differ from these"
        self.workers[address] = Worker(address, self._host(who), who)
        return ""

    def _host(self, who: dict[str, Any]) -> str:
        """The host's name; where two have the same one, the second is NAME-2."""
        names: dict[tuple[str, str], str] = {
            (each.identity["name"], each.identity["boot"]): each.host for each in self.workers.values()
        }
        known = names.get((who["name"], who["boot"]))
        same = sum(name == who["name"] for name, _ in names)
        return known or (f"{who['name']}-{same + 1}" if same else who["name"])

    def run(
        self,
        tasks: Sequence[Task],
        done: Callable[[Task, Any], object],
        *,
        deadline: float,
        at_once: int | None = None,
    ) -> list[Task]:
        """Do all tasks, and call `done(task, result)` for each as it comes. `deadline` is of time.monotonic, `at_once`
        how many a host does at a time (None: one a worker). Those that were not done: no time, no worker left.

        Raises:
            HostError: the scheduler went away.
            whatever a task raises.
        """
        return _Round(self, tasks, done, deadline, at_once).run()

    def submit(self, task: Task, worker: str) -> Any:
        """Give it to that worker: Dask's future."""
        return self._client.submit(task.function, *task.args, **task.options, workers=[worker], pure=False)

    def look(self) -> set[str]:
        """Who is there now of those that may take part; new ones are asked who they are."""
        there = self._there()
        for address in sorted(there - self.workers.keys() - self._refused):
            try:
                wrong = self._adopt(address)
            except HostError as error:  # gone again
                wrong = error.text
            if wrong:
                self._refused.add(address)
                self._say(f"{wrong}; it takes no part")
        return there & self.workers.keys()

    def lose(self, worker: Worker, task: Task, *, again: bool) -> None:
        """Note it, and say so."""
        self.lost.append(Lost(worker.address, worker.host, task.name, again))
        then = "the task waits for another one there" if again else f"that was attempt {ATTEMPTS}, and the last"
        self._say(f"worker {worker.address} on {worker.host} was lost in {task.name}; {then}")


class _Round:
    """Tasks on their way."""

    def __init__(
        self,
        fleet: Fleet,
        tasks: Iterable[Task],
        done: Callable[[Task, Any], object],
        deadline: float,
        at_once: int | None,
    ) -> None:
        self._fleet, self._done, self._deadline, self._at_once = fleet, done, deadline, at_once
        self._due: dict[str, deque[Task]] = {}
        for task in tasks:
            self._due.setdefault(task.host, deque()).append(task)
        self._ended = threading.Event()
        self._running: dict[Any, tuple[Task, Worker]] = {}
        self._attempts: Counter[int] = Counter()
        self._alone: dict[str, float] = {}  # host -> since when it has no worker
        self._left: list[Task] = []

    def run(self) -> list[Task]:
        try:
            while self._running or any(self._due.values()):
                if time.monotonic() >= self._deadline:
                    break
                there = self._fleet.look()
                self._collect(there)
                self._give(there)
                self._wait()
        finally:
            for future in self._running:
                with contextlib.suppress(Exception):
                    future.cancel()
        running = [task for task, _ in self._running.values()]
        return [*self._left, *running, *(task for queue in self._due.values() for task in queue)]

    def _wait(self) -> None:
        """Until a task ends, or it is time to look who is there."""
        self._ended.wait(TICK)
        self._ended.clear()

    def _collect(self, there: set[str]) -> None:
        """What is done, and what was lost."""
        from distributed.scheduler import KilledWorker

        for future, (task, worker) in list(self._running.items()):
            if future.status == "finished":
                with contextlib.suppress(KilledWorker):
                    result = future.result(timeout=ANSWER)
                    del self._running[future]
                    self._done(task, result)
                    continue
            if worker.address not in there or future.status in ("lost", "cancelled") or _killed(future, KilledWorker):
                del self._running[future]
                future.cancel()
                self._again(task, worker)
            elif future.status == "error":
                del self._running[future]
                raise _told(task, worker, future.exception(timeout=ANSWER))

    def _again(self, task: Task, worker: Worker) -> None:
        self._attempts[id(task)] += 1
        again = self._attempts[id(task)] < ATTEMPTS
        self._fleet.lose(worker, task, again=again)
        if again:
            self._due[task.host].appendleft(task)
        else:
            self._left.append(task)

    def _give(self, there: set[str]) -> None:
        busy = Counter(worker.host for _, worker in self._running.values())
        taken = {worker.address for _, worker in self._running.values()}
        for host, queue in self._due.items():
            crew = [self._fleet.workers[each] for each in sorted(there) if self._fleet.workers[each].host == host]
            if crew:
                self._alone.pop(host, None)
            elif queue and time.monotonic() - self._alone.setdefault(host, time.monotonic()) > GRACE:
                self._left += queue
                queue.clear()
            for worker in crew:
                if not queue or (self._at_once is not None and busy[host] >= self._at_once):
                    break
                if worker.address not in taken:
                    task = queue.popleft()
                    future = self._fleet.submit(task, worker.address)
                    self._running[future] = (task, worker)
                    future.add_done_callback(lambda _: self._ended.set())
                    busy[host] += 1


def _cause(error: BaseException) -> str:
    """What was wrong at first, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _told(task: Task, worker: Worker, error: BaseException) -> VmmError:
    """A task's own error: what pyvmm says on purpose as it stands."""
    if isinstance(error, VmmError):
        return error
    return HostError(f"{task.name} failed on {worker.host} (worker {worker.address}): {_cause(error)}")


def _killed(future: Any, kind: type[BaseException]) -> bool:
    return future.status == "error" and isinstance(future.exception(timeout=ANSWER), kind)


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """^C of a terminal goes to all processes: those that are started in here, or by a thread that is, never hear it.
    This one hears it at the end.
    """
    resource_tracker.ensure_running()  # whoever starts it lets this thread hear ^C again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def fleet(address: str | None, workers: int, say: Callable[[str], object]) -> Iterator[Fleet]:
    """A fleet: of the scheduler at `address`, or of as many processes on this machine, on loopback alone. `say` is told
    a line where a worker is lost or refused.

    Raises:
        HostError: Dask's distributed is not installed; no scheduler answers, or none has a worker.
        UsageError: a worker has another pyvmm, or none; the address is none.
    """
    try:
        import distributed
    except ImportError as error:
        raise HostError(f"`pyvmm fleet` needs {error.name}, which is not installed", hint=EXTRA) from None
    for name in ("distributed", "distributed.client"):  # what goes wrong is said by us
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        if address is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="pyvmm-fleet-", ignore_cleanup_errors=True))
            try:
                with _unheard():
                    local = distributed.LocalCluster(
                        n_workers=workers, threads_per_worker=1, processes=True, host=LOOPBACK,
                        dashboard_address=ANY_PORT, memory_limit=0, local_directory=folder,
                        silence_logs=logging.CRITICAL,
                    )  # fmt: skip
            except (RuntimeError, OSError) as error:
                raise HostError(f"the local cluster does not start: {_cause(error)}") from error
            address = stack.enter_context(local)
            where = "the local cluster"
        else:
            where = address
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # of versions of what pyvmm does not use; its own is asked for below
        try:
            client = stack.enter_context(distributed.Client(address, timeout=ANSWER, set_as_default=False))
        except ValueError as error:
            raise UsageError(f"--scheduler {where}: {error}", hint="tcp://HOST:8786") from error
        except OSError as error:
            raise HostError(f"no Dask scheduler answers at {where}", hint="`dask scheduler` starts one") from error
        made = Fleet(client, say)
        try:
            made.meet()
        except TimeoutError as error:
            raise HostError(f"the scheduler at {where} has no worker", hint="`dask worker ADDRESS`") from error
        yield made
