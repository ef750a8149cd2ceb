# SPDX-License-Identifier: GPL-2.0-or-later
"""The pc board on /dev/kvm: what ends a run there, and COM1, PIT and RTC with their interrupts."""

from __future__ import annotations

import threading
import time

import pytest

from tests.kvm.pc_guest import load, out
from vmm.abi import pc
from vmm.errors import UsageError
from vmm.machine.ends import Why
from vmm.machine.machine import Machine
from vmm.machine.run import all_cpus

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


def test_a_guest_that_com1_wakes_finds_what_woke_it() -> None:
    """The interrupt is there while the sender still works: a guest that looks must not hear that nothing came."""
    with Machine(board="pc") as m:
        raise_line = m.uart._irq

        def slow(level: bool) -> None:
            raise_line(level)
            if level and threading.current_thread() is sender:
                time.sleep(0.05)  # the guest has it, and looks

        m.uart._irq = slow
        load(m, text_for("kernel", COM1_ECHO))
        sender = threading.Timer(0.05, m.uart.feed, (b"\x04",))
        sender.start()
        assert m.run(timeout=20).stop.why is Why.POWER_OFF
        sender.join()


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


PIT_GUEST = f"""
start:
    TAKE  0x20
    PICS  1 << 0
{THROUGH}
    PUT   PIT_MODE, PIT_CH0_RATE
    PUT   PIT_CH0, 0xa9
    PUT   PIT_CH0, 0x04
    sti
    AWAIT_COUNT 0x20, 20
    PUT   PIT_MODE, PIT_CH0_ONCE
    PUT   PIT_CH0, 0xff
    PUT   PIT_CH0, 0xff
    {out(pc.PM1_CONTROL, pc.PM1_SLP_EN, 2)}
    hlt
    COUNT_PIC 0x20, DELAY_PORT, 0
"""


@pytest.mark.parametrize("irqchip", IRQCHIPS)
def test_the_pit_ticks_by_the_pic(irqchip) -> None:
    """Twenty interrupts of 1 ms each: they take at least nineteen."""
    with Machine(board="pc", irqchip=irqchip) as m:
        load(m, text_for(irqchip, PIT_GUEST))
        result = m.run(timeout=30)
        assert result.stop.why is Why.POWER_OFF
        assert result.wall >= 0.015


RTC_GUEST = f"""
.macro SEEN
    PUT   RTC_INDEX, RTC_REG_C
    GET   RTC_DATA
.endm
start:
    TAKE  0x28
    PICS  1 << 8
{THROUGH}
    PUT   RTC_INDEX, RTC_REG_A
    PUT   RTC_DATA, RTC_REF_CLCK_32KHZ | 8
    PUT   RTC_INDEX, RTC_REG_B
    PUT   RTC_DATA, RTC_24H | RTC_PIE
    SEEN
    AWAIT_COUNT 0x28, 1
    cli
    SEEN
    AWAIT_COUNT 0x28, 2
    cli
    SEEN
    AWAIT_COUNT 0x28, 3
    {out(pc.PM1_CONTROL, pc.PM1_SLP_EN, 2)}
    hlt
    COUNT_PIC 0x28, DELAY_PORT, 1
"""


@pytest.mark.parametrize("irqchip", IRQCHIPS)
def test_the_rtc_interrupts(irqchip) -> None:
    with Machine(board="pc", irqchip=irqchip) as m:
        load(m, text_for(irqchip, RTC_GUEST))
        assert m.run(timeout=30).stop.why is Why.POWER_OFF


IOAPIC_GUEST = f"""
.macro PIN number, vector
    mov   dword ptr [rbx + IOREGSEL], IOAPIC_REDTBL + 2 * (\\number) + 1
    mov   dword ptr [rbx + IOWIN], 0
    mov   dword ptr [rbx + IOREGSEL], IOAPIC_REDTBL + 2 * (\\number)
    mov   dword ptr [rbx + IOWIN], \\vector
.endm
start:
    TAKE  0x50
    TAKE  0x51
    PICS  0
    X2APIC_ENABLE
    mov   rbx, IOAPIC_BASE
    PIN   2, 0x50
    PIN   4, 0x51
    PUT   COM1 + 4, 0x08
    PUT   COM1 + 1, 0x02
    PUT   PIT_MODE, PIT_CH0_RATE
    PUT   PIT_CH0, 0xa9
    PUT   PIT_CH0, 0x04
    sti
    AWAIT_COUNT 0x51, 1
    AWAIT_COUNT 0x50, 5
    {out(pc.PM1_CONTROL, pc.PM1_SLP_EN, 2)}
    hlt
    COUNTER 0x50
    COUNTER 0x51
"""


