# SPDX-License-Identifier: GPL-2.0-or-later
"""The 16550A as a driver sees it: registers, FIFOs, interrupt priorities, modem lines, loopback."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmm.abi import serial_reg as r
from vmm.abi.ports import COM1, COM1_SIZE
from vmm.errors import UsageError
from vmm.machine.bus.bus import port_bus
from vmm.machine.devices.sink import OutputLimit, Sink
from vmm.machine.devices.uart16550 import PEER_READY, Uart16550A

ACCESSES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(["TX", "TX", "TX", "IER", "FCR", "LCR", "MCR"]), st.integers(0, 255)),
        st.tuples(st.just("get"), st.sampled_from(["RX", "IIR", "LSR", "MSR"]), st.just(0)),
        st.tuples(st.just("feed"), st.just(""), st.integers(0, 255)),
        st.tuples(st.just("lines"), st.just(""), st.integers(0, 15)),
    ),
    max_size=40,
)
HEADER = Path("/usr/include/linux/serial_reg.h")
IDLE = r.UART_LSR_THRE | r.UART_LSR_TEMT
FIFO_ON = r.UART_FCR_ENABLE_FIFO
NONE, MODEM, THRE, DATA, LINE, TIMEOUT = 0x01, 0x00, 0x02, 0x04, 0x06, 0x0C


class Driver:
    """A UART with its sink, its interrupt line's history, and registers by name."""

    def __init__(self, **registers: int) -> None:
        self.sink, self.edges = Sink(), []
        self.uart = Uart16550A(self.sink, self.edges.append)
        for name, value in registers.items():
            self.put(name, value)

    def put(self, name: str, value: int) -> None:
        self.uart.write(getattr(r, f"UART_{name}"), 1, value)

    def get(self, name: str) -> int:
        return self.uart.read(getattr(r, f"UART_{name}"), 1)

    @property
    def line(self) -> bool:
        return bool(self.edges) and self.edges[-1]

    @property
    def iir(self) -> int:
        return self.get("IIR") & 0x0F

    def drain(self) -> bytes:
        got = bytearray()
        while self.get("LSR") & r.UART_LSR_DR:
            got.append(self.get("RX"))
        return bytes(got)


def interrupting(ier: int, **registers: int) -> Driver:
    return Driver(MCR=r.UART_MCR_OUT2, **registers, IER=ier)


@pytest.mark.skipif(not HEADER.exists(), reason=f"no {HEADER} to compare with (Debian: linux-libc-dev)")
@pytest.mark.parametrize("name", [n for n in dir(r) if n.startswith("UART_")])
def test_the_constants_are_the_kernel_headers(name):
    found = re.search(rf"^#define {name}\s+(0[xX][0-9a-fA-F]+|\d+)\b", HEADER.read_text(), re.M)
    assert found, f"{HEADER} has no {name}"
    assert int(found[1], 0) == getattr(r, name)


# -- registers ---------------------------------------------------------------------------------------------------------


def test_registers_after_reset():
    names = ("RX", "IER", "IIR", "LCR", "MCR", "LSR", "MSR", "SCR")
    assert [Driver().get(name) for name in names] == [0, 0, NONE, 0, 0, IDLE, PEER_READY, 0]


@pytest.mark.parametrize(("name", "mask"), [("IER", 0x0F), ("LCR", 0xFF), ("MCR", 0x1F), ("SCR", 0xFF)])
def test_a_register_keeps_the_bits_it_has(name, mask):
    for value in (0xFF, 0x55, 0xAA, 0x00):
        driver = Driver(**{name: value})
        assert driver.get(name) == value & mask


@pytest.mark.parametrize("name", ["LSR", "MSR"])
def test_status_registers_ignore_writes(name):
    driver = Driver()
    before = driver.get(name)
    driver.put(name, 0xFF)
    driver.put(name, 0x00)
    assert driver.get(name) == before
    assert driver.edges == []


