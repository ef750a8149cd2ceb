# SPDX-License-Identifier: GPL-2.0-or-later
"""COM1 while it only sends is served by the core: the same text, registers and interrupts, and no Python for a byte."""

from __future__ import annotations

import os
import random
import threading
from collections import Counter
from collections.abc import Sequence

import pytest

from vmm import Machine
from vmm.kvm.words import Finish
from vmm.machine.devices.uart16550 import Uart16550A

SAY = """
    mov  ecx, {count}
again:
    mov  dx, 0x3fd
wait:
    in   al, dx
    test al, 0x20
    jz   wait
    mov  dx, 0x3f8
    mov  al, 0x41
    out  dx, al
    dec  ecx
    jnz  again
"""
END = "    mov al, 0\n    out 0xf4, al\n"


@pytest.fixture
def calls(monkeypatch) -> Counter[str]:
    """How often Python serves it."""
    seen: Counter[str] = Counter()
    for name in ("read", "write"):
        real = getattr(Uart16550A, name)

        def counted(self, *args, name=name, real=real):
            seen[name] += 1
            return real(self, *args)

        monkeypatch.setattr(Uart16550A, name, counted)
    return seen


@pytest.mark.parametrize("board", ["own", "pc"])
def test_no_python_runs_for_a_byte(board, calls):
    with Machine(board=board) as m:
        m.load(SAY.format(count=500) + END)
        assert m.run(timeout=20).text == "A" * 500
    assert sum(calls.values()) <= 4, calls


@pytest.mark.parametrize(
    ("set_up", "port", "value"),
    [("interrupt", 0x3F9, 2), ("loopback", 0x3FC, 0x10)],
    ids=["THRE interrupt", "loopback"],
)
def test_what_the_driver_wants_to_see_is_pythons(set_up, port, value, calls):
    """And when it wants no more of it, the core's again."""
    text = f"    mov dx, {port:#x}\n    mov al, {value}\n    out dx, al\n" + SAY.format(count=20)
    text += f"    mov dx, {port:#x}\n    mov al, 0\n    out dx, al\n    mov dx, 0x3fa\n    mov al, 7\n    out dx, al\n"
    text += SAY.replace("again", "more").replace("wait", "look").format(count=100) + END
    with Machine() as m:
        m.load(text)
        result = m.run(timeout=20)
        assert result.text == "A" * (100 if set_up == "loopback" else 120)
    assert 40 <= sum(calls.values()) <= 52, calls


def test_the_order_of_two_consoles_stays():
    one = "    mov al, 0x62\n    out 0xe9, al\n"
    text = "".join(SAY.replace("again", f"a{n}").replace("wait", f"w{n}").format(count=2) + one for n in range(4))
    with Machine() as m:
        m.load(text + END)
        assert m.run(timeout=20).text == "AAb" * 4


def test_a_byte_that_comes_is_seen_by_a_guest_that_polls():
    """LSR has DR as soon as somebody sends."""
    text = SAY.format(count=3) + "poll:\n mov dx, 0x3fd\n in al, dx\n test al, 1\n jz poll\n"
    text += " mov dx, 0x3f8\n in al, dx\n out dx, al\n" + END
    with Machine() as m:
        m.load(text)

        timer = threading.Timer(0.3, lambda: m.uart.feed(b"z"))
        timer.start()
        assert m.run(timeout=20).text == "AAAz"
        timer.join()


def test_a_hook_of_a_users_comes_first():
    heard: list[int] = []
    with Machine() as m:
        m.load(SAY.format(count=5) + END)
        m.platform.ports.release(0x3F8)
        m.on_port_read(0x3FD, lambda: 0x60)
        m.on_port_write(0x3F8, heard.append)
        assert m.run(timeout=20).text == ""
    assert heard == [0x41] * 5


def test_the_limit_of_output_is_where_it_was():
    with Machine(console_limit=100) as m:
        m.load(SAY.format(count=500) + END)
        result = m.run(timeout=20)
        assert result.text == "A" * 100
        assert "100 bytes of output" in result.stop.text


# Under THRE's interrupt, on a PC whose line is KVM's

PIC = """
    mov  ebx, 0x300000          # what was seen
    mov  al, 0x11
    out  0x20, al
    mov  al, 0x20
    out  0x21, al
    mov  al, 4
    out  0x21, al
    mov  al, 1
    out  0x21, al
    mov  al, 0xef               # line 4 alone
    out  0x21, al
"""
SEEN = "    mov [rbx], al\n    inc rbx\n"
POLLED = "    mov al, 0x0c\n    out 0x20, al\n    in al, 0x20\n" + SEEN + "    mov al, 0x20\n    out 0x20, al\n"


def writes(register: int, value: int) -> str:
    return f"    mov dx, {0x3F8 + register:#x}\n    mov al, {value:#x}\n    out dx, al\n"


def reads(register: int) -> str:
    return f"    mov dx, {0x3F8 + register:#x}\n    in al, dx\n" + SEEN


