# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that competes for a CPU: it runs there, takes time, and is gone afterwards whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vmm.errors import MissingCapability
from vmm.host import schedstat
from vmm.host.hog import LIFETIME, Hog, any_cpu, pinned

NO_CPU = 8191


def ended(pid: int) -> bool:
    """Gone, or a zombie that whoever inherited it has not reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(condition, seconds: float = 20.0) -> bool:
    limit = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit:
            return False
        time.sleep(0.005)
    return True


def test_it_runs_on_its_cpu_and_takes_time() -> None:
    cpu = any_cpu()
    with Hog(cpu) as hog:
        assert hog.pid is not None
        assert os.sched_getaffinity(hog.pid) == {cpu}
        first = hog.on_cpu
        assert until(lambda: hog.on_cpu > first + 5_000_000)
        pid, begin = hog.pid, time.monotonic()
    assert time.monotonic() - begin < LIFETIME / 2  # it was ended, and did not end by itself
    assert ended(pid)
    assert hog.pid is None
    assert hog.on_cpu > first


def test_it_is_gone_when_the_body_raises() -> None:
    pids = []

    def body() -> None:
        with Hog(any_cpu()) as hog:
            pids.append(hog.pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert ended(pids[0])


def test_it_may_have_ended_by_itself() -> None:
    with Hog(any_cpu()) as hog:
        assert until(lambda: hog.on_cpu > 0)
        os.kill(hog.pid, signal.SIGKILL)
        assert until(lambda: hog._process.poll() is not None)
        assert hog.on_cpu > 0  # as far as it was known


def test_it_ends_with_its_parent() -> None:
    program = (
        "import sys, time\n"
        "from vmm.host.hog import Hog, any_cpu\n"
        "with Hog(any_cpu()) as hog:\n"
        "    print(hog.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    try:
        pid = int(parent.stdout.readline())
        assert not ended(pid)
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()
    assert until(lambda: ended(pid), 5)


def test_it_needs_a_cpu_that_exists() -> None:
    with pytest.raises(MissingCapability, match="ended at once"), Hog(NO_CPU):
        pass


def test_it_needs_a_python_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(MissingCapability, match="starting a process"), Hog(any_cpu()):
        pass
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(MissingCapability, match="does not know its path"), Hog(any_cpu()):
        pass


def test_pinning_is_taken_back() -> None:
    before = os.sched_getaffinity(0)
    cpu = any_cpu()
    with pinned(cpu):
        assert os.sched_getaffinity(0) == {cpu}
    assert os.sched_getaffinity(0) == before
    with pytest.raises(ZeroDivisionError), pinned(cpu):
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before


def test_pinning_leaves_other_threads_alone() -> None:
    before, seen, go, done = os.sched_getaffinity(0), [], threading.Event(), threading.Event()

    def other() -> None:
        go.wait(20)
        seen.append(os.sched_getaffinity(0))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()
    with pinned(any_cpu()):
        go.set()
        assert done.wait(20)
    thread.join()
    assert seen == [before]


def test_pinning_to_no_cpu_is_named() -> None:
    before = os.sched_getaffinity(0)
    with pytest.raises(MissingCapability, match=f"CPU {NO_CPU}"), pinned(NO_CPU):
        pass
    assert os.sched_getaffinity(0) == before


def test_schedstat_of_this_thread_and_process() -> None:
    tid = threading.get_native_id()
    first = schedstat.of_thread(tid)
    assert until(lambda: schedstat.of_thread(tid).on_cpu > first.on_cpu)
    assert schedstat.of_thread(tid).run_delay >= first.run_delay
    assert schedstat.of_process(os.getpid()).slices > 0


def test_schedstat_of_nobody_is_named() -> None:
    with pytest.raises(MissingCapability, match="how long a thread waited"):
        schedstat.of_thread(0)


def test_a_thread_that_waits_is_asleep_and_one_that_works_is_not() -> None:
    tids, leave, work = {}, threading.Event(), threading.Event()

    def waits() -> None:
        tids["waits"] = threading.get_native_id()
        leave.wait()

    def works() -> None:
        tids["works"] = threading.get_native_id()
        while not work.is_set():
            sum(range(1000))

    threads = [threading.Thread(target=each) for each in (waits, works)]
    for thread in threads:
        thread.start()
    try:
        assert until(lambda: len(tids) == 2 and schedstat.asleep(tids["waits"]))
        assert until(lambda: not schedstat.asleep(tids["works"]))
    finally:
        leave.set()
        work.set()
        for thread in threads:
            thread.join()
    with pytest.raises(MissingCapability, match="/proc/self/task/0/stat"):
        schedstat.asleep(0)
