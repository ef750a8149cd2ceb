# SPDX-License-Identifier: GPL-2.0-or-later
"""The 8042 by its two ports: commands, the keyboard behind it, its line, and the reset."""

from __future__ import annotations

import pytest

from vmm.abi import pc
from vmm.machine.devices.i8042 import I8042


class Rig:
    def __init__(self) -> None:
        self.lines: list[bool] = []
        self.resets: list[str] = []
        self.chip = I8042(self.lines.append, self.resets.append)

    def command(self, *values: int) -> None:
        first, *rest = values
        self.chip.command.write(0, 1, first)
        for value in rest:
            self.chip.data.write(0, 1, value)

    def ask(self, *values: int) -> int:
        self.command(*values)
        assert self.status & pc.I8042_STR_OBF
        return self.read()

    def read(self) -> int:
        return self.chip.data.read(0, 1)

    def all(self) -> list[int]:
        found = []
        while self.status & pc.I8042_STR_OBF:
            found.append(self.read())
        return found

    def keyboard(self, *values: int) -> list[int]:
        for value in values:
            self.chip.data.write(0, 1, value)
        return self.all()

    @property
    def status(self) -> int:
        return self.chip.command.read(0, 1)


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_self_test_and_interface_tests(rig: Rig) -> None:
    assert rig.ask(pc.I8042_CMD_SELF_TEST) == pc.I8042_RET_SELF_TEST
    assert rig.ask(pc.I8042_CMD_KBD_TEST) == 0
    assert rig.ask(pc.I8042_CMD_AUX_TEST) not in (0, 0xFA, 0xFF)  # what Linux takes for a mouse
    assert rig.ask(pc.I8042_CMD_AUX_LOOP, 0x5A) == 0x5A
    rig.command(pc.I8042_CMD_AUX_LOOP, 0x5A)
    assert not rig.status & pc.I8042_STR_AUXDATA


def test_the_command_byte_is_kept(rig: Rig) -> None:
    first = rig.ask(pc.I8042_CMD_CTL_RCTR)
    assert first & pc.I8042_CTR_XLATE
    rig.command(pc.I8042_CMD_CTL_WCTR, 0x30)
    assert rig.ask(pc.I8042_CMD_CTL_RCTR) == 0x30
    rig.command(0x75, 0xAB)
    assert rig.ask(0x35) == 0xAB
    rig.command(pc.I8042_CMD_AUX_ENABLE)
    assert rig.ask(pc.I8042_CMD_CTL_RCTR) == 0x10
    rig.command(pc.I8042_CMD_AUX_DISABLE)
    assert rig.ask(pc.I8042_CMD_CTL_RCTR) == 0x30


def test_a_key_is_an_edge_and_a_byte(rig: Rig) -> None:
    rig.chip.feed(b"\x1e\x9e")
    assert rig.lines == [True]
    assert rig.read() == 0x1E
    assert rig.lines == [True, False, True]
    assert (rig.read(), rig.status & pc.I8042_STR_OBF) == (0x9E, 0)
    assert rig.lines == [True, False, True, False]


def test_without_its_interrupt_a_key_can_be_polled(rig: Rig) -> None:
    rig.command(pc.I8042_CMD_CTL_WCTR, pc.I8042_CTR_XLATE)
    rig.chip.feed(b"\x1e")
    assert rig.lines == []
    assert rig.all() == [0x1E]


def test_a_disabled_keyboard_waits_and_a_full_one_drops(rig: Rig) -> None:
    rig.command(pc.I8042_CMD_KBD_DISABLE)
    rig.chip.feed(bytes(range(1, 30)))
    assert not rig.status & pc.I8042_STR_OBF
    assert rig.ask(pc.I8042_CMD_CTL_RCTR) & pc.I8042_CTR_KBDDIS
    rig.command(pc.I8042_CMD_KBD_ENABLE)
    assert rig.all() == list(range(1, 17))


