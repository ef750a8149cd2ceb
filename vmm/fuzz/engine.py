# SPDX-License-Identifier: GPL-2.0-or-later
"""One process that fuzzes: choose an input, change it, run it; keep it where it reached something new, or broke.

With the same seed, target and corpus it makes the same inputs. What others of the same folder find is taken up by
`sync`. It knows no clock and no other process.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vmm.fuzz.folder import Folder, file_name
from vmm.fuzz.mutate import Mutator
from vmm.fuzz.smaller import smaller
from vmm.fuzz.target import Crash, Seen, Target

TRIMMING = 96
"""Executions that making an input smaller may take, before it is kept."""
WORDS_TRIED = 400
"""Executions that putting the target's words at each place of a new input may take."""
RECENT = 8
"""Half of all inputs are made of one of so many that were kept last: what is new leads on most often."""


class Engine:
    """`about` is what a reproducer says of its target; `files` makes what lies beside it, of the smallest input."""

    def __init__(
        self,
        target: Target,
        folder: Folder,
        seed: str,
        options: dict[str, Any] | None = None,
        files: Callable[[bytes], dict[str, bytes]] | None = None,
        before: Callable[[bytes], object] | None = None,
    ) -> None:
        self.target, self.folder = target, folder
        self._options, self._files, self._before = options or {}, files, before
        self._rng = random.Random(seed)
        self._mutator = Mutator(self._rng, target.words(), target.most, target.row)
        self.corpus: list[bytes] = []
        self.reached: set[int] = set()
        self._fresh: list[Iterator[bytes]] = []  # what is made of new inputs, before anything is left to chance
        self.execs = self.crashed = 0
        self.last_new = 0
        """The number of the execution that reached something new last."""
        self.found: list[Path] = []
        """Reproducers that this process has written."""
        self._known = folder.known()
        self._names: set[str] = set()

    def begin(self) -> None:
        """Run what the folder has, and the target's own seeds."""
        self.sync()
        for data in self.target.seeds():
            self._try(data)
        if not self.corpus:  # all of them crash, or reach nothing
            self.corpus.append(self.target.seeds()[0])

    def sync(self) -> None:
        """Take up what others have put into the folder."""
        for name, data in self.folder.inputs(self._names):
            self._names.add(name)
            self._try(data, kept=True)

    def step(self) -> None:
        """One input."""
        while self._fresh:
            data = next(self._fresh[-1], None)
            if data is not None:
                self._try(data)
                return
            self._fresh.pop()
        rng, corpus = self._rng, self.corpus
        among = corpus[-RECENT:] if rng.random() < 0.5 else corpus
        self._try(self._mutator.made(rng.choice(among), rng.choice(corpus)))

    def _run(self, data: bytes) -> Seen:
        if self._before is not None:
            self._before(data)
        self.execs += 1
        return self.target.run(data)

    def _try(self, data: bytes, kept: bool = False) -> None:
        seen = self._run(data)
        if seen.crash is not None:
            self.crashed += 1
            if file_name(seen.crash.kind) not in self._known:
                self._keep_crash(data, seen.crash)
        elif not self.reached >= seen.reached:
            if not kept and self.target.repeats:
                data = self._trimmed(data, seen.reached - self.reached)
            self.reached |= seen.reached
            self.last_new = self.execs
            self.corpus.append(data)
            if not kept:
                self._fresh.append(self._mutator.each_word(data, WORDS_TRIED))
                self._names.add(self.folder.keep(data))

    def _trimmed(self, data: bytes, new: frozenset[int]) -> bytes:
        """A smaller input that reaches what is new in this one: what is made of it later changes what matters."""

        def same(candidate: bytes) -> bool:
            seen = self._run(candidate)
            return seen.crash is None and new <= seen.reached

        return smaller(data, same, TRIMMING, self.target.row)

    def _keep_crash(self, data: bytes, crash: Crash) -> None:
        self._known.add(file_name(crash.kind))
        if (self.folder.crashes / f"{file_name(crash.kind)}.json").exists():
            return  # another process was first

        def same(candidate: bytes) -> bool:
            met = self._run(candidate).crash
            return met is not None and met.kind == crash.kind

        data = smaller(data, same, row=self.target.row)
        again = self._run(data).crash
        text = self.target.told(data, again or crash)
        if again is None:
            text = f"(it did not happen once more with the same input)\n{text}"
        about = {"target": self.target.name, "kind": crash.kind, "input": data.hex(), "options": self._options}
        files = self._files(data) if self._files is not None else {}
        self.found.append(self.folder.keep_crash(crash.kind, about, text, files))