def test_dlab_swaps_in_the_divisor_and_nothing_else():
    driver = Driver(IER=0x05, LCR=0x03 | r.UART_LCR_DLAB)
    driver.uart.feed(b"x")
    driver.put("DLL", 0x0C)
    driver.put("DLM", 0x34)
    driver.put("DLL", 0x0D)
    assert (driver.get("DLL"), driver.get("DLM")) == (0x0D, 0x34)
    driver.put("SCR", 9)
    assert (driver.get("SCR"), driver.get("LCR")) == (9, 0x83)
    driver.put("LCR", 0x03)
    assert driver.get("IER") == 0x05
    assert driver.get("RX") == ord("x")
    assert driver.sink.data == b""


def test_the_divisor_latch_does_not_make_a_patient_sender_send():
    driver = Driver(LCR=r.UART_LCR_DLAB)
    driver.uart.feed(b"x")
    driver.get("DLL")
    driver.put("FCR", FIFO_ON)
    driver.put("LCR", 0)
    assert driver.drain() == b"x"


def test_a_wide_access_is_bytes_for_consecutive_registers():
    driver = Driver()
    driver.uart.write(r.UART_LCR, 2, 0x1203)
    assert driver.uart.read(r.UART_LCR, 2) == 0x1203
    driver.uart.write(r.UART_SCR, 2, 0x7756)
    assert driver.uart.read(r.UART_SCR, 4) == 0xFFFFFF56


def test_on_the_bus_it_takes_eight_ports():
    bus, sink = port_bus(), Sink()
    bus.claim(COM1, COM1_SIZE, Uart16550A(sink))
    bus.write_string(COM1, 1, b"serial")
    bus.write(COM1 + 7, b"\xa5")
    assert bus.read(COM1 + 7, 1) == b"\xa5"
    assert bus.read(COM1 + 5, 1)[0] == IDLE
    assert (sink.data, COM1_SIZE) == (b"serial", r.REGISTERS)


# -- output ------------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=40), st.integers(0, 255))
def test_every_byte_is_sent_at_once_and_whole(data, fcr):
    driver = Driver(FCR=fcr)
    for byte in data:
        assert driver.get("LSR") & r.UART_LSR_THRE
        driver.put("TX", byte)
    assert driver.sink.data == data


def test_the_output_limit_goes_through():
    uart = Uart16550A(Sink(1))
    uart.write(0, 1, 0x41)
    with pytest.raises(OutputLimit):
        uart.write(0, 1, 0x42)


# -- input, polled -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fcr", [0, FIFO_ON])
@given(data=st.binary(max_size=60))
def test_a_patient_sender_loses_nothing(fcr, data):
    driver = Driver()
    driver.uart.feed(data)
    driver.put("FCR", fcr)  # clears the FIFO, and the sender has not begun
    assert driver.uart.unread == len(data)
    assert driver.drain() == data
    assert driver.get("LSR") == IDLE
    assert driver.uart.unread == 0


def test_a_read_of_an_empty_receiver_gives_zero():
    driver = Driver()
    driver.uart.feed(b"a")
    assert [driver.get("RX"), driver.get("RX")] == [ord("a"), 0]


def test_overrun_without_fifo_keeps_the_newest():
    driver = Driver()
    driver.uart.feed(b"a", wait=False)
    assert driver.get("LSR") == IDLE | r.UART_LSR_DR
    driver.uart.feed(b"bc", wait=False)
    assert driver.get("LSR") == IDLE | r.UART_LSR_DR | r.UART_LSR_OE
    assert driver.get("LSR") == IDLE | r.UART_LSR_DR  # reading cleared the error
    assert driver.drain() == b"c"


def test_overrun_with_fifo_keeps_the_oldest_sixteen():
    driver = Driver(FCR=FIFO_ON)
    driver.uart.feed(bytes(range(16)), wait=False)
    assert driver.get("LSR") == IDLE | r.UART_LSR_DR
    driver.uart.feed(b"\xee", wait=False)
    assert driver.uart.unread == 16
    assert driver.get("LSR") & r.UART_LSR_OE
    assert driver.drain() == bytes(range(16))


# -- FIFO control ------------------------------------------------------------------------------------------------------


