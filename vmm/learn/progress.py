# SPDX-License-Identifier: GPL-2.0-or-later
"""How far a student has come, kept in a file of their own: $XDG_STATE_HOME/pyvmm/learn.json, else below ~/.local/state.

Two terminals may write at once: each change is made under a lock, to what the file holds then, and the file is replaced
as a whole. Where it cannot be kept the course goes on without, and `notice` says so.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vmm.errors import os_reason

SCHEMA = 1
MAX_STATE = 1 << 20
KEYS = {"file": str, "started": str, "right": str, "checks": int, "hint": bool, "solution": bool}


def folder() -> Path:
    """Raises OSError: no home is known."""
    own = os.environ.get("XDG_STATE_HOME", "")
    if own and Path(own).is_absolute():  # a relative one is to be ignored (XDG Base Directory Specification)
        return Path(own) / "pyvmm"
    try:
        return Path.home() / ".local/state/pyvmm"
    except RuntimeError as error:
        raise OSError("no home directory is known") from error


class Progress:
    """`lessons` is name -> what is known of it; keys are those of KEYS. `notice` is what kept it from being kept."""

    def __init__(self) -> None:
        self.notice = ""
        self.lessons: dict[str, dict[str, Any]] = {}
        self._load()

    def is_right(self, name: str) -> bool:
        """Was it checked, and right?"""
        return bool(self.lessons.get(name, {}).get("right"))

    def note(self, name: str, **facts: str | int | bool) -> None:
        """Keep these of a lesson."""
        self._change({name: facts})

    def checked(self, name: str, file: str, right: bool) -> None:
        """A check was made of that file; the first time that it was right stays."""
        self._change({name: {"file": str(Path(file).absolute())}}, checked=name, right=right)

    def forget(self, names: tuple[str, ...]) -> None:
        """As if these had never been begun."""
        self._change({}, forget=names)

    def _change(
        self,
        facts: Mapping[str, Mapping[str, Any]],
        checked: str = "",
        right: bool = False,
        forget: tuple[str, ...] = (),
    ) -> None:
        try:
            with _locked() as where:
                self._load()
                for name, more in facts.items():
                    self.lessons[name] = self.lessons.get(name, {}) | dict(more)
                if checked:
                    row = self.lessons[checked]
                    row["checks"] = row.get("checks", 0) + 1
                    if right:
                        row.setdefault("right", now())
                for name in forget:
                    self.lessons.pop(name, None)
                _write(where / "learn.json", {"schema": SCHEMA, "lessons": self.lessons})
        except OSError as error:
            self.notice = f"progress is not kept: {error.filename or 'the state folder'}: {os_reason(error)}"

    def _load(self) -> None:
        try:
            path = folder() / "learn.json"
            with path.open("rb") as file:
                data = file.read(MAX_STATE + 1)
        except FileNotFoundError:
            return
        except OSError as error:
            self.notice = f"progress cannot be read: {error.filename or 'the state folder'}: {os_reason(error)}"
            return
        try:
            self.lessons = _checked(json.loads(data))
        except (ValueError, RecursionError):
            kept = path.with_name("learn.json.damaged")
            self.notice = f"{path} was damaged, and the course begins anew; what it held is now {kept.name}"
            with contextlib.suppress(OSError):
                path.replace(kept)


def now() -> str:
    """The time, as it is kept."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _checked(document: Any) -> dict[str, dict[str, Any]]:
    """The lessons of a document. ValueError: it is none of ours."""
    rows = document.get("lessons") if isinstance(document, dict) else None
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise ValueError("no progress of a course")
    for row in rows.values():
        for key, kind in KEYS.items():
            if key in row and not isinstance(row[key], kind):
                raise ValueError(f"{key} is {row[key]!r}")
    return rows


@contextlib.contextmanager
def _locked() -> Iterator[Path]:
    where = folder()
    where.mkdir(parents=True, exist_ok=True)
    handle = os.open(where / "learn.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield where
    finally:
        os.close(handle)


def _write(path: Path, document: dict[str, Any]) -> None:
    handle, temporary = tempfile.mkstemp(prefix=".learn.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=1)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