DRIVER = writes(4, 8) + writes(1, 2)  # OUT2, THRE's interrupt
STEPS = {
    "THR": writes(0, 0x41), "IIR": reads(2), "LSR": reads(5), "PIC": POLLED,
    "IER 0": writes(1, 0), "IER 2": writes(1, 2), "IER 7": writes(1, 7), "FIFO": writes(2, 1), "no FIFO": writes(2, 0),
    "MCR 0": writes(4, 0), "MCR 8": writes(4, 8),
    "loop": writes(4, 0x18), "RBR": reads(0), "MSR": reads(6), "DLAB": writes(3, 0x80), "no DLAB": writes(3, 3),
    "level": "    mov dx, 0x4d0\n    mov al, 0x10\n    out dx, al\n",  # the controller follows the line
    "word": "    mov dx, 0x3f8\n    mov eax, 0x4241\n    out dx, ax\n",
}  # fmt: skip


def seen(steps: Sequence[str], *, fast: bool, board: str = "pc", irqchip: str = "kernel") -> tuple[str, bytes]:
    """(text, what its reads gave) of a driver that takes these steps."""
    code = PIC * (irqchip == "kernel") + "    mov ebx, 0x300000\n" + DRIVER + "".join(STEPS[each] for each in steps)
    with Machine("4M", board=board, irqchip=irqchip, fast=fast) as m:
        m.load(code + "    hlt\n" if irqchip == "none" else code + ENDS)
        result = m.run(timeout=20)
        return result.text, m.memory.read(0x300000, len(steps))


ENDS = "    mov dx, 0x604\n    mov ax, 0x2000\n    out dx, ax\n"
OFTEN = ("THR", "THR", "THR", "IIR", "LSR", "PIC")


@pytest.mark.parametrize("seed", range(4))
def test_a_driver_sees_the_same_whoever_serves_it(seed):
    """Every register it reads, and the edges, by an interrupt controller that is polled and acknowledged."""
    dice = random.Random(seed)
    steps: list[str] = []
    for _ in range(8):
        steps += [dice.choice(OFTEN if dice.random() < 0.75 else tuple(STEPS)) for _ in range(20)]
        steps += ["no DLAB", "MCR 8", "IER 2", *OFTEN]
    plain = seen(steps, fast=False)
    assert seen(steps, fast=True) == plain
    assert plain[1].count(0x84) > 3  # line 4, and by the PIC


def test_no_python_runs_for_a_byte_of_a_driver(calls):
    steps = ["FIFO", *("PIC", "IIR", "LSR", *["THR"] * 16) * 20]
    text, said = seen(steps, fast=True)
    assert text == "A" * 320
    assert said[:6] == bytes((0x84, 0xC2, 0x60)) * 2
    assert sum(calls.values()) <= 5, calls


def test_nor_where_there_is_no_controller(calls):
    steps = ["THR", "IIR", "IIR", "LSR"] * 50
    assert seen(steps, fast=True, board="own", irqchip="none") == ("A" * 50, bytes((0x02, 0x01, 0x60)) * 50 + bytes(50))
    assert sum(calls.values()) <= 5, calls


def test_a_line_that_the_core_cannot_move_is_pythons(monkeypatch, calls):
    """Not a byte and not an edge is lost by it."""
    steps = ["THR", "PIC", "IIR", "THR", "THR", "PIC", "PIC", "LSR", "IIR"] * 10
    plain = seen(steps, fast=False)
    calls.clear()
    real = Finish.lend_transmitter
    null = os.open("/dev/null", os.O_RDONLY)
    monkeypatch.setattr(Finish, "lend_transmitter", lambda self, port, line, *more: real(self, port, (null, 4), *more))
    try:
        assert seen(steps, fast=True) == plain
    finally:
        os.close(null)
    assert sum(calls.values()) > 30


def test_who_keeps_a_record_of_the_line_misses_no_edge():
    edges: list[str] = []
    with Machine("4M", board="pc", irqchip="kernel") as m:
        m.load(DRIVER + STEPS["IIR"].replace(SEEN, "") + STEPS["THR"] * 3 + ENDS)
        m.vm.raised = lambda kind, gsi: edges.append(kind) if gsi == 4 else None
        m.run(timeout=20)
    assert edges == ["line up", "line down", "line up", *["line down", "line up"] * 2]


def test_a_byte_that_comes_is_seen_by_a_driver_that_sends():
    """IIR says so, though the core has answered it until then."""
    text = DRIVER + writes(1, 3) + "again:\n" + writes(0, 0x41) + "    mov dx, 0x3fa\n    in al, dx\n    test al, 4\n"
    text += "    jz again\n    mov dx, 0x3f8\n    in al, dx\n    mov bl, al\n" + writes(1, 0) + "    mov al, bl\n"
    with Machine("4M", board="pc", irqchip="kernel") as m:
        m.load(text + "    mov dx, 0x3f8\n    out dx, al\n" + ENDS)
        timer = threading.Timer(0.3, lambda: m.uart.feed(b"z"))
        timer.start()
        said = m.run(timeout=20).text
        timer.join()
    assert said.rstrip("A") == said[: said.index("z") + 1]
    assert said.count("z") == 1
    assert said.count("A") > 3


def test_the_limit_of_output_is_where_it_was_for_a_driver():
    with Machine("4M", board="pc", irqchip="kernel", console_limit=100) as m:
        m.load(DRIVER + "again:\n" + writes(0, 0x41) + "    jmp again\n")
        result = m.run(timeout=20)
        assert result.text == "A" * 100
        assert "100 bytes of output" in result.stop.text
