# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of the screen: which commands there are, what they take, how a word is completed. Text alone: what
a command does is actions.py's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from vmm.base.names import unknown
from vmm.errors import UsageError
from vmm.kvm import exits
from vmm.machine.x86.registers import names as register_names
from vmm.screen.arrange import PANES
from vmm.screen.scene import REGISTER_KINDS

ACCESS = ("write", "read", "access")


class Command(NamedTuple):
    """`takes` says what follows it, in order; the last of them repeats. `least` words it must have."""

    name: str
    usage: str
    help: str
    takes: tuple[str, ...] = ()
    least: int = 0
    short: str = ""
    key: str = ""


COMMANDS = (
    Command("step", "step [N]", "run one instruction, or N of them", ("number",), 0, "s", "s"),
    Command("over", "over", "step, but run a call to its return", (), 0, "o", "o"),
    Command("line", "line", "run to the next line of the source", (), 0, "n", "n"),
    Command("finish", "finish", "run until the function returns", (), 0, "f", "f"),
    Command("until", "until WHERE", "run until it comes to a label, an address, file:line", ("place",), 1, "u", "u"),
    Command("continue", "continue", "run until something stops it", (), 0, "c", "c"),
    Command("interrupt", "interrupt", "stop a guest that runs", (), 0, "i", "i"),
    Command(
        "break",
        "break WHERE [if CONDITION]",
        "stop there: label, address, line, file:line",
        ("place", "if"),
        1,
        "b",
        "b",
    ),
    Command("hbreak", "hbreak WHERE [if CONDITION]", "the same by a debug register", ("place", "if"), 1),
    Command(
        "watch",
        "watch WHERE [SIZE] [write|read|access]",
        "stop when memory is touched",
        ("place", "access"),
        1,
        "w",
        "w",
    ),
    Command(
        "catch",
        "catch port P[-Q] | mmio A[-B] | msr M | exit KIND [if CONDITION]",
        "stop at an exit, before it is served",
        ("catch", "place", "if"),
        2,
    ),
    Command("delete", "delete N|all", "remove a breakpoint", ("break",), 1, "d"),
    Command("back", "back [N]", "go back to the stop before, or to stop N", ("stop",), 0, "r", "r"),
    Command("set", "set REGISTER VALUE | set ADDRESS BYTES", "change a register or memory", ("target", "value"), 2),
    Command("mem", "mem EXPRESSION", "show memory there; a register is followed", ("value",), 1, "m", "m"),
    Command("phys", "phys ADDRESS", "show guest-physical memory", ("value",), 1),
    Command("stack", "stack [EXPRESSION]", "show the stack from there; without, from RSP", ("value",)),
    Command("walk", "walk EXPRESSION", "the page walk of an address", ("value",), 1),
    Command(
        "registers",
        "registers [general|vector|x87|debug|msrs]",
        "which registers are in their pane; without, the next kind",
        ("registers",),
        0,
        "",
        "e",
    ),
    Command("goto", "goto WHERE", "look at the code there; without, where the vCPU is", ("place",), 0, "g", "g"),
    Command("find", "find TEXT | find 0xBYTES", "search from where the memory pane is on", ("text",), 1, "/"),
    Command("print", "print EXPRESSION", "a value: registers, labels, [memory]", ("value",), 1, "p"),
    Command("vcpu", "vcpu N", "look at another vCPU", ("number",), 1, "", "v"),
    Command("code", "code", "source or disassembly", (), 0, "", "t"),
    Command("show", "show PANE", f"bring a pane to the front: {', '.join(PANES[1:])}", ("pane",), 1),
    Command("keys", "keys TEXT", "type at the guest's serial port; \\n ends a line", ("text",), 1),
    Command("theme", "theme dark|light|terminal", "colours", ("theme",), 1),
    Command("help", "help [COMMAND]", "this list", ("command",), 0, "h", "?"),
    Command("quit", "quit", "end the guest and leave", (), 0, "q", "q"),
)
THEMES = ("dark", "light", "terminal")
CATCHES = ("port", "mmio", "msr", "exit")
BY_NAME = {each.name: each for each in COMMANDS} | {each.short: each for each in COMMANDS if each.short}
KINDS = tuple(
    sorted(
        name
        for name, value in vars(exits).items()
        if isinstance(value, type) and value.__module__ == exits.__name__ and name != "Interrupted"
    )
)
"""The kinds of exit, by their classes in vmm.kvm.exits."""


