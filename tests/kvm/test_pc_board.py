# SPDX-License-Identifier: GPL-2.0-or-later
"""The pc board on /dev/kvm: what ends a run there, and COM1, PIT and RTC with their interrupts."""

from __future__ import annotations

import pytest

from tests.kvm.pc_guest import load, out
from vmm.abi import pc
from vmm.errors import UsageError
from vmm.machine.ends import Why
from vmm.machine.machine import Machine

IRQCHIPS = ["kernel", "split", "none"]
ENDS = {
    "isa-debug-exit": (out(pc.DEBUG_EXIT, 5, 4), Why.DEBUG_EXIT),
    "ACPI S5": (out(pc.PM1_CONTROL, pc.PM1_SLP_EN, 2), Why.POWER_OFF),
    "Bochs": (out(0xB004, 0x2000, 2), Why.POWER_OFF),
    "VirtualBox": (out(0x4004, 0x3400, 2), Why.POWER_OFF),
    "shutdown text": ("".join(out(pc.SHUTDOWN_TEXT_PORT, c) for c in pc.SHUTDOWN_TEXT), Why.POWER_OFF),
    "i8042": (out(pc.I8042_COMMAND, pc.I8042_CMD_RESET), Why.RESET),
    "0xcf9": (out(pc.RESET_CONTROL, 2) + out(pc.RESET_CONTROL, 6), Why.RESET),
    "0x92": (out(pc.PORT_92, 3), Why.RESET),
}


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("irqchip", IRQCHIPS)
def test_a_guest_ends_its_run(how: str, irqchip) -> None:
    text, why = ENDS[how]
    with Machine(board="pc", irqchip=irqchip) as m:
        load(m, f"start:\n{text}\nud2")
        stop = m.run(timeout=20).stop
        assert stop.why is why, stop.text
        if why is Why.DEBUG_EXIT:
            assert stop.code == 5


def test_the_other_boards_name_is_refused() -> None:
    with pytest.raises(UsageError, match="board='at': choose own, pc, testdev"):
        Machine(board="at")


# The PICs' output is wired to LINT0 of a local APIC: let it through as it is. Without one it is the CPU's own pin.
THROUGH = """    X2APIC_ENABLE
    mov   ecx, X2APIC_LVT0
    mov   eax, APIC_DM_EXTINT
    xor   edx, edx
    wrmsr"""


def text_for(irqchip: str, text: str) -> str:
    """The guest's text for a machine with these controllers."""
    return text if irqchip != "none" else text.replace(THROUGH, "")


COM1_ECHO = f"""
start:
    TAKE  0x24
    PICS  1 << 4
{THROUGH}
    PUT   COM1 + 2, 0x01
    PUT   COM1 + 4, 0x08
    PUT   COM1 + 1, 0x01
await:
    sti
    hlt
    cli
next:
    GET   COM1 + 5
    test  al, 1
    jz    await
    GET   COM1
    cmp   al, 4
    je    end
    mov   dx, COM1
    out   dx, al
    jmp   next
end:
    {out(pc.PM1_CONTROL, pc.PM1_SLP_EN, 2)}
    hlt
    COUNT_PIC 0x24, DELAY_PORT, 0
"""


@pytest.mark.parametrize("irqchip", IRQCHIPS)
def test_com1_interrupts_by_the_pic(irqchip) -> None:
    with Machine(board="pc", irqchip=irqchip) as m:
        load(m, text_for(irqchip, COM1_ECHO))
        m.uart.feed(b"hello, world, over and over\x04")
        result = m.run(timeout=20)
        assert (result.stop.why, result.console) == (Why.POWER_OFF, b"hello, world, over and over")
        assert not result.unclaimed


ASK = 0x8E0  # the host is asked for something


def virtio_guest(gsi: int) -> str:
    return f"""
start:
    TAKE  {0x20 + gsi}
    PICS  1 << {gsi}
{THROUGH}
    PUT   {ASK}, 1
    AWAIT_COUNT {0x20 + gsi}, 1
    PUT   {ASK}, 2
    AWAIT_COUNT {0x20 + gsi}, 2
    {out(pc.PM1_CONTROL, pc.PM1_SLP_EN, 2)}
    hlt
    COUNT_PIC {0x20 + gsi}, DELAY_PORT, {int(gsi >= 8)}
"""


@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("irqchip", ["kernel", "none"])
def test_a_virtio_device_has_an_interrupt_line(irqchip, place: int, events: bool) -> None:
    with Machine(board="pc", irqchip=irqchip) as m:
        devices = [m.add_virtio_rng(events=events), m.add_virtio_rng(events=events)]
        assert [(each.base, each.gsi) for each in m.virtio_places] == [(0xD100_0000, 5), (0xD100_1000, 10)]
        m.on_port_write(ASK, lambda value: devices[place].mmio._interrupt())
        load(m, text_for(irqchip, virtio_guest(m.virtio_places[place].gsi)))
        assert m.run(timeout=20).stop.why is Why.POWER_OFF


def test_lines_for_devices_end() -> None:
    with Machine(board="pc") as m:
        for _ in range(17):
            m.add_virtio_rng(events=False)
        with pytest.raises(UsageError, match="17 interrupt lines"):
            m.add_virtio_rng(events=False)
        assert len(m.virtio_places) == len({each.gsi for each in m.virtio_places}) == 17