def test_the_keyboards_commands(rig: Rig) -> None:
    assert rig.keyboard(pc.KBD_CMD_RESET) == [pc.KBD_ACK, pc.KBD_SELF_TEST_OK]
    assert rig.keyboard(pc.KBD_CMD_GET_ID) == [pc.KBD_ACK, 0xAB, 0x41]
    assert rig.keyboard(pc.KBD_CMD_SET_LEDS, 7) == [pc.KBD_ACK, pc.KBD_ACK]
    assert rig.keyboard(pc.KBD_CMD_SCAN_SET, 0) == [pc.KBD_ACK, pc.KBD_ACK, 0x41]
    assert rig.keyboard(pc.KBD_CMD_SCAN_SET, 2) == [pc.KBD_ACK, pc.KBD_ACK]
    assert rig.keyboard(pc.KBD_CMD_ECHO) == [pc.KBD_ECHO]
    assert rig.keyboard(0x00) == [pc.KBD_RESEND]
    assert rig.keyboard(pc.KBD_CMD_DISABLE) == [pc.KBD_ACK]
    rig.chip.feed(b"\x1e")
    assert rig.all() == []
    assert rig.keyboard(pc.KBD_CMD_ENABLE) == [pc.KBD_ACK]
    rig.command(pc.I8042_CMD_CTL_WCTR, 0)
    assert rig.keyboard(pc.KBD_CMD_GET_ID) == [pc.KBD_ACK, 0xAB, 0x83]


@pytest.mark.parametrize("values", [(0xFE,), (0xF0,), (pc.I8042_CMD_WRITE_OUTPUT, 0x02)])
def test_the_reset_line(rig: Rig, values: tuple[int, ...]) -> None:
    rig.command(*values)
    assert len(rig.resets) == 1


@pytest.mark.parametrize("values", [(0xFF,), (0xF1,), (pc.I8042_CMD_WRITE_OUTPUT, 0x03), (0xA4,)])
def test_what_is_no_reset(rig: Rig, values: tuple[int, ...]) -> None:
    rig.command(*values)
    assert rig.resets == []


def test_a20(rig: Rig) -> None:
    def open_() -> bool:
        return bool(rig.ask(pc.I8042_CMD_READ_OUTPUT) & pc.I8042_OUT_A20)

    assert open_()
    rig.command(pc.I8042_CMD_WRITE_OUTPUT, 0x01)
    assert not open_()
    rig.command(pc.I8042_CMD_A20_ON)
    assert open_()
    rig.command(pc.I8042_CMD_A20_OFF)
    assert not open_()


def test_a_command_waits_for_its_byte_and_the_keyboard_gets_the_others(rig: Rig) -> None:
    rig.command(pc.I8042_CMD_AUX_SEND, pc.KBD_CMD_RESET)  # to a mouse, and there is none
    assert rig.all() == []
    rig.command(pc.I8042_CMD_KBD_LOOP, 0x77)
    assert rig.all() == [0x77]
    assert rig.ask(pc.I8042_CMD_READ_INPUT) == pc.I8042_IN_UNLOCKED
    assert rig.status & pc.I8042_STR_CMD
    assert rig.keyboard(pc.KBD_CMD_ECHO) == [pc.KBD_ECHO]
    assert not rig.status & pc.I8042_STR_CMD


def test_an_answer_does_not_push_a_key_out(rig: Rig) -> None:
    rig.chip.feed(b"\x1e")
    rig.command(pc.I8042_CMD_KBD_TEST)
    assert rig.all() == [0x1E, 0]


def test_a_state_goes_on_elsewhere(rig: Rig) -> None:
    rig.chip.feed(b"\x1e\x9e")
    rig.command(pc.I8042_CMD_CTL_WCTR)
    other = Rig()
    other.chip.data.set_state(rig.chip.data.get_state())
    assert other.lines == [True]
    other.chip.data.write(0, 1, pc.I8042_CTR_KBDINT)
    assert other.all() == [0x1E, 0x9E]
    assert other.ask(pc.I8042_CMD_CTL_RCTR) == pc.I8042_CTR_KBDINT
