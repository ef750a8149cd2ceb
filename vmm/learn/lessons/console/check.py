# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 2: the text comes to the debug console, a byte at a time."""

from __future__ import annotations

from vmm.abi.ports import DEBUG_CONSOLE
from vmm.kvm.exits import PortIn, PortOut
from vmm.learn.checks import Checks, Wrong
from vmm.learn.seen import Seen
from vmm.machine.ends import Why

WANTED = b"Hello, KVM\n"


def check(seen: Seen) -> str:
    console = seen.result.console
    if console == WANTED:
        return f"{len(console)} bytes came to port {DEBUG_CONSOLE:#x}, and each was an exit: KVM_EXIT_IO"
    if not console:
        raise Wrong(_silent(seen))
    raise Wrong(f"the console has {_shown(console)}, and should have {_shown(WANTED)}")


def _silent(seen: Seen) -> str:
    """No byte came: what did it do in place of that?"""
    for each in seen.of(PortOut):
        assert isinstance(each.exit, PortOut)
        count = sum(isinstance(other.exit, PortOut) and other.exit.port == each.exit.port for other in seen.exits)
        return (
            f"your guest wrote {count} byte{'s' * (count != 1)} to port {each.exit.port:#x}, {_shown(each.exit.data)} "
            f"first, at {seen.place(each.at)}. Nobody listens there: the console is port {DEBUG_CONSOLE:#x}, "
            "DEBUG_CONSOLE"
        )
    for each in seen.of(PortIn):
        assert isinstance(each.exit, PortIn)
        return (
            f"your guest read from port {each.exit.port:#x}, at {seen.place(each.at)}, and wrote to none: "
            "IN brings a byte from a device to the CPU, OUT takes it there"
        )
    return "no byte came to the console: your guest went through its text and executed no OUT"


def _shown(data: bytes) -> str:
    text = data[:40].decode("utf-8", "backslashreplace")
    return repr(text) + "..." * (len(data) > len(text))


def why(seen: Seen) -> str:
    if len(seen.result.console) > len(WANTED) and len(set(seen.result.console)) == 1:
        return f"It is the same byte each time: RSI is {seen.reg('rsi'):#x} and does not move on"
    if seen.stop.why is Why.TIME_LIMIT and not seen.exits:
        return "No exit came, so it has executed no OUT"
    return ""


CHECKS = Checks(check, why, ends=Why.HALT)
