# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of pio: a device that records each write and answers each read by its width."""

from __future__ import annotations

from vmm.payload.guest import Guest

ANSWERS = {1: 0xA1, 2: 0xB2B1, 4: 0xC4C3C2C1}
WORDS = [0x1000, 0x2001, 0x3002, 0x4003, 0x5004]


class Recorder:
    """Remembers writes as (size, value); after the single reads, 16-bit reads count up from 1."""

    name = "recorder"

    def __init__(self) -> None:
        self.writes: list[tuple[int, int]] = []
        self.reads: list[int] = []

    def read(self, offset: int, size: int) -> int:
        self.reads.append(size)
        if len(self.reads) <= len(ANSWERS):
            return ANSWERS[size]
        return len(self.reads) - len(ANSWERS)

    def write(self, offset: int, size: int, value: int) -> None:
        self.writes.append((size, value))


def setup(guest: Guest) -> None:
    guest.kept["recorder"] = recorder = Recorder()
    guest.machine.platform.ports.claim(guest.params["port"], 1, recorder)


def check(guest: Guest) -> None:
    recorder = guest.kept["recorder"]
    for name, size in (("in8", 1), ("in16", 2), ("in32", 4)):
        guest.equal(name, guest[name], ANSWERS[size])
    guest.equal("the elements of REP INSW", guest["ins"], 0x0004_0003_0002_0001)
    guest.equal("an unclaimed port", guest["nobody"], 0xFF)
    guest.equal("single writes", recorder.writes[:3], [(1, 0x11), (2, 0x2222), (4, 0x44444444)])
    guest.equal("the elements of REP OUTSW", recorder.writes[3:], [(2, word) for word in WORDS])
    guest.evidence["writes"] = " ".join(f"{value:#0{2 + 2 * size}x}" for size, value in recorder.writes)