def test_iir_shows_whether_the_fifos_are_on():
    driver = Driver()
    assert driver.get("IIR") == NONE
    driver.put("FCR", FIFO_ON)
    assert driver.get("IIR") == 0xC0 | NONE
    driver.put("FCR", 0)
    assert driver.get("IIR") == NONE


@pytest.mark.parametrize(
    ("before", "fcr", "kept"),
    [
        (FIFO_ON, FIFO_ON, 3),
        (FIFO_ON, FIFO_ON | r.UART_FCR_CLEAR_XMIT, 3),
        (FIFO_ON, FIFO_ON | r.UART_FCR_CLEAR_RCVR, 0),
        (FIFO_ON, 0, 0),
        (0, FIFO_ON, 0),
        (0, 0, 1),
        (0, r.UART_FCR_CLEAR_RCVR, 1),  # not programmed without the enable bit
    ],
)
def test_what_clears_the_receiver(before, fcr, kept):
    driver = Driver(FCR=before)
    driver.uart.feed(b"abc", wait=False)
    driver.put("FCR", fcr)
    assert driver.uart.unread == kept


@pytest.mark.parametrize(("bits", "level"), [(0x00, 1), (0x40, 4), (0x80, 8), (0xC0, 14)])
def test_below_the_trigger_level_it_is_a_timeout_and_from_it_on_data(bits, level):
    driver = interrupting(r.UART_IER_RDI, FCR=FIFO_ON | bits)
    for count in range(1, 17):
        driver.uart.feed(b"x", wait=False)
        assert driver.line
        assert driver.iir == (DATA if count >= level else TIMEOUT)
    for count in range(15, 0, -1):
        driver.get("RX")
        assert driver.iir == (DATA if count >= level else TIMEOUT)
    driver.get("RX")
    assert driver.iir == NONE
    assert not driver.line


def test_the_trigger_level_counts_only_with_fifos():
    driver = interrupting(r.UART_IER_RDI, FCR=r.UART_FCR_TRIGGER_14)
    driver.uart.feed(b"x")
    assert driver.iir == DATA


# -- interrupts --------------------------------------------------------------------------------------------------------


def test_each_character_read_gives_an_edge_for_the_next():
    """An edge-triggered controller and a driver that reads one character per interrupt."""
    for fcr in (0, FIFO_ON | r.UART_FCR_TRIGGER_14):
        driver = interrupting(r.UART_IER_RDI, FCR=fcr)
        driver.uart.feed(b"abc")
        assert driver.edges == [True]
        assert bytes(driver.get("RX") for _ in range(3)) == b"abc"
        assert driver.edges == [True, False, True, False, True, False]


def test_a_new_character_restarts_the_timeout():
    driver = interrupting(r.UART_IER_RDI, FCR=FIFO_ON | r.UART_FCR_TRIGGER_14)
    driver.uart.feed(b"a", wait=False)
    driver.uart.feed(b"b", wait=False)
    assert driver.edges == [True, False, True]


def test_received_data_waits_for_its_enable_bit():
    driver = interrupting(0)
    driver.uart.feed(b"x")
    assert (driver.iir, driver.edges) == (NONE, [])
    driver.put("IER", r.UART_IER_RDI)
    assert (driver.iir, driver.edges) == (DATA, [True])


def test_enabling_the_thre_interrupt_raises_it_and_the_iir_read_drops_it():
    driver = interrupting(r.UART_IER_THRI)
    assert driver.edges == [True]
    assert driver.iir == THRE
    assert driver.edges == [True, False]
    assert driver.iir == NONE
    driver.put("IER", r.UART_IER_THRI)  # it was on
    assert driver.iir == NONE
    driver.put("IER", 0)
    driver.put("IER", r.UART_IER_THRI)
    assert driver.iir == THRE


def test_sending_raises_the_thre_interrupt_anew():
    driver = interrupting(r.UART_IER_THRI)
    assert driver.iir == THRE
    driver.put("TX", 0x41)
    assert driver.edges == [True, False, True]
    driver.put("TX", 0x42)  # without having read IIR
    assert driver.edges == [True, False, True, False, True]
    assert driver.sink.data == b"AB"


