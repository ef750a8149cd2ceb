# SPDX-License-Identifier: GPL-2.0-or-later
"""Lesson 2: the text comes to the debug console, a byte at a time."""

from __future__ import annotations

from vmm.abi.ports import DEBUG_CONSOLE
from vmm.kvm.exits import PortIn, PortOut
from vmm.learn.checks import Checks, Wrong
from vmm.learn.endings import shown
from vmm.learn.seen import Seen
from vmm.machine.ends import Why

WANTED = b"Hello, KVM\n"


def check(seen: Seen) -> str:
    console = seen.result.console
    if console == WANTED:
        return f"{len(console)} bytes came to port {DEBUG_CONSOLE:#x}, and each was an exit: KVM_EXIT_IO"
    if not console:
        raise Wrong(_silent(seen))
    said = f"the console has {_shown(console)}, and should have {_shown(WANTED)}"
    raise Wrong(f"{said}. {more}" if (more := _other(seen, console)) else said)


def _other(seen: Seen, console: bytes) -> str:
    """What made the text another one."""
    first = next((each for each in seen.of(PortOut) if isinstance(each.exit, PortOut) and each.exit.size > 1), None)
    if first is not None and isinstance(first.exit, PortOut):
        return f"The OUT at {seen.place(first.at)} writes {first.exit.size} bytes at a time; a letter is one, AL"
    if console == WANTED[1:] + bytes(1):
        return "The first byte is missing, and the zero behind the last is there: RSI moved on before AL was written"
    if console == WANTED[::2]:
        return "That is every second byte: RSI moves on by 2"
    text = seen.program.symbols.get("text", 0)
    if seen.reg("rsi") < text:
        return f"RSI is {seen.reg('rsi'):#x} at the end, and the text begins at {text:#x}: it went the other way"
    return ""


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
    return shown(data[:40]) + "..." * (len(data) > 40)


def why(seen: Seen) -> str:
    if len(seen.result.console) > len(WANTED) and len(set(seen.result.console)) == 1:
        return f"It is the same byte each time: RSI is {seen.reg('rsi'):#x} and does not move on"
    if seen.stop.why is Why.TIME_LIMIT and not seen.exits:
        return "No exit came, so it has executed no OUT"
    return ""


CHECKS = Checks(check, why, ends=Why.HALT)