@pytest.mark.parametrize("irqchip", ["kernel", "split"])
def test_pit_and_com1_interrupt_by_the_ioapic(irqchip) -> None:
    """The PIT at pin 2, as the MADT says; COM1 at pin 4."""
    with Machine(board="pc", irqchip=irqchip) as m:
        load(m, IOAPIC_GUEST)
        assert m.run(timeout=30).stop.why is Why.POWER_OFF


@pytest.mark.parametrize("cpus", [1, 3])
@pytest.mark.parametrize("irqchip", IRQCHIPS)
def test_a_guest_that_halts_for_good_ends(irqchip, cpus: int) -> None:
    with Machine(board="pc", irqchip=irqchip, cpus=cpus) as m:
        load(m, "start: cli\nagain: hlt\njmp again")
        if irqchip != "none":
            for cpu in range(1, cpus - 1):  # the last waits for SIPI
                m.start(cpu, "start")
        stop = m.run(timeout=30).stop
        assert stop.why is Why.HALT, stop.text


def test_a_guest_that_waits_for_an_interrupt_does_not_end() -> None:
    for irqchip in IRQCHIPS:
        with Machine(board="pc", irqchip=irqchip) as m:
            load(m, "start: sti\nagain: hlt\njmp again")
            assert m.run(timeout=0.5).stop.why is Why.TIME_LIMIT


@pytest.mark.parametrize("irqchip", IRQCHIPS)
def test_a_state_goes_on_with_its_devices(irqchip) -> None:
    """Saved while COM1's guest waits for more; put back twice, each time it answers what comes then."""
    with Machine(board="pc", irqchip=irqchip) as m:
        load(m, text_for(irqchip, COM1_ECHO))
        m.uart.feed(b"one")
        for _ in range(60):  # on a loaded host a second may be short for three characters
            assert m.run(timeout=0.5).stop.why is Why.TIME_LIMIT
            if m.sink.length == 3:
                break
        saved = m.save()
        assert m.sink.data == b"one"
        for text in (b"two", b"three"):
            before = m.sink.length
            m.uart.feed(text + b"\x04")
            assert m.run(timeout=20).stop.why is Why.POWER_OFF
            assert m.sink.since(before) == text
            m.restore(saved)


def test_the_cmos_tells_memory_cpus_and_time() -> None:
    import time

    with Machine("64M", cpus=2, board="pc") as m:
        load(m, "start: hlt")

        def cmos(index: int) -> int:
            m.platform.ports.write(pc.RTC_INDEX, bytes((index,)))
            return m.platform.ports.read(pc.RTC_DATA, 1)[0]

        assert cmos(pc.CMOS_EXTENDED_KIB_2) | cmos(pc.CMOS_EXTENDED_KIB_2 + 1) << 8 == 63 << 10
        assert cmos(pc.CMOS_HIGH_64KIB) | cmos(pc.CMOS_HIGH_64KIB + 1) << 8 == 48 << 4
        assert cmos(pc.CMOS_CPUS) == 1
        years = {time.gmtime(at).tm_year % 100 for at in (time.time() - 1, time.time() + 1)}
        assert cmos(pc.RTC_YEAR) in {year // 10 << 4 | year % 10 for year in years}


def test_the_power_button_is_the_sci() -> None:
    """A level on IRQ 9, enabled by the guest, that falls when it clears the status."""
    text = f"""
start:
    TAKE  0x29
    PICS  1 << 9
{THROUGH}
    PUT   PIC_ELCR2, 2
    {out(pc.PM1_EVENT + 2, pc.PM1_PWRBTN, 2)}
    PUT   {ASK}, 1
    sti
again:
    hlt
    jmp again
count_0x29:
    {out(pc.PM1_CONTROL, pc.PM1_SLP_EN, 2)}
    iretq
"""
    for irqchip in IRQCHIPS:
        with Machine(board="pc", irqchip=irqchip) as m:
            m.on_port_write(ASK, lambda value, m=m: m.board.press_power_button())
            load(m, text_for(irqchip, text))
            assert m.run(timeout=20).stop.why is Why.POWER_OFF, irqchip


def test_an_interrupt_does_not_wait_for_the_heartbeat(monkeypatch) -> None:
    """With one every 5 s, twenty ticks that nobody kicked the vCPU for would take longer than the time limit."""
    monkeypatch.setattr(all_cpus, "HEARTBEAT", 5.0)
    with Machine(board="pc", irqchip="split") as m:
        load(m, PIT_GUEST)
        assert m.run(timeout=30).stop.why is Why.POWER_OFF