def test_an_iir_read_that_reports_another_source_leaves_thre_pending():
    driver = interrupting(r.UART_IER_THRI | r.UART_IER_RDI)
    driver.uart.feed(b"x")
    assert [driver.iir, driver.iir] == [DATA, DATA]
    driver.get("RX")
    assert [driver.iir, driver.iir] == [THRE, NONE]


def test_sources_are_reported_in_order_of_priority():
    driver = interrupting(0x0F)
    driver.uart.set_modem_lines(0)
    driver.uart.feed(b"ab", wait=False)
    assert driver.iir == LINE
    driver.get("LSR")
    assert driver.iir == DATA
    driver.get("RX")
    assert driver.iir == THRE
    assert driver.iir == MODEM
    assert driver.line
    driver.get("MSR")
    assert driver.iir == NONE
    assert not driver.line


@pytest.mark.parametrize(("bit", "source"), [(1, DATA), (2, THRE), (4, LINE), (8, MODEM)])
def test_each_source_has_its_own_enable_bit(bit, source):
    driver = interrupting(bit, FCR=FIFO_ON)
    driver.uart.set_modem_lines(0)
    driver.uart.feed(bytes(17), wait=False)
    assert driver.iir == source


def test_only_out2_lets_the_interrupt_out():
    driver = Driver(IER=r.UART_IER_RDI)
    driver.uart.feed(b"x")
    assert driver.iir == DATA
    assert driver.edges == []
    for mcr, line in ((r.UART_MCR_OUT1 | r.UART_MCR_RTS | r.UART_MCR_DTR, False), (r.UART_MCR_OUT2, True), (0, False)):
        driver.put("MCR", mcr)
        assert driver.line is line
    assert driver.edges == [True, False]


def test_without_an_interrupt_callback_all_else_works():
    uart = Uart16550A(Sink())
    uart.write(r.UART_MCR, 1, r.UART_MCR_OUT2)
    uart.write(r.UART_IER, 1, r.UART_IER_THRI)
    assert uart.read(r.UART_IIR, 1) == THRE


def test_an_interrupt_callback_may_use_the_device():
    seen: list[tuple[bool, int]] = []
    uart = Uart16550A(Sink(), lambda level: seen.append((level, uart.unread)))
    uart.write(r.UART_MCR, 1, r.UART_MCR_OUT2)
    uart.write(r.UART_IER, 1, r.UART_IER_RDI)
    uart.feed(b"ab")
    assert seen == [(True, 2)]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 7), st.integers(0, 255)),
            st.tuples(st.just("read"), st.integers(0, 7), st.just(0)),
            st.tuples(st.just("feed"), st.integers(0, 20), st.booleans()),
            st.tuples(st.just("lines"), st.integers(0, 15), st.just(0)),
        ),
        max_size=40,
    )
)
def test_whatever_is_done_the_line_changes_on_edges_and_agrees_with_iir(steps):
    driver = Driver()
    for what, a, b in steps:
        match what:
            case "write":
                driver.uart.write(a, 1, b)
            case "read":
                assert 0 <= driver.uart.read(a, 1) <= 0xFF
            case "feed":
                driver.uart.feed(bytes(a), wait=bool(b))
            case "lines":
                driver.uart.set_modem_lines(a << 4)
    assert driver.edges == [i % 2 == 0 for i in range(len(driver.edges))]
    before = driver.line
    gate = driver.get("MCR") & (r.UART_MCR_OUT2 | r.UART_MCR_LOOP) == r.UART_MCR_OUT2
    assert before == (gate and driver.iir != NONE)


