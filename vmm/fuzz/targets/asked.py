# SPDX-License-Identifier: GPL-2.0-or-later
"""What a word names as a target: one that comes with pyvmm, a device in a Python file, a guest. Nothing is made yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vmm.errors import UsageError
from vmm.fuzz.target import Target
from vmm.fuzz.targets import catalog
from vmm.payload.catalog import shipped as payloads

GUESTS = (".asm", ".c", ".bin")


@dataclass(frozen=True)
class Asked:
    """`make` makes the target in the process that fuzzes; `files` what lies beside a crash, of its input."""

    name: str
    make: Callable[[], Target]
    files: Callable[[bytes], dict[str, bytes]] | None = None


def asked(word: str, options: Mapping[str, Any]) -> Asked:
    """`options` are those of a guest: call, input, length, timeout.

    Raises:
        UsageError: there is no such target, or the options do not go with it.
    """
    own = word.endswith(".py")
    if own or word in catalog.SHIPPED:
        if options:
            shown = ", ".join(f"--{name}" for name in options)
            raise UsageError(f"{shown}: {word} is no guest", hint="leave it out")
        if not own:
            return Asked(word, partial(catalog.shipped, word))
        from vmm.fuzz.targets.devices import Own

        path = str(Path(word).absolute())
        return Asked(path, partial(Own, path))
    from vmm.fuzz.targets import guest

    if not (options or word.endswith(GUESTS) or word in payloads() or Path(word).is_file()):
        catalog.shipped(word)  # says what there is
    if ("call" in options) == ("input" in options):
        raise UsageError(f"{word}: where does the input go?", hint="--call FUNCTION, or --input LABEL --length N")
    path = str(Path(word).absolute()) if Path(word).exists() else word
    return Asked(path, partial(guest.GuestTarget, path, options), partial(guest.again, path, options))
