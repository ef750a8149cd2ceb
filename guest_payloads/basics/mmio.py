# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of mmio: each value came back, and each width arrived at the device as one access."""

from __future__ import annotations

from vmm.payload.guest import Guest


def check(guest: Guest) -> None:
    for name, want in (("read8", 0x11), ("read16", 0x2222), ("read32", 0x44444444), ("read64", 0x8877665544332211)):
        guest.equal(name, guest[name], want)
    guest.equal("an address that nobody holds", guest["nobody"], 0xFFFFFFFF)
    scratch = guest.machine.scratch
    each_once = dict.fromkeys((1, 2, 4, 8), 1)
    guest.equal("widths of the writes", dict(scratch.writes), each_once)
    guest.equal("widths of the reads", dict(scratch.reads), each_once)
    guest.evidence["writes by width"] = dict(scratch.writes)
    guest.evidence["reads by width"] = dict(scratch.reads)
