# SPDX-License-Identifier: GPL-2.0-or-later
"""ACPI's fixed hardware, the reset registers, the ports of emulators, and the timers that ring by themselves."""

from __future__ import annotations

import threading
import time

import pytest

from tests.unit.pc_time import NS, Time
from vmm.abi import pc
from vmm.machine.devices.power import CARRY, Pm1Control, Pm1Event, PmTimer
from vmm.machine.devices.quiet import Quiet
from vmm.machine.devices.reset import Port92, PowerPort, ResetControl, ShutdownText
from vmm.machine.devices.timers import Timers


def test_the_pm_timer_counts_24_bits() -> None:
    clock = Time()
    timer = PmTimer(lambda: clock.now)
    clock.now = 10 * NS
    assert timer.read(0, 4) == 10 * pc.PM_TIMER_HZ % (1 << 24)
    assert timer.read(0, 2) == timer.read(0, 4) & 0xFFFF
    assert timer.read(2, 1) == timer.read(0, 4) >> 16 & 0xFF
    timer.write(0, 4, 0)
    other = PmTimer(lambda: 5)
    other.set_state(timer.get_state())
    assert other.read(0, 4) == timer.read(0, 4)


def test_pm1_events_are_cleared_by_ones_and_drive_the_sci() -> None:
    clock, sci = Time(), []
    timer = PmTimer(lambda: clock.now)
    events = Pm1Event(timer, sci.append)
    events.raise_event(pc.PM1_PWRBTN)
    assert (events.read(0, 2), sci) == (pc.PM1_PWRBTN, [])
    events.write(2, 2, 0xFFFF)
    assert (events.read(2, 2), sci) == (pc.PM1_ENABLES, [True])
    events.write(0, 2, pc.PM1_RTC)
    assert events.read(0, 2) == pc.PM1_PWRBTN
    events.write(1, 1, pc.PM1_PWRBTN >> 8)
    assert (events.read(0, 4), sci) == (pc.PM1_ENABLES << 16, [True, False])
    clock.now += (1 << CARRY) * NS // pc.PM_TIMER_HZ + 1000
    assert events.read(0, 2) == pc.PM1_TMR
    other = Pm1Event(timer, sci.append)
    other.set_state(events.get_state())
    assert other.read(2, 2) == pc.PM1_ENABLES
    assert sci[-1] is True


def test_pm1_control_sleeps_by_its_bit() -> None:
    slept: list[int] = []
    control = Pm1Control(slept.append)
    assert control.read(0, 2) == pc.PM1_SCI_EN
    control.write(0, 2, 5 << pc.PM1_SLP_TYP_SHIFT)
    assert slept == []
    assert control.read(0, 2) == pc.PM1_SCI_EN | 5 << pc.PM1_SLP_TYP_SHIFT
    control.write(1, 1, (pc.PM1_SLP_EN | 3 << pc.PM1_SLP_TYP_SHIFT) >> 8)
    assert slept == [3]
    assert not control.read(0, 2) & pc.PM1_SLP_EN
    other = Pm1Control(slept.append)
    other.set_state(control.get_state())
    assert other.read(0, 2) == control.read(0, 2)


def test_reset_control_wants_an_edge() -> None:
    said: list[str] = []
    control = ResetControl(said.append)
    control.write(0, 1, pc.RESET_SYSTEM)
    assert said == []
    control.write(0, 1, pc.RESET_SYSTEM | pc.RESET_CPU)
    control.write(0, 1, pc.RESET_SYSTEM | pc.RESET_CPU)
    assert len(said) == 1
    assert control.read(0, 1) == 6
    other = ResetControl(said.append)
    other.set_state(control.get_state())
    other.write(0, 1, 6)
    assert len(said) == 1


def test_port_92() -> None:
    said: list[str] = []
    port = Port92(said.append)
    assert port.read(0, 1) == pc.PORT_92_A20
    port.write(0, 1, 0)
    assert port.read(0, 1) == 0
    port.write(0, 1, pc.PORT_92_RESET)
    assert len(said) == 1
    other = Port92(said.append)
    other.set_state(port.get_state())
    assert other.read(0, 1) == 1


def test_power_ports_want_their_value() -> None:
    off: list[None] = []
    port = PowerPort(0x2000, lambda: off.append(None))
    port.write(0, 2, 0x2001)
    assert (off, port.read(0, 2)) == ([], 0xFFFF)
    port.write(0, 2, 0x2000)
    assert off == [None]


def test_shutdown_letter_by_letter() -> None:
    off: list[None] = []
    text = ShutdownText(lambda: off.append(None))
    for character in b"ShutShutdow":
        text.write(0, 1, character)
    assert off == []
    other = ShutdownText(lambda: off.append(None))
    text.write(0, 4, int.from_bytes(b"Shut", "little"))
    other.set_state(text.get_state())
    for character in b"down":
        other.write(0, 1, character)
    assert off == [None]
    assert other.read(0, 1) == 0xFF


def test_quiet_is_all_ones() -> None:
    quiet = Quiet("IDE")
    quiet.write(0, 4, 5)
    assert (quiet.name, quiet.read(3, 2)) == ("no IDE", 0xFFFF)


def test_alarms_ring_on_a_thread_in_order_and_end() -> None:
    failed: list[BaseException] = []
    timers = Timers(failed.append)
    rung, done = [], threading.Event()
    late = timers.alarm(lambda: (rung.append("late"), done.set()))
    early = timers.alarm(lambda: rung.append("early"))
    never = timers.alarm(lambda: rung.append("never"))
    assert timers._thread is None  # nobody has set one
    now = timers.now()
    never.set(now + 20_000_000)
    late.set(now + 60_000_000)
    early.set(now + 30_000_000)
    never.set(None)
    assert done.wait(10)
    assert (rung, failed) == (["early", "late"], [])
    late.set(timers.now() + 3600 * NS)
    thread = timers._thread
    timers.close()
    timers.close()
    assert thread is not None
    assert not thread.is_alive()
    early.set(timers.now())
    time.sleep(0.02)
    assert rung == ["early", "late"]


def test_what_an_alarm_raises_is_told() -> None:
    told = threading.Event()
    timers = Timers(lambda error: told.set() if "no" in str(error) else None)

    def fail() -> None:
        raise RuntimeError("no")

    timers.alarm(fail).set(timers.now())
    assert told.wait(10)
    timers.close()


@pytest.mark.parametrize("late", [0, 5])
def test_an_alarm_rings_once(late: int) -> None:
    clock, rung = Time(), []
    clock.timers.alarm(lambda: rung.append(clock.now)).set(clock.now + 10)
    clock.passes(10 + late)
    clock.passes(100)
    assert len(rung) == 1