# -- modem lines and loopback ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "deltas"),
    [
        (0x00, r.UART_MSR_CTS, r.UART_MSR_DCTS),
        (r.UART_MSR_CTS, 0x00, r.UART_MSR_DCTS),
        (0x00, r.UART_MSR_DSR, r.UART_MSR_DDSR),
        (0x00, r.UART_MSR_DCD, r.UART_MSR_DDCD),
        (r.UART_MSR_DCD, 0x00, r.UART_MSR_DDCD),
        (0x00, r.UART_MSR_RI, 0),  # ringing starts: no event
        (r.UART_MSR_RI, 0x00, r.UART_MSR_TERI),  # it stops: one
        (0xF0, 0x00, 0x0F),
        (0xF0, 0xF0, 0),
    ],
)
def test_modem_lines_and_their_deltas(old, new, deltas):
    driver = Driver()
    driver.uart.set_modem_lines(old)
    driver.get("MSR")
    driver.uart.set_modem_lines(new)
    assert driver.get("MSR") == new | deltas
    assert driver.get("MSR") == new


def test_a_delta_stays_until_msr_is_read():
    driver = Driver()
    driver.uart.set_modem_lines(0)
    driver.uart.set_modem_lines(PEER_READY)
    assert driver.get("MSR") == PEER_READY | r.UART_MSR_DCTS | r.UART_MSR_DDSR | r.UART_MSR_DDCD


@pytest.mark.parametrize("lines", [0x01, 0x100, -1])
def test_only_lines_can_be_set(lines):
    with pytest.raises(UsageError, match="setting modem lines"):
        Driver().uart.set_modem_lines(lines)


def test_loopback_returns_characters_and_keeps_them_from_the_line():
    driver = Driver(FCR=FIFO_ON, MCR=r.UART_MCR_LOOP)
    for byte in b"loop":
        driver.put("TX", byte)
    assert driver.drain() == b"loop"
    assert driver.sink.data == b""


def test_a_guest_can_make_an_overrun_in_loopback():
    driver = Driver(FCR=FIFO_ON, MCR=r.UART_MCR_LOOP)
    for byte in range(17):
        driver.put("TX", byte)
    assert driver.get("LSR") & r.UART_LSR_OE
    assert driver.drain() == bytes(range(16))


def test_loopback_takes_the_receiver_off_the_line():
    driver = Driver(FCR=FIFO_ON, IER=r.UART_IER_RDI, MCR=r.UART_MCR_LOOP)
    driver.uart.feed(b"lost", wait=False)
    driver.uart.feed(b"patient")
    assert driver.drain() == b""
    driver.put("MCR", 0)
    assert driver.drain() == b"patient"


@pytest.mark.parametrize(
    ("out", "line"),
    [
        (r.UART_MCR_DTR, r.UART_MSR_DSR),
        (r.UART_MCR_RTS, r.UART_MSR_CTS),
        (r.UART_MCR_OUT1, r.UART_MSR_RI),
        (r.UART_MCR_OUT2, r.UART_MSR_DCD),
    ],
)
def test_loopback_turns_outputs_into_inputs(out, line):
    driver = Driver(MCR=r.UART_MCR_LOOP)
    driver.get("MSR")
    driver.put("MCR", r.UART_MCR_LOOP | out)
    assert driver.get("MSR") & r.MSR_LINES == line
    driver.put("MCR", r.UART_MCR_LOOP)
    assert driver.get("MSR") == line >> 4  # a falling edge counts for all four
    driver.put("MCR", 0)
    assert driver.get("MSR") & r.MSR_LINES == PEER_READY


def test_loopback_shows_modem_interrupts_in_iir_but_keeps_the_line_low():
    driver = interrupting(r.UART_IER_MSI)
    driver.put("MCR", r.UART_MCR_OUT2 | r.UART_MCR_LOOP | r.UART_MCR_RTS)
    assert driver.iir == MODEM
    assert driver.edges == []
    driver.put("MCR", r.UART_MCR_OUT2)
    assert driver.edges == [True]


