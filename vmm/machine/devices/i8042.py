# SPDX-License-Identifier: GPL-2.0-or-later
"""An 8042 keyboard controller with a keyboard and no mouse. It knows neither its ports nor its interrupt's number.

Source: IBM PC/AT Technical Reference, "Keyboard Controller" (commands, status, input and output port) and "Keyboard"
(commands); names as in Linux's drivers/input/serio/i8042.h. Where a choice is left:

* A command or a byte is taken at once, so the input buffer never reads as full.
* `feed` gives scan codes as the guest reads them; there is no second table for another scan set. A keyboard that is
  disabled, or a buffer that is read by nobody, keeps up to 16 bytes, as a keyboard does.
* The auxiliary port is there and has no device on it: its test finds its data line stuck, and a loop comes back as if
  from the keyboard, by both of which a driver sees that there is no mouse.
* A20 is always open; what a guest asks of it is remembered and read back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from vmm.abi import pc
from vmm.base.light import RLock

if TYPE_CHECKING:
    from collections.abc import Callable

KEYBOARD_BUFFER = 16
AUX_TEST_STUCK = 0x03  # of the interface test: the data line is stuck low
OF_PARAMETER = (
    pc.I8042_CMD_CTL_WCTR, pc.I8042_CMD_WRITE_OUTPUT, pc.I8042_CMD_KBD_LOOP, pc.I8042_CMD_AUX_LOOP,
    pc.I8042_CMD_AUX_SEND,
)  # fmt: skip


class I8042:
    """Claims its data port and its command port apart: `data` and `command` are devices of one byte each.

    `irq(level)` is the keyboard's line. `reset(text)` is called when the guest pulses the CPU's reset line.
    """

    def __init__(self, irq: Callable[[bool], object], reset: Callable[[str], object]) -> None:
        self._irq, self._reset = irq, reset
        self._lock = RLock()
        self._control = pc.I8042_CTR_KBDINT | pc.I8042_CTR_SYSTEM | pc.I8042_CTR_XLATE | pc.I8042_CTR_AUXDIS
        self._output: int | None = None
        self._answers: deque[int] = deque(maxlen=16)  # of the controller's own, while its buffer is full
        self._memory = bytearray(0x20)
        self._a20 = True
        self._command: int | None = None  # that waits for its parameter
        self._keyboard = Keyboard()
        self._last_was_command = False
        self._level = False
        self.data = Port("8042 data", self._read_data, self._write_data, self)
        self.command = Port("8042 command", self._read_status, self._write_command, None)

    def feed(self, codes: bytes) -> None:
        """The keyboard sends scan codes (set 1, as translated): what finds no room is lost, as on a keyboard."""
        with self._lock:
            self._keyboard.type(codes)
            self._settle()

    def get_state(self) -> tuple[Any, ...]:
        """Controller and keyboard."""
        with self._lock:
            mine = (self._control, self._output, bytes(self._memory), self._a20, self._command, self._last_was_command)
            return mine, bytes(self._answers), self._keyboard.get_state(), self._level

    def set_state(self, state: tuple[Any, ...]) -> None:
        """Be as `get_state` found it; the line is driven to where it was."""
        with self._lock:
            before = self._level
            (
                (self._control, self._output, memory, self._a20, self._command, self._last_was_command),
                answers,
                keyboard,
                self._level,
            ) = state
            self._memory[:] = memory
            self._answers = deque(answers, maxlen=16)
            self._keyboard.set_state(keyboard)
            if self._level != before:
                self._irq(self._level)

    # -- ports

    def _read_status(self) -> int:
        with self._lock:
            status = pc.I8042_STR_KEYLOCK | (self._control & pc.I8042_CTR_SYSTEM)
            status |= pc.I8042_STR_CMD if self._last_was_command else 0
            return status | (pc.I8042_STR_OBF if self._output is not None else 0)

    def _read_data(self) -> int:
        with self._lock:
            value, self._output = self._output or 0, None
            self._drive()  # down, so that the next byte is an edge
            self._settle()
            return value

    def _write_command(self, value: int) -> None:
        with self._lock:
            self._last_was_command = True
            self._command = value if value in OF_PARAMETER or 0x60 <= value < 0x80 else None
            self._do(value)
            self._settle()

    def _write_data(self, value: int) -> None:
        with self._lock:
            self._last_was_command = False
            command, self._command = self._command, None
            if command is None:
                self._control &= ~pc.I8042_CTR_KBDDIS  # data for the keyboard opens its clock line
                self._keyboard.take(value, translated=bool(self._control & pc.I8042_CTR_XLATE))
            else:
                self._parameter(command, value)
            self._settle()

    # -- commands

    def _do(self, command: int) -> None:
        match command:
            case pc.I8042_CMD_CTL_RCTR:
                self._answer(self._control)
            case _ if 0x20 < command < 0x40:
                self._answer(self._memory[command & 0x1F])
            case pc.I8042_CMD_AUX_DISABLE:
                self._control |= pc.I8042_CTR_AUXDIS
            case pc.I8042_CMD_AUX_ENABLE:
                self._control &= ~pc.I8042_CTR_AUXDIS
            case pc.I8042_CMD_AUX_TEST:
                self._answer(AUX_TEST_STUCK)
            case pc.I8042_CMD_SELF_TEST:
                self._control = self._control & pc.I8042_CTR_XLATE | pc.I8042_CTR_SYSTEM | pc.I8042_CTR_KBDDIS
                self._control |= pc.I8042_CTR_AUXDIS
                self._answer(pc.I8042_RET_SELF_TEST)
            case pc.I8042_CMD_KBD_TEST:
                self._answer(pc.I8042_RET_PORT_OK)
            case pc.I8042_CMD_KBD_DISABLE:
                self._control |= pc.I8042_CTR_KBDDIS
            case pc.I8042_CMD_KBD_ENABLE:
                self._control &= ~pc.I8042_CTR_KBDDIS
            case pc.I8042_CMD_READ_INPUT:
                self._answer(pc.I8042_IN_UNLOCKED)
            case pc.I8042_CMD_READ_OUTPUT:
                full = pc.I8042_OUT_OBF if self._output is not None else 0
                self._answer(pc.I8042_OUT_RESET | (pc.I8042_OUT_A20 if self._a20 else 0) | full)
            case pc.I8042_CMD_A20_ON:
                self._a20 = True
            case pc.I8042_CMD_A20_OFF:
                self._a20 = False
            case _ if command >= pc.I8042_CMD_PULSE and not command & pc.I8042_OUT_RESET:
                self._reset(f"the guest pulsed the reset line of the 8042 (command {command:#x})")

    def _parameter(self, command: int, value: int) -> None:
        match command:
            case pc.I8042_CMD_CTL_WCTR:
                self._control = value
            case pc.I8042_CMD_WRITE_OUTPUT:
                self._a20 = bool(value & pc.I8042_OUT_A20)
                if not value & pc.I8042_OUT_RESET:
                    self._reset("the guest pulled the reset line of the 8042's output port")
            case pc.I8042_CMD_KBD_LOOP | pc.I8042_CMD_AUX_LOOP:
                self._answer(value)
            case pc.I8042_CMD_AUX_SEND:
                pass  # to nobody
            case _:
                self._memory[command & 0x1F] = value

    def _answer(self, value: int) -> None:
        self._answers.append(value)

    def _settle(self) -> None:
        if self._output is None and self._answers:
            self._output = self._answers.popleft()
        if self._output is None and not self._control & pc.I8042_CTR_KBDDIS:
            self._output = self._keyboard.next()
        self._drive()

    def _drive(self) -> None:
        level = self._output is not None and bool(self._control & pc.I8042_CTR_KBDINT)
        if level != self._level:
            self._level = level
            self._irq(level)


class Port:
    """One of the two. `owner` has the state, which the data port stands for."""

    def __init__(self, name: str, read: Callable[[], int], write: Callable[[int], object], owner: I8042 | None) -> None:
        self.name, self._read, self._write = name, read, write
        if owner is not None:
            self.get_state, self.set_state = owner.get_state, owner.set_state

    def read(self, offset: int, size: int) -> int:
        """A byte, whatever the width."""
        return self._read()

    def write(self, offset: int, size: int, value: int) -> None:
        """The low byte."""
        self._write(value & 0xFF)


class Keyboard:
    """An MF2 keyboard: its answers to commands, and what is typed, in the order in which they leave it."""

    def __init__(self) -> None:
        self._bytes: deque[int] = deque()
        self._enabled = True
        self._command: int | None = None

    def get_state(self) -> tuple[bytes, bool, int | None]:
        """For `set_state`."""
        return bytes(self._bytes), self._enabled, self._command

    def set_state(self, state: tuple[bytes, bool, int | None]) -> None:
        """As it was."""
        waiting, self._enabled, self._command = state
        self._bytes = deque(waiting)

    def type(self, codes: bytes) -> None:
        """Keys go down and up."""
        if self._enabled:
            self._bytes.extend(codes[: max(KEYBOARD_BUFFER - len(self._bytes), 0)])

    def next(self) -> int | None:
        """The byte that leaves it next."""
        return self._bytes.popleft() if self._bytes else None

    def take(self, value: int, *, translated: bool) -> None:
        """A byte from the controller: a command, or the parameter of one."""
        command, self._command = self._command, None
        if command is not None and value < pc.KBD_CMD_SET_LEDS:
            if command == pc.KBD_CMD_SCAN_SET and value == 0:  # which one it is
                self._bytes.extend((pc.KBD_ACK, 0x41 if translated else 2))
            else:
                self._bytes.append(pc.KBD_ACK)
            return
        match value:
            case pc.KBD_CMD_ECHO:
                self._bytes.append(pc.KBD_ECHO)
            case pc.KBD_CMD_SET_LEDS | pc.KBD_CMD_SCAN_SET | pc.KBD_CMD_SET_RATE:
                self._command = value
                self._bytes.append(pc.KBD_ACK)
            case pc.KBD_CMD_GET_ID:
                first, second = pc.KBD_ID
                self._bytes.extend((pc.KBD_ACK, first, 0x41 if translated else second))
            case pc.KBD_CMD_ENABLE | pc.KBD_CMD_DISABLE | pc.KBD_CMD_DEFAULTS:
                self._enabled = value != pc.KBD_CMD_DISABLE
                self._bytes.clear()
                self._bytes.append(pc.KBD_ACK)
            case pc.KBD_CMD_RESET:
                self._enabled = True
                self._bytes.clear()
                self._bytes.extend((pc.KBD_ACK, pc.KBD_SELF_TEST_OK))
            case _:
                self._bytes.append(pc.KBD_RESEND)
