# SPDX-License-Identifier: GPL-2.0-or-later
"""The buses: who answers, at which width, what happens where nobody does; against a model that looks byte by byte."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vmm.errors import EXIT_FAIL, EXIT_USAGE, UsageError
from vmm.machine.boards.own import OwnBoard
from vmm.machine.bus.bus import GUEST_PHYSICAL, PORTS, Bus, mmio_bus, port_bus
from vmm.machine.bus.claims import Claims
from vmm.machine.bus.unclaimed import Unclaimed, UnclaimedAccess
from vmm.machine.devices.on_demand import Asleep
from vmm.machine.devices.sink import Sink


@dataclass(eq=False)
class Recorder:
    """Answers reads with `value`, or with bytes made of the offset; keeps what it was asked."""

    name: str = "recorder"
    value: object = None
    calls: list[tuple] = field(default_factory=list)

    def read(self, offset: int, size: int) -> int:
        self.calls.append(("read", offset, size))
        return self.value if self.value is not None else int.from_bytes(pattern(offset, size), "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.calls.append(("write", offset, size, value))


def pattern(offset: int, size: int) -> bytes:
    return bytes((0x40 + offset + i) & 0xFF for i in range(size))


def claimed(base: int, size: int, bus: Bus) -> Recorder:
    device = Recorder()
    bus.claim(base, size, device)
    return device


# -- one access, one claim ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [port_bus, mmio_bus])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 8])
def test_an_access_inside_a_claim_is_one_little_endian_call(make, size):
    bus = make()
    device = claimed(0x100, 16, bus)
    assert bus.read(0x103, size) == pattern(3, size)
    bus.write(0x105, bytes(range(1, size + 1)))
    assert device.calls == [("read", 3, size), ("write", 5, size, int.from_bytes(bytes(range(1, size + 1)), "little"))]
    assert bus.unclaimed.total == 0


def test_the_first_and_last_address_of_each_space_can_be_claimed():
    for bus, limit in ((port_bus(), PORTS), (mmio_bus(), GUEST_PHYSICAL)):
        low, high = claimed(0, 1, bus), claimed(limit - 1, 1, bus)
        bus.read(0, 1)
        bus.write(limit - 1, b"\x07")
        assert low.calls == [("read", 0, 1)]
        assert high.calls == [("write", 0, 1, 7)]


@pytest.mark.parametrize("answer", [0x100, -1, None, "x", 1.0])
def test_an_answer_that_is_no_integer_of_the_size_names_the_device(answer):
    bus = port_bus()
    bus.on_read(0x80, lambda: answer)
    with pytest.raises(UsageError, match=r"reading port 0x80: .*lambda.* answered .* unsigned integer of 1 byte$"):
        bus.read(0x80, 1)


# -- edges -------------------------------------------------------------------------------------------------------------


def test_a_port_access_belongs_whole_to_the_owner_of_its_first_port():
    bus = port_bus()
    first, second = claimed(0xF4, 1, bus), claimed(0xF5, 1, bus)
    bus.write(0xF4, b"\x01\x02\x03\x04")
    assert bus.read(0xF4, 2) == pattern(0, 2)
    bus.write(0xF3, b"\x09\x08")
    assert first.calls == [("write", 0, 4, 0x04030201), ("read", 0, 2)]
    assert second.calls == []
    assert bus.unclaimed.counts == {(0xF3, "write"): 1}


def test_an_mmio_access_across_an_edge_is_done_byte_by_byte():
    bus = mmio_bus()
    low, high = claimed(0x10, 4, bus), claimed(0x15, 2, bus)  # 0x14 is a hole
    bus.write(0x12, bytes(range(8)))
    assert low.calls == [("write", 2, 1, 0), ("write", 3, 1, 1)]
    assert high.calls == [("write", 0, 1, 3), ("write", 1, 1, 4)]
    assert bus.unclaimed.counts == {(a, "write"): 1 for a in (0x14, 0x17, 0x18, 0x19)}
    assert bus.read(0x0E, 4) == b"\xff\xff" + pattern(0, 2)
    assert bus.unclaimed.counts[0x0E, "read"] == 1


def test_an_mmio_access_around_a_small_device_reaches_it():
    bus = mmio_bus()
    device = claimed(0x13, 1, bus)
    assert bus.read(0x10, 8) == b"\xff\xff\xff" + pattern(0, 1) + b"\xff" * 4
    assert device.calls == [("read", 0, 1)]


SPAN = 64


@st.composite
def _scene(draw):
    claims = draw(st.lists(st.tuples(st.integers(0, SPAN), st.integers(1, 12), st.sampled_from("rwb")), max_size=8))
    accesses = draw(st.lists(st.tuples(st.integers(0, SPAN), st.integers(1, 8), st.booleans()), max_size=8))
    return claims, accesses


@given(_scene(), st.booleans())
@example(([(4, 4, "b"), (8, 4, "b")], [(6, 4, True), (6, 4, False)]), False)
def test_bus_against_a_model_that_keeps_one_owner_per_address(scene, whole):
    """The model knows spans only as sets of addresses, so it shares no arithmetic with the bus."""
    claims, accesses = scene
    bus = Bus("address", SPAN, whole=whole)
    owner: dict[str, dict[int, tuple[int, int]]] = {"r": {}, "w": {}}  # address -> (claim, offset)
    calls: list[tuple] = []

    class Numbered:
        def __init__(self, number: int) -> None:
            self.number, self.name = number, f"device {number}"

        def read(self, offset: int, size: int) -> int:
            calls.append((self.number, "r", size))
            return int.from_bytes(pattern(offset, size), "little")

        def write(self, offset: int, size: int, value: int) -> None:
            calls.append((self.number, "w", size, offset, value))

    for number, (base, size, kind) in enumerate(claims):
        device = Numbered(number)
        directions = "rw" if kind == "b" else kind
        span = range(base, base + size)
        free = span.stop <= SPAN and not any(a in owner[d] for d in directions for a in span)
        try:
            if kind == "b":
                bus.claim(base, size, device)
            elif kind == "r":
                bus.on_read(base, lambda n=number: calls.append((n, "r")) or 0x5A, size)
            else:
                bus.on_write(base, lambda value, n=number: calls.append((n, "w", value)), size)
        except UsageError:
            assert not free
        else:
            assert free
            for direction in directions:
                owner[direction].update({a: (number, a - base) for a in span})

    unclaimed: dict[tuple[int, str], int] = {}

    def expect(address: int, data: bytes, direction: str) -> bytes:
        """Append to `expected` what this access should call; the bytes a read should give."""
        table, size = owner[direction], len(data)
        owners = {table[a][0] if a in table else None for a in range(address, address + size)}
        if len(owners) > 1 and not whole:
            return b"".join(expect(address + i, data[i : i + 1], direction) for i in range(size))
        if address not in table:
            key = (address, "read" if direction == "r" else "write")
            unclaimed[key] = unclaimed.get(key, 0) + 1
            return b"\xff" * size
        number, offset = table[address]
        value = int.from_bytes(data, "little")
        if claims[number][2] == "b":
            expected.append((number, "r", size) if direction == "r" else (number, "w", size, offset, value))
            return pattern(offset, size)
        expected.append((number, "r") if direction == "r" else (number, "w", value))
        return b"\x5a" + bytes(size - 1)

    expected: list[tuple] = []
    for address, size, writing in accesses:
        data = bytes(range(0x80, 0x80 + size))
        if writing:
            expect(address, data, "w")
            bus.write(address, data)
        else:
            assert bus.read(address, size) == expect(address, data, "r")
    assert calls == expected
    assert bus.unclaimed.counts == unclaimed


# -- claiming and releasing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("base", "size"), [(0x10, 4), (0x0F, 2), (0x13, 1), (0x13, 9), (0x00, 0x40), (0x11, 1)])
def test_overlap_is_refused_naming_both_and_changes_nothing(base, size):
    bus = port_bus()
    first = Recorder("the first")
    bus.claim(0x10, 4, first)
    with pytest.raises(UsageError) as caught:
        bus.claim(base, size, Recorder("the second"))
    text = str(caught.value)
    assert f"claiming port {base:#x}..{base + size - 1:#x} for the second: overlaps the first at 0x10..0x13" in text
    assert "release(0x10)" in text
    assert caught.value.exit_code == EXIT_USAGE
    bus.read(0x10, 1)
    assert first.calls == [("read", 0, 1)]
    bus.read(base + size, 1)
    assert bus.unclaimed.total == (0 if 0x10 <= base + size <= 0x13 else 1)


def test_a_device_refused_for_its_writes_does_not_keep_its_reads():
    bus = port_bus()
    bus.on_write(0x80, print)
    with pytest.raises(UsageError, match="overlaps print"):
        bus.claim(0x80, 1, Recorder())
    assert bus.read(0x80, 1) == b"\xff"


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_claim_is_refused(size):
    with pytest.raises(UsageError, match="size must be at least 1"):
        port_bus().claim(0x10, size, Recorder())


@pytest.mark.parametrize(("base", "size"), [(-1, 1), (-1, 2), (0xFFFF, 2), (0x10000, 1), (0, 0x10001)])
def test_a_claim_outside_the_space_is_refused(base, size):
    with pytest.raises(UsageError, match="addresses go from 0x0 to 0xffff"):
        port_bus().claim(base, size, Recorder())


def test_claims_that_touch_are_not_an_overlap():
    bus = port_bus()
    for base in (4, 0, 8, 2, 6):
        claimed(base, 2, bus)
    with pytest.raises(UsageError):
        claimed(5, 1, bus)


def test_release_by_address_and_by_device():
    bus = port_bus()
    device = Recorder()
    bus.claim(0x10, 4, device)
    bus.claim(0x20, 4, device)
    other = claimed(0x30, 4, bus)
    bus.release(0x10)
    assert bus.read(0x10, 1) == b"\xff"
    assert bus.read(0x20, 1) == pattern(0, 1)
    bus.release(device)
    bus.write(0x20, b"\x01")
    assert bus.unclaimed.counts == {(0x10, "read"): 1, (0x20, "write"): 1}
    bus.read(0x30, 1)
    assert other.calls == [("read", 0, 1)]
    claimed(0x10, 4, bus)  # free again


def test_a_device_that_is_made_late_is_made_once_and_can_be_released():
    made = []

    def make():
        made.append(Recorder())
        return made[-1]

    bus, late = port_bus(), Asleep("late", make)
    bus.claim(0x10, 1, late)
    assert made == []
    bus.read(0x10, 1)
    assert [late.device] == [late.device] == made
    bus.release(late.device)
    assert bus.reader_at(0x10) is None


def test_a_late_device_that_is_asked_for_while_it_is_made():
    """By a signal handler, say: nobody waits for himself, and there is one device."""
    inner = []

    def make():
        if not inner:
            inner.append(None)
            inner[0] = late.device
        return Recorder()

    late = Asleep("late", make)
    assert late.device is inner[0]


def test_a_device_is_released_and_not_its_equal():
    @dataclass
    class Twin:
        name: str = "twin"

        def read(self, offset, size):
            return 0

        def write(self, offset, size, value):
            pass

    bus, one, other = port_bus(), Twin(), Twin()
    assert one == other
    bus.claim(0x10, 1, one)
    bus.claim(0x20, 1, other)
    bus.release(one)
    assert [claim.base for claim in bus.readers] == [0x20]


def test_releasing_what_is_not_claimed_is_refused():
    bus = port_bus()
    claimed(0x10, 4, bus)
    with pytest.raises(UsageError, match="no claim starts at port 0x11"):
        bus.release(0x11)
    with pytest.raises(UsageError, match="stranger claims none"):
        bus.release(Recorder("stranger"))


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_a_read_and_a_write_callback_share_a_port():
    bus, got = port_bus(), []
    bus.on_write(0x80, got.append)
    bus.on_read(0x80, lambda: 0x1234)
    bus.write(0x80, b"\xef\xbe\xad\xde")
    assert got == [0xDEADBEEF]
    assert bus.read(0x80, 2) == b"\x34\x12"
    bus.release(0x80)
    bus.write(0x80, b"\x01")
    assert bus.read(0x80, 1) == b"\xff"
    assert got == [0xDEADBEEF]
    assert bus.unclaimed.total == 2


def test_the_other_direction_of_a_callback_is_unclaimed():
    bus = port_bus()
    bus.on_write(0x80, lambda value: None)
    bus.on_read(0x81, lambda: 0)
    assert bus.read(0x80, 1) == b"\xff"
    bus.write(0x81, b"\x00")
    assert bus.unclaimed.counts == {(0x80, "read"): 1, (0x81, "write"): 1}


def test_a_callback_may_claim_a_range():
    bus, got = mmio_bus(), []
    bus.on_write(0x1000, got.append, 0x10)
    bus.on_read(0x1000, lambda: 7, size=0x10)
    bus.write(0x1008, bytes(range(8)))
    assert got == [0x0706050403020100]
    assert bus.read(0x100C, 4) == b"\x07\x00\x00\x00"
    assert bus.unclaimed.total == 0


def test_a_second_callback_for_a_direction_is_refused():
    bus = port_bus()
    bus.on_read(0x80, lambda: 0)
    with pytest.raises(UsageError, match="lambda"):
        bus.on_read(0x80, lambda: 1)


def test_a_callable_without_a_name_is_shown_by_its_repr():
    class Nameless:
        def __call__(self) -> int:
            return 0

        def __repr__(self) -> str:
            return "<nameless>"

    bus = port_bus()
    bus.on_read(0x80, Nameless())
    with pytest.raises(UsageError, match="overlaps <nameless>"):
        bus.claim(0x80, 1, Recorder())


@pytest.mark.parametrize("error", [TypeError("mine"), OverflowError("mine"), KeyboardInterrupt(), LookupError()])
def test_what_a_callback_raises_comes_out_unchanged(error):
    def fail(*_: object) -> int:
        raise error

    bus = port_bus()
    bus.on_read(0x80, fail)
    bus.on_write(0x80, fail)
    for access in (lambda: bus.read(0x80, 1), lambda: bus.write(0x80, b"\x00")):
        with pytest.raises(type(error)) as caught:
            access()
        assert caught.value is error


# -- unclaimed ---------------------------------------------------------------------------------------------------------


def test_unclaimed_reads_give_all_ones_and_writes_are_dropped_and_both_are_counted():
    bus = port_bus()
    assert [bus.read(0x99, size) for size in (1, 2, 4)] == [b"\xff", b"\xff\xff", b"\xff\xff\xff\xff"]
    bus.write(0x99, b"\x01")
    assert bus.unclaimed.counts == {(0x99, "read"): 3, (0x99, "write"): 1}
    assert bus.unclaimed.total == 4


def test_the_count_is_bounded_whatever_a_guest_touches():
    bus = mmio_bus()
    for address in range(0, 8 * 1000, 8):
        bus.read(address, 8)
    bus.read(0, 8)
    assert len(bus.unclaimed.counts) == Unclaimed.KEEP
    assert bus.unclaimed.counts[0, "read"] == 2
    assert bus.unclaimed.others == 1000 - Unclaimed.KEEP
    assert bus.unclaimed.total == 1001


def test_a_strict_bus_stops_on_an_unclaimed_write():
    with pytest.raises(UnclaimedAccess) as caught:
        port_bus(strict=True).write(0x99, b"\x34\x12")
    error = caught.value
    assert (error.what, error.address, error.size, error.value) == ("port", 0x99, 2, 0x1234)
    assert error.exit_code == EXIT_FAIL
    assert "the guest wrote 0x1234 to port 0x99 (2 bytes), which no device claims\n  try: " in str(error)


def test_a_strict_bus_stops_on_an_unclaimed_read():
    with pytest.raises(UnclaimedAccess, match=r"the guest read MMIO address 0xd0000000 \(1 byte\)") as caught:
        mmio_bus(strict=True).read(0xD000_0000, 1)
    assert caught.value.value is None


def test_a_strict_bus_lets_claimed_accesses_through_and_counts_nothing():
    bus = mmio_bus(strict=True)
    device = claimed(0, 4, bus)
    bus.read(0, 4)
    with pytest.raises(UnclaimedAccess, match="address 0x4"):
        bus.write(2, b"\x01\x02\x03\x04")
    assert device.calls == [("read", 0, 4), ("write", 2, 1, 1), ("write", 3, 1, 2)]
    assert bus.unclaimed.total == 0


# -- string I/O --------------------------------------------------------------------------------------------------------


def test_string_output_gives_each_element_to_the_same_port():
    bus, got = port_bus(), []
    bus.on_write(0x80, got.append)
    bus.write_string(0x80, 2, b"\x01\x00\x02\x00\x03\x00")
    assert got == [1, 2, 3]


def test_string_input_asks_the_same_port_for_each_element():
    bus, values = port_bus(), iter([0x11, 0x22, 0x33])
    bus.on_read(0x80, lambda: next(values))
    assert bus.read_string(0x80, 2, 3) == b"\x11\x00\x22\x00\x33\x00"


def test_an_error_in_string_output_keeps_what_came_before():
    got: list[int] = []

    def second_fails(value: int) -> None:
        got.append(value)
        if value == 2:
            raise LookupError

    bus = port_bus()
    bus.on_write(0x80, second_fails)
    with pytest.raises(LookupError):
        bus.write_string(0x80, 1, b"\x01\x02\x03")
    assert got == [1, 2]


def test_a_broken_element_is_refused_before_anything_is_delivered():
    bus, got = port_bus(), []
    bus.on_write(0x80, got.append)
    with pytest.raises(UsageError, match="string output to port 0x80: 3 bytes are not whole elements of 2"):
        bus.write_string(0x80, 2, b"\x01\x02\x03")
    assert got == []


# -- threads -----------------------------------------------------------------------------------------------------------


def test_claims_may_come_and_go_while_others_look_up():
    bus = port_bus()
    steady = Recorder("steady", value=0x5A)
    bus.claim(0x200, 1, steady)
    wrong: list[bytes] = []

    def look() -> None:
        for _ in range(3000):
            if (seen := bus.read(0x200, 1)) != b"\x5a":
                wrong.append(seen)
            bus.write(0x999, b"\x00")

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for thread in lookers:
        thread.start()
    for i in range(300):
        bus.on_read(i, lambda: 0)
        if i % 2:
            bus.release(i)
    for thread in lookers:
        thread.join()
    assert wrong == []
    assert bus.unclaimed.total == 6000


def test_what_every_machine_claims_from_the_start_would_be_taken_one_by_one():
    """The buses do not look at it: by address, apart from each other, inside of their space."""
    platform = OwnBoard(Sink(), lambda stop: None).platform
    for bus in (platform.ports, platform.mmio):
        for rows in (bus.readers, bus.writers):
            claims = Claims()
            for row in rows:
                claims.refuse(row, bus.what, bus.limit)
                claims.add(row)
            assert claims.rows == rows
