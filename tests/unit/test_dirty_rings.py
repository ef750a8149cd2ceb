# SPDX-License-Identifier: GPL-2.0-or-later
"""DirtyRings without a device: what several vCPU threads do to the rings at once."""

from __future__ import annotations

import threading
import time
from typing import Any, cast

import pytest

from vmm.kvm.dirty import DirtyGfn
from vmm.machine.extra import dirty_pages as dirty
from vmm.machine.extra.dirty_pages import DirtyRings


class Ring:
    """Notes whether two threads were ever in it together."""

    def __init__(self) -> None:
        self.inside = 0
        self.together = False

    def harvest(self) -> list[DirtyGfn]:
        self.inside += 1
        self.together |= self.inside > 1
        time.sleep(0.001)  # lets the other thread come in, if nothing keeps it out
        self.inside -= 1
        return [DirtyGfn(0, 0)]


def test_one_thread_at_a_time_collects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirty.dirty, "reset_dirty_rings", lambda vm: 1)
    ring, rings = Ring(), DirtyRings(cast(Any, None), 4096)
    rings._rings = [cast(Any, ring)]
    threads = [threading.Thread(target=lambda: [rings.collect() for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not ring.together
    assert rings.resets == len(rings.written) == 80
