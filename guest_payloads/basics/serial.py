# SPDX-License-Identifier: GPL-2.0-or-later
"""Host half of serial: sixteen characters are typed; the guest must have read them all, in order."""

from __future__ import annotations

from vmm.payload.guest import Guest

POLLED, BY_INTERRUPT = b"by polls", b"by irq 4"


def setup(guest: Guest) -> None:
    guest.machine.uart.feed(POLLED + BY_INTERRUPT)


def check(guest: Guest) -> None:
    guest.equal("IIR with the FIFOs on", guest["identified"], 0xC1)
    guest.equal("input by polling", guest["polled"].to_bytes(8, "little"), POLLED)
    guest.equal("input by interrupt", guest["by_irq"].to_bytes(8, "little"), BY_INTERRUPT)
    guest.expect(guest["interrupts"] >= 1, "no interrupt came")
    guest.equal("characters left unread", guest.machine.uart.unread, 0)
    assert guest.result is not None
    guest.expect(b"Serial console ready.\n" in guest.result.console, "the greeting did not arrive")