class Told:
    """A server that takes nothing, and keeps what it hears."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def when_quiet(self, quiet: bool) -> None:
        self.said.append(f"quiet {quiet:d}")

    def lend(self, pending: int, idle: int, event: bool) -> bool:
        self.said.append(f"offered {pending:#x} {idle:#x} {event:d}")
        return False

    def take_back(self) -> tuple[bool, bool]:
        raise AssertionError("it was never lent")


@pytest.mark.parametrize("how", ["fed", "fed at once", "put back"])
def test_whoever_answers_for_a_quiet_one_is_told_before_the_guest_is_woken(how: str) -> None:
    """C code answers for it that nothing is there, and a guest that asks too early would believe it."""
    other = interrupting(r.UART_IER_RDI)
    other.uart.feed(b"x")
    said: list[str] = []
    uart = Uart16550A(Sink(), lambda level: said.append(f"line {level:d}"))
    uart.write(r.UART_MCR, 1, r.UART_MCR_OUT2)
    uart.write(r.UART_IER, 1, r.UART_IER_RDI)
    uart.watch(Told(said))
    if how == "put back":
        uart.set_state(other.uart.get_state())
    else:
        uart.feed(b"x", wait=how == "fed")
    assert said == ["quiet 1", "quiet 0", "line 1"]


def test_what_was_lent_comes_back_before_anybody_looks() -> None:
    """Whoever has it may have sent, or read IIR, since."""

    class Core(Told):
        def lend(self, pending: int, idle: int, event: bool) -> bool:
            self.state = (event, event)
            return not super().lend(pending, idle, event)

        def take_back(self) -> tuple[bool, bool]:
            self.said.append("back")
            return self.state

    said: list[str] = []
    core = Core(said)
    uart = Uart16550A(Sink(), lambda level: said.append(f"line {level:d}"))
    uart.watch(core)
    uart.write(r.UART_FCR, 1, r.UART_FCR_ENABLE_FIFO)
    uart.write(r.UART_MCR, 1, r.UART_MCR_OUT2)
    del said[:]
    uart.write(r.UART_IER, 1, r.UART_IER_THRI)
    assert said == ["line 1", "quiet 0", "offered 0xc2 0xc1 1"]
    del said[:]
    core.state = (False, False)  # it has read IIR
    assert not uart.interrupting
    assert said == ["back"]
    assert uart.read(r.UART_IIR, 1) == 0xC1
    assert said == ["back", "offered 0xc2 0xc1 0"]
    core.state = (True, True)
    state = uart.get_state()
    assert said == ["back", "offered 0xc2 0xc1 0", "back"]
    other = Uart16550A(Sink(), None)
    other.set_state(state)
    assert other.interrupting
    assert other.read(r.UART_IIR, 1) == 0xC2
    uart.watch(None)
    assert said[3:] == ["quiet 0"]


class Plain(Uart16550A):
    """Which takes every character the whole way."""

    def _can_only_send(self) -> bool:
        return False


@given(ACCESSES)
def test_the_short_way_of_a_character_is_the_long_one(accesses: list[tuple[str, str, int]]) -> None:
    """Same answers, same edges at the same accesses, same output, and the same registers at the end."""
    short, long = (Driver(MCR=r.UART_MCR_OUT2, IER=r.UART_IER_THRI) for _ in range(2))
    long.uart.__class__ = Plain
    long.uart._only_sends = False
    for kind, name, value in accesses:
        answers = []
        for each in (short, long):
            if kind == "put":
                answers.append(each.put(name, value))
            elif kind == "get":
                answers.append(each.get(name))
            elif kind == "feed":
                answers.append(each.uart.feed(bytes((value,)), wait=bool(value & 1)))
            else:
                answers.append(each.uart.set_modem_lines(value << 4))
        assert answers[0] == answers[1]
        assert short.edges == long.edges
        assert short.uart.get_state() == long.uart.get_state()
    assert short.sink.data == long.sink.data


def test_a_driver_that_fills_the_fifo_takes_the_short_way() -> None:
    driver = Driver(MCR=r.UART_MCR_OUT2, IER=r.UART_IER_THRI)
    driver.get("IIR")
    driver.uart._write = None  # type: ignore[method-assign, assignment]  # the long way
    for character in b"sixteen of them.":
        driver.put("TX", character)
    assert driver.sink.data == b"sixteen of them."
    assert driver.edges == [True, False] + [True, False] * 15 + [True]
