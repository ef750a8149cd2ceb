# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of one target: `corpus/` with each input that reached something new, `crashes/` with what broke it.

Several processes share one. A file is written under another name first and then renamed, so that nobody reads half of
it; a corpus file is named by its content. It knows no target and no mutation.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vmm.errors import UsageError, os_reason

MAX_INPUT = 1 << 20
SCHEMA = 1


class Folder:
    """Made where it is not there.

    Raises:
        UsageError: it cannot be made or written, or is of another target.
    """

    def __init__(self, path: Path, target: str) -> None:
        self.path, self.target = path, target
        self.corpus, self.crashes = path / "corpus", path / "crashes"
        self._made = [each for each in (self.corpus, self.crashes, path, *path.parents) if not os.path.lexists(each)]
        try:
            for each in (self.corpus, self.crashes):
                each.mkdir(parents=True, exist_ok=True)
            mark = path / "target"
            if mark.exists() and mark.read_text(encoding="utf-8", errors="replace").strip() != target:
                raise UsageError(
                    f"{path} is the folder of another target, {mark.read_text().strip()}",
                    hint="another --corpus DIR, one for each target",
                )
            mark.write_text(target + "\n", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--corpus {path}: {os_reason(error)}") from error

    def give_up(self) -> None:
        """Take away what was made here, where nothing has come into it: who was refused leaves nothing behind."""
        with contextlib.suppress(OSError):  # somebody has put something there
            for each in self._made:
                if each == self.path:
                    (self.path / "target").unlink(missing_ok=True)
                each.rmdir()
        self._made = []

    def inputs(self, but: set[str] | None = None) -> Iterator[tuple[str, bytes]]:
        """(name, bytes) of every input, by name, but those."""
        for name in sorted(each.name for each in self.corpus.iterdir()):
            if (but is None or name not in but) and not name.startswith("."):
                with (self.corpus / name).open("rb") as file:
                    yield name, file.read(MAX_INPUT)

    def keep(self, data: bytes) -> str:
        """Into the corpus; its name."""
        name = hashlib.sha256(data).hexdigest()[:16]
        if not (self.corpus / name).exists():
            _put(self.corpus / name, data)
        return name

    def known(self) -> set[str]:
        """The kinds of crashes that are kept."""
        return {each.stem for each in self.crashes.glob("*.json")}

    def keep_crash(self, kind: str, about: dict[str, Any], text: str, files: dict[str, bytes]) -> Path:
        """The reproducer, with its post-mortem and other files (suffix to bytes) beside it; its path."""
        name = file_name(kind)
        for suffix, data in (files | {".txt": text.encode("utf-8", "replace")}).items():
            _put(self.crashes / f"{name}{suffix}", data)
        path = self.crashes / f"{name}.json"
        _put(path, json.dumps({"schema": SCHEMA} | about, indent=2).encode() + b"\n")  # last: now it is there
        return path


def file_name(kind: str) -> str:
    """A kind of crash as a file's name."""
    return re.sub(r"[^\w.+-]+", "-", kind).strip("-.")[:100] or "crash"


def _put(path: Path, data: bytes) -> None:
    half = path.with_name(f".{path.name}.{os.getpid()}")
    half.write_bytes(data)
    half.replace(path)


def read_crash(path: Path) -> dict[str, Any]:
    """What `keep_crash` wrote, with `input` as bytes.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(4 * MAX_INPUT))
        if found["schema"] != SCHEMA:
            raise UsageError(f"{path}: a crash of schema {found['schema']!r:.40}; this pyvmm reads schema {SCHEMA}")
        return {
            "target": str(found["target"]),
            "kind": str(found["kind"]),
            "input": bytes.fromhex(found["input"]),
            "options": dict(found["options"]),
        }
    except OSError as error:
        raise UsageError(f"reading {path}: {os_reason(error)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(
            f"{path} is no crash of pyvmm fuzz", hint="a .json file of a folder's crashes/ (`pyvmm docs fuzz`)"
        ) from error
