# SPDX-License-Identifier: GPL-2.0-or-later
"""The numbers of the interrupt controllers: where the compiled header has them, they are the header's."""

from __future__ import annotations

from vmm.abi import asm_constants, irq
from vmm.abi.apic import DM_LOWEST


def test_an_entry_is_put_together() -> None:
    assert irq.ioapic_rte(0x51) == 0x51
    assert irq.ioapic_rte(0x51, 3, level=True, masked=True) == 3 << 56 | 0x18051
    assert irq.ioapic_rte(0x51, mode=DM_LOWEST, logical=True) == 0x951


def test_what_a_guest_may_write_leaves_out_what_it_may_not() -> None:
    assert not irq.RTE_WRITABLE & (irq.RTE_REMOTE_IRR | irq.RTE_DELIVERY_STATUS)
    assert irq.RTE_WRITABLE & irq.ioapic_rte(0xFF, 0xFF, level=True, masked=True, mode=0x700, logical=True) == (
        irq.ioapic_rte(0xFF, 0xFF, level=True, masked=True, mode=0x700, logical=True)
    )


def test_the_assembler_has_them() -> None:
    constants = asm_constants()
    assert (constants["PIC_MASTER_CMD"], constants["IOREGSEL"], constants["PIT_MODE"]) == (0x20, 0, 0x43)
    assert constants["MCI_STATUS_VAL"] == 1 << 63
