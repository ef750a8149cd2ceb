# SPDX-License-Identifier: GPL-2.0-or-later
"""Fuzzing on every worker of a fleet, in rounds: each has seeds of its own, and after a round all have what one found.

A round is a process of `pyvmm fuzz` beside the worker: an input that ends it or hangs is that command's to see.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmm.base.record import Record, replace
from vmm.errors import HostError, UsageError, os_reason
from vmm.fleet.cluster import Fleet, Task
from vmm.fuzz.folder import Folder
from vmm.fuzz.targets.asked import asked
from vmm.fuzz.targets.catalog import SHIPPED

ROUND = 10.0  # seconds
PATIENCE = 60.0  # seconds that a round may take longer: its start, what it is making small at its end
ROOT = Path(__file__).resolve().parents[2]


class Fuzzed(Record):
    """Of all workers and rounds together: `execs` inputs were run, of which `crashed` crashed, in known ways too.
    `inputs` and `kinds` are new in the folder; `reached` is the most of any worker. `left` rounds were not done.
    """

    rounds: int = 0
    execs: int = 0
    crashed: int = 0
    reached: int = 0
    inputs: int = 0
    kinds: tuple[str, ...] = ()
    left: int = 0


def folder_of(word: str, path: str | None) -> tuple[Folder, str]:
    """(where corpus and crashes are kept here, the text of a target of one's own). It is made where it is not there.

    Raises:
        UsageError: no such target; it cannot be read; the folder is another target's.
    """
    if not word.endswith(".py") and word not in SHIPPED:
        raise UsageError(
            f"{word}: a fleet fuzzes a target that comes with pyvmm, or a Python file with a function device()",
            hint="`pyvmm fuzz --list`",
        )
    text = ""
    if word not in SHIPPED:
        try:
            text = Path(word).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UsageError(f"reading {word!r}: {os_reason(error)}") from error
    return Folder(Path(path or f"fuzz-{Path(word).stem}"), asked(word, {}).name), text


def fuzz(
    fleet: Fleet,
    word: str,
    text: str,
    folder: Folder,
    *,
    seed: int,
    seconds: float,
    progress: Callable[[Fuzzed], object],
) -> Fuzzed:
    """Fuzz for so many seconds, a round on every worker at a time; `progress` is told after each. Worker number n of
    round r has a seed that is made of `seed`, r and n, so that no two do the same.

    Raises:
        HostError: the scheduler went away, or a round failed.
    """
    until, total = time.monotonic() + seconds, Fuzzed()
    while (left := until - time.monotonic()) > 0:
        given = dict(folder.inputs())
        known = folder.known()
        workers = [fleet.workers[each] for each in sorted(fleet.look())]
        if not workers and not total.rounds:
            raise HostError("no worker is left")
        tasks = [
            Task(
                worker.host,
                f"round {total.rounds + 1}, seed {(number := seed + total.rounds * 1000 + index)}",
                one_round,
                (Path(word).name if text else word, text, number, min(ROUND, left), given),
            )
            for index, worker in enumerate(workers)
        ]
        results: list[dict[str, Any]] = []
        missed = fleet.run(tasks, _into(results), deadline=until + ROUND + PATIENCE)
        for result in results:
            total = _merged(folder, total, result, known)
        total = replace(total, rounds=total.rounds + 1, left=total.left + len(missed))
        progress(total)
        if missed or not workers:
            break
    return total


def _into(results: list[dict[str, Any]]) -> Callable[[Task, dict[str, Any]], object]:
    return lambda _task, result: results.append(result)


def _merged(folder: Folder, total: Fuzzed, result: dict[str, Any], known: set[str]) -> Fuzzed:
    """What one round found is in the folder, too. A kind of crash that is there stays as it is."""
    there = {name for name, _ in folder.inputs()}
    fresh = {folder.keep(data) for data in result["inputs"]} - there
    kinds = list(total.kinds)
    for kind, files in result["crashes"].items():
        if kind in known or kind in kinds:
            continue
        about = json.loads(files.pop(".json")) | {"target": folder.target}
        report = files.pop(".txt", b"").decode("utf-8", "replace")
        folder.keep_crash(kind, about, report, files)
        kinds.append(kind)
    return replace(
        total,
        execs=total.execs + result["execs"],
        crashed=total.crashed + result["crashed"] + result["lost"],
        reached=max(total.reached, result["reached"]),
        inputs=total.inputs + len(fresh),
        kinds=tuple(kinds),
    )


def one_round(word: str, text: str, seed: int, seconds: float, given: dict[str, bytes]) -> dict[str, Any]:
    """On a worker: `pyvmm fuzz` with these inputs to begin with; its numbers, the inputs that it has more, and by kind
    the files of its crashes (suffix to bytes). HostError: it failed.
    """
    with tempfile.TemporaryDirectory(prefix="pyvmm-fuzz-") as name:
        here = Path(name)
        target = word
        if text:
            target = str(here / word)
            Path(target).write_text(text, encoding="utf-8")
        folder = Folder(here / "folder", asked(target, {}).name)
        for data in given.values():
            folder.keep(data)
        command = [
            sys.executable, "-P", "-m", "vmm", "fuzz", target, "--corpus", str(folder.path),
            "--seconds", f"{seconds:g}", "--seed", str(seed), "--json",
        ]  # fmt: skip
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds + PATIENCE, check=False,
                env=os.environ | {"PYTHONPATH": paths},
            )  # fmt: skip
            said = json.loads(done.stdout)
        except subprocess.TimeoutExpired as error:
            raise HostError(f"fuzzing {word} with seed {seed} did not end in time") from error
        except ValueError as error:
            words = done.stderr.decode(errors="replace").strip().splitlines() or ["no word"]
            raise HostError(f"fuzzing {word} with seed {seed} failed: {words[-1]}") from error
        crashes: dict[str, dict[str, bytes]] = {}
        for kind in folder.known():
            crashes[kind] = {
                path.name.removeprefix(kind): path.read_bytes()
                for path in folder.crashes.iterdir()
                if path.name.startswith(f"{kind}.")
            }
        return {
            **{key: said[key] for key in ("execs", "crashed", "lost", "reached")},
            "inputs": [data for _, data in folder.inputs(set(given))],
            "crashes": crashes,
        }