class Asked(NamedTuple):
    """A command line, taken apart. `condition` is what stood behind `if`."""

    command: Command
    words: tuple[str, ...]
    rest: str
    condition: str = ""


def parse(text: str) -> Asked:
    """What a line asks for; a colon at its beginning is allowed.

    Raises:
        UsageError: no such command, or too few words.
    """
    name, _, rest = text.strip().removeprefix(":").strip().partition(" ")
    rest = rest.strip()
    if name and name not in BY_NAME:
        whole = [each for each in COMMANDS if each.name.startswith(name)]
        if len(whole) != 1:
            raise UsageError(unknown("command", name, [each.name for each in COMMANDS]), hint=":help")
        name = whole[0].name
    if not name:
        raise UsageError("no command", hint=":help lists them")
    command = BY_NAME[name]
    before, condition = _condition(rest) if "if" in command.takes else (rest, "")
    words = tuple(before.split())
    if len(words) < command.least:
        raise UsageError(f"usage: {command.usage}")
    if not command.takes and words:
        raise UsageError(f":{command.name} takes nothing", hint=f"usage: {command.usage}")
    return Asked(command, words, before, condition)


def _condition(rest: str) -> tuple[str, str]:
    before, found, condition = f" {rest} ".partition(" if ")
    if found and not condition.strip():
        raise UsageError("nothing stands behind `if`", hint="for example if rax == 3")
    return before.strip(), condition.strip()


class Names(NamedTuple):
    """What words may be completed to: labels, source files, breakpoints and stops by number."""

    symbols: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    breaks: tuple[int, ...] = ()
    stops: tuple[int, ...] = ()
    vcpus: int = 1


def complete(text: str, names: Names) -> list[str]:
    """The whole lines that this one may become, best first; none, where nothing fits."""
    head, _, last = text.rpartition(" ")
    if not head.strip():
        return [f"{each.name} " if each.takes else each.name for each in COMMANDS if each.name.startswith(last)]
    name, *words = head.split()
    command = BY_NAME.get(name)
    if command is None:
        return []
    choices = _choices(command, words, names)
    return [f"{head} {each}" for each in choices if last and each.startswith(last) and each != last] or (
        [f"{head} {each}" for each in choices] if not last and len(choices) <= 40 else []
    )


def _choices(command: Command, words: list[str], names: Names) -> list[str]:
    if "if" in words or (words and command.name in ("print", "mem", "walk", "stack")):
        return [*register_names(), *names.symbols]
    if command.name == "catch" and words:
        return list(KINDS) if words[0] == "exit" and len(words) == 1 else ["if"] if len(words) > 1 else []
    takes = command.takes[min(len(words), len(command.takes) - 1)] if command.takes else ""
    table: dict[str, Iterable[str]] = {
        "place": (*names.symbols, *names.files),
        "value": (*register_names(), *names.symbols),
        "target": (*register_names(), *names.symbols),
        "if": ("if",),
        "access": ACCESS,
        "catch": CATCHES,
        "pane": PANES,
        "theme": THEMES,
        "registers": REGISTER_KINDS,
        "break": (*map(str, names.breaks), "all"),
        "stop": map(str, names.stops),
        "command": (each.name for each in COMMANDS),
        "number": map(str, range(names.vcpus)) if command.name == "vcpu" else (),
    }
    return list(table.get(takes, ()))


def table() -> Iterable[str]:
    """The rows of the documentation's table."""
    for each in COMMANDS:
        key = f"`{each.key}`" if each.key else ""
        usage = each.usage.replace("|", "\\|")
        yield f"| `:{usage}` | {key} | {each.help} |"


def help_lines(about: str = "") -> list[str]:
    """Each command with its key, what it takes and what it does."""
    rows = [each for each in COMMANDS if not about or each is BY_NAME.get(about)]
    if not rows:
        raise UsageError(unknown("command", about, [each.name for each in COMMANDS]))
    return [f"{each.key or ' '}  :{each.usage}\n       {each.help}" for each in rows]
