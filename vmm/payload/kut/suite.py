# SPDX-License-Identifier: GPL-2.0-or-later
"""Which tests of a file run, by what conditions, and all of them in order, several at a time in processes of their own.

What a test needs is decided before it runs: conditions of the file are skips, what this board or this host lacks is
told by name. It prints nothing.
"""

from __future__ import annotations

import fnmatch
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from vmm.base import names
from vmm.errors import EXIT_CANNOT_SHOW, EXIT_FAIL, EXIT_HOST, EXIT_INTERRUPTED, EXIT_PASS, UsageError
from vmm.payload.kut import shell
from vmm.payload.kut.cfg import ARCH, FILE, MIGRATION, NODEFAULT, PANIC, Entry, read_cfg, seconds
from vmm.payload.kut.child import request
from vmm.payload.kut.one import Ended, from_json
from vmm.payload.kut.settings import Settings, settings_of
from vmm.payload.kut.verdict import FAILURES, State

DEFAULT_TIMEOUT = 90.0  # of kvm-unit-tests' scripts
GRACE = 20.0  # a process gets so much longer than its guest: to start, to end and to look at what is left
STDERR_LINES = 3


@dataclass(frozen=True)
class Test:
    """A test that is meant to run, with all that its run needs; `ended` where it is decided already. `words` are its
    parameters as QEMU would get them.
    """

    entry: Entry
    image: Path
    settings: Settings
    timeout: float | None
    words: tuple[str, ...] = ()
    ended: Ended | None = None

    __test__ = False  # pytest takes a class of this name for one of tests

    @property
    def name(self) -> str:
        return self.entry.name


@dataclass(frozen=True)
class Done:
    """A test, and what became of it; `qemu` is that in QEMU, where that was asked for."""

    test: Test
    ended: Ended
    qemu: Ended | None = None


@dataclass
class Suite:
    """All tests that were chosen, and those that are done, in the order of the file."""

    folder: Path
    tests: tuple[Test, ...]
    done: list[Done] = field(default_factory=list)
    interrupted: bool = False
    elapsed: float = 0.0

    @property
    def counts(self) -> dict[str, int]:
        """How many of each state, in State's order; only those that there are."""
        found = Counter(done.ended.state for done in self.done)
        return {str(state): found[state] for state in State if found[state]}

    @property
    def missing(self) -> list[str]:
        """Names of tests that did not come to their end."""
        there = {done.test.name for done in self.done}
        return [test.name for test in self.tests if test.name not in there]

    @property
    def exit_code(self) -> int:
        """0: something passed, and nothing failed. 1: a test failed, crashed, or was not done in time. 77: nothing
        could be shown here. 99: pyvmm itself failed. 130: interrupted.
        """
        states = {done.ended.state for done in self.done}
        if self.interrupted:
            return EXIT_INTERRUPTED
        if State.ERROR in states:
            return EXIT_HOST
        if states & FAILURES:
            return EXIT_FAIL
        return EXIT_PASS if State.PASS in states else EXIT_CANNOT_SHOW


def find_cfg(folder: Path) -> Path:
    """The file in this folder, or in its x86/, as in kvm-unit-tests' own tree.

    Raises:
        UsageError: there is none.
    """
    for place in (folder, folder / "x86"):
        if (place / FILE).is_file():
            return place / FILE
    what = "no such folder" if not folder.is_dir() else f"no {FILE} in it"
    raise UsageError(f"{folder}: {what}", hint="the folder with the images of kvm-unit-tests, or --cfg FILE")


def images_in(folder: Path) -> Path:
    """Where the images are, if somebody else's file names them: this folder, or its x86/ where only that has some."""
    below = folder / "x86"
    return below if not any(folder.glob("*.flat")) and any(below.glob("*.flat")) else folder


def load(cfg: Path) -> tuple[Entry, ...]:
    """Its tests.

    Raises:
        UsageError: it cannot be read, or is not one.
    """
    try:
        return read_cfg(cfg.read_text(encoding="utf-8"), str(cfg))
    except OSError as error:
        raise UsageError(f"{cfg}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{cfg}: it is no text: {error.reason} at byte {error.start}") from error


def select(entries: Sequence[Entry], wanted: Sequence[str], groups: Sequence[str]) -> list[Entry]:
    """Those whose names fit one of `wanted` (names, or patterns with *) and that are in one of `groups`; empty is any.

    Raises:
        UsageError: a name or a group that fits none.
    """
    known = [entry.name for entry in entries]
    for each in wanted:
        if not fnmatch.filter(known, each):
            raise UsageError(names.unknown("test", each, known))
    there = sorted({group for entry in entries for group in entry.groups})
    for each in groups:
        if each not in there:
            raise UsageError(names.unknown("group", each, there))
    return [
        entry
        for entry in entries
        if (not wanted or any(fnmatch.fnmatchcase(entry.name, each) for each in wanted))
        and (not groups or set(groups) & set(entry.groups))
    ]


