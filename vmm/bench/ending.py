# SPDX-License-Identifier: GPL-2.0-or-later
"""A bench ends in order on any signal that lets it: nothing of it stays behind, and its status is the signal's."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
PREFIX = "pyvmm-bench-"


class Ended(BaseException):
    """A signal came."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _raise(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)  # once is enough
    raise Ended(number)


@contextmanager
def in_order() -> Iterator[None]:
    """These signals unwind the block, and then end the process as they would have. One that is ignored stays so."""
    caught = [each for each in SIGNALS if signal.getsignal(each) is signal.SIG_DFL]
    try:
        for each in caught:
            signal.signal(each, _raise)
        sweep()
        yield
    except Ended as ended:
        signal.signal(ended.number, signal.SIG_DFL)
        os.kill(os.getpid(), ended.number)
    finally:
        for each in caught:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder with this process in its name, so that a later bench finds it if nobody could remove it."""
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as name:
        yield Path(name)


def sweep() -> None:
    """Remove folders of benches that were killed; those of others, and of the living, stay."""
    for found in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = re.fullmatch(rf"{PREFIX}(\d+)-\w+", found.name)
        with suppress(OSError):
            if owner and found.stat().st_uid == os.geteuid() and not Path(f"/proc/{owner[1]}").exists():
                shutil.rmtree(found, ignore_errors=True)
