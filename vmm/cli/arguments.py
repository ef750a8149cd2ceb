# SPDX-License-Identifier: GPL-2.0-or-later
"""The arguments of `pyvmm`: its commands, and the parser of each. It runs none of them.

Each command is a module of this package with `add_arguments(parser)` and `run(args, out) -> int`; it is imported only
when it is the one that was asked for (`pyvmm --help` needs just the names below).
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import re
from types import ModuleType
from typing import Any, NoReturn

from vmm.errors import UsageError

# name -> one line of help; the module is vmm.cli.<name>
COMMANDS = {
    "run": "run a payload (or your own .asm, .c or .bin) on /dev/kvm and report what happened",
    "debug": "run one on a terminal screen that shows the machine: step, break, look, go back",
    "learn": "a course: twelve small guests to complete, each checked by what it does on this host's KVM",
    "new": "write a guest of your own to begin with: plain, interrupt, ring 3, two vCPUs, C, with Python, with tests",
    "replay": "show a recorded trace, and handle its exits again without a device",
    "list": "the payloads that come with pyvmm",
    "disasm": "show a payload's listing: addresses, bytes, source",
    "doctor": "is KVM usable here, what kind of host is it, and what does it offer",
    "probe": "prove every paravirtual feature of this KVM by running guests, and print the table",
    "diff": "what changed between two probes: hosts, kernels; exit status 1 on a regression",
    "baseline": "what the hosts of several probes have in common: what a guest may use and still be migrated",
    "matrix": "what several hosts said of every feature, side by side, also into a page of documentation",
    "fleet": "probe many hosts at once, or fuzz on them, by Dask's scheduler: their matrix, and what differs",
    "kut": "run the images of kvm-unit-tests by their unittests.cfg, without QEMU, and tell their verdicts",
    "fuzz": "inputs by the thousand for a device or a guest; what crashes is made small and kept",
    "bench": "what pyvmm costs beside a C program and beside QEMU, with the goals it has to meet",
    "cpuid": "the CPUID leaves that KVM offers, with every bit named; explain a value from a log",
    "initrd": "make an initial file system for a Linux guest: busybox, the drivers of its devices, a shell",
    "explain": "what a feature, MSR, exit, port, structure, address, constant is, and how pyvmm proves it",
    "map": "what lies where in a guest's memory, of a payload, an image or a board",
    "docs": "the pages of the documentation on this machine: where one is, or open it in a browser",
    "help": "the help of a command, of a payload, or of a topic as explain has it",
    "completion": "what makes bash, zsh or fish complete pyvmm's arguments",
}

EXIT_STATUS = """\
exit status: 0 pass, 1 the guest failed or crashed, 2 usage, 77 cannot be shown on this host,
             99 no usable KVM or an error of pyvmm's own, 124 time limit, 130 interrupted (^C),
             141 the reader of the output went away"""


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal. argparse makes one for every argument, and would import shutil and with it the
    compressors to know the width.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=columns() - 2)


def columns() -> int:
    """Of the terminal; $COLUMNS wins, and 80 is the guess where there is none."""
    width = os.environ.get("COLUMNS", "")
    if width.isascii() and width.isdecimal():
        return max(int(width), 40)
    with contextlib.suppress(OSError):
        return max(os.get_terminal_size().columns, 40)
    return 80


class Parser(argparse.ArgumentParser):
    """Arguments that cannot be are a UsageError like any other bad input, and not a page of usage. Options may stand
    between the words of one list, as in `kut DIR --timeout 5 apic`.
    """

    _within = False  # the call of the way that mixes them
    asked = ""
    """The command whose help has the answer, of the parser above all commands: it is told what none of them knows."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        if self._within or not any(each.nargs in ("*", "+") for each in self._get_positional_actions()):
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False

    def error(self, message: str) -> NoReturn:
        if wrong := re.fullmatch(r"argument (\S+): invalid (int|float) value: (.*)", message):
            message = f"{wrong[1]} {wrong[3]}: give a {'whole ' * (wrong[2] == 'int')}number"
        raise UsageError(message, hint=f"`{self.asked or self.prog} --help`")


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser; with a command, of that alone: no other is imported, and each takes time to make."""
    top = Parser(
        prog="pyvmm",
        description="A virtual machine monitor that shows what this host's KVM really does, by running guests.",
        epilog=EXIT_STATUS,
        formatter_class=Formatter,
    )
    top.add_argument("--version", action="store_true", help="print the version, and those of what pyvmm stands on")
    top.add_argument("--json", dest="version_json", action="store_true", help="with --version: as one JSON document")
    top.asked = f"pyvmm {command}" if command is not None else ""
    subs = top.add_subparsers(prog="pyvmm", dest="command", metavar="COMMAND", title="commands")
    for name in COMMANDS if command is None else (command,):
        text = COMMANDS[name]
        sub = subs.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=EXIT_STATUS,
            formatter_class=Formatter,
        )
        if name == command:
            module(name).add_arguments(sub)
    return top


def whole() -> argparse.ArgumentParser:
    """The parser with every command's arguments, for who writes them down: completions, the manual page."""
    top = parser()
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                module(name).add_arguments(sub)
    return top


def module(command: str) -> ModuleType:
    """The command's module."""
    return importlib.import_module(f"vmm.cli.{command}")