def prepare(
    entry: Entry,
    folder: Path,
    *,
    limit: float | None = None,
    named: bool = False,
    env: Path | None = None,
    arch: str = ARCH,
) -> Test:
    """What the test needs, and whether that is there. `limit` wins over the file's timeout; `named` runs what is meant
    to be run by hand; `env` is a file with the test's environment, handed over as its initrd; `arch` is what the images
    were built for.

    Raises:
        UsageError: a value of the file is none.
    """
    where = f"test {entry.name!r}"
    usual = seconds(entry.timeout, where) if entry.timeout else DEFAULT_TIMEOUT
    timeout = limit if limit is not None else usual or None
    variables = {"MAX_SMP": str(usable_cpus())} | dict(os.environ)
    image = folder / entry.file
    try:
        words = tuple(shell.words(entry.params, variables, lambda: int(time.time())))
        args = " ".join(shell.words(entry.args, variables, lambda: int(time.time())))
        smp = "".join(shell.words(entry.smp or "1", variables, lambda: 0))
    except shell.NoWords as error:
        return Test(entry, image, Settings(), timeout, ended=Ended(State.CANNOT, str(error), notes=list(entry.notes)))
    words = ("-smp", smp, *words)
    settings = settings_of(words, args=args)
    settings.notes[:0] = entry.notes
    if env is not None and not settings.initrd:
        settings.initrd = str(env)
    return Test(entry, image, settings, timeout, words, _decided(entry, image, settings, named=named, arch=arch))


def _decided(entry: Entry, image: Path, settings: Settings, *, named: bool, arch: str) -> Ended | None:
    """What is known of a test before it runs."""

    def told(state: State, reason: str) -> Ended:
        return Ended(state, reason, notes=list(settings.notes))

    if entry.arch and entry.arch != arch:
        return told(State.SKIP, f"for {entry.arch} only")
    if NODEFAULT in entry.groups and not named:
        return told(State.SKIP, "in group nodefault: name it, or its group, to run it")
    if entry.accel and entry.accel != "kvm":
        return told(State.SKIP, f"for {entry.accel} only")
    for path, value in entry.checks:
        try:
            found = Path(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError as error:
            return told(State.SKIP, f"{path} is not {value}: {error.strerror}")
        if found != value:
            return told(State.SKIP, f"{path} is {found or 'empty'}, and not {value}")
    for group in (MIGRATION, PANIC):
        if group in entry.groups:
            return told(State.CANNOT, f"a test of group {group} needs services of QEMU's")
    if settings.obstacles:
        return told(State.CANNOT, "; ".join(settings.obstacles))
    if not image.is_file():
        return told(State.CANNOT, f"there is no image {image}")
    return None


def usable_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


class Runner:
    """Runs a suite's tests, `jobs` at a time. `beside(test)` also runs each otherwise (QEMU), right after its own."""

    def __init__(self, suite: Suite, *, jobs: int = 1, beside: Callable[[Test], Ended] | None = None) -> None:
        self.suite, self.jobs, self.beside = suite, jobs, beside
        self.on_start: Callable[[str], object] = _nobody
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._over = False

    def __iter__(self) -> Iterator[Done]:
        """Each as it is done, in the file's order. ^C ends those that run, and is raised."""
        begun = time.monotonic()
        pool = ThreadPoolExecutor(self.jobs, "kut")
        try:
            for future in [pool.submit(self._run, test) for test in self.suite.tests]:
                done = future.result()
                self.suite.done.append(done)
                yield done
        except BaseException:
            self.suite.interrupted = True
            self._end_all()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
            self.suite.elapsed = time.monotonic() - begun

    def _run(self, test: Test) -> Done:
        if test.ended is not None:
            return Done(test, test.ended, self._beside(test))
        self.on_start(test.name)
        return Done(test, self._in_child(test), self._beside(test))

    def _beside(self, test: Test) -> Ended | None:
        asked = self.beside is not None and not self._over and test.image.is_file()
        skipped = test.ended is not None and test.ended.state is State.SKIP
        return self.beside(test) if asked and not skipped and self.beside is not None else None

    def _in_child(self, test: Test) -> Ended:
        limit = None if test.timeout is None else test.timeout + GRACE
        with self._lock:
            if self._over:
                return Ended(State.ERROR, "interrupted before it ran")
            child = subprocess.Popen(
                [sys.executable, "-m", "vmm.payload.kut.child"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
                start_new_session=True,
            )  # fmt: skip
            self._children.add(child)
        try:
            out, err = child.communicate(request(test.settings, test.image, test.timeout), limit)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return Ended(
                State.ERROR,
                f"its process did not end {GRACE:.0f} s after its time limit",
                notes=list(test.settings.notes),
            )
        finally:
            with self._lock:
                self._children.discard(child)
        return answer(child.returncode, out, err)

    def _end_all(self) -> None:
        with self._lock:
            self._over = True
            for child in self._children:
                child.kill()


def answer(status: int, out: str, err: str) -> Ended:
    """What a child said; an error of pyvmm's own where it said nothing."""
    import json

    try:
        return from_json(json.loads(out))
    except (ValueError, TypeError, KeyError):
        last = " / ".join(err.strip().splitlines()[-STDERR_LINES:]) or "it said nothing"
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return Ended(State.ERROR, f"its process ended with {how}: {last}")


def _nobody(_name: str) -> None:
    """Nobody wants to know."""
