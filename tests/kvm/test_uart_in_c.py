# SPDX-License-Identifier: GPL-2.0-or-later
"""COM1 while it only sends is served by the core: the same text and the same registers, and no Python for a byte."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from vmm import Machine
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
