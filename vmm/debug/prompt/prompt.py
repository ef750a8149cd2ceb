# SPDX-License-Identifier: GPL-2.0-or-later
"""A prompt at machines that stand still, a line at a time as in pdb: what a failed test leaves open. It knows Sessions,
and no test runner.
"""

from __future__ import annotations

import code
from typing import TYPE_CHECKING

from vmm.debug.prompt.loop import SHORT, Open
from vmm.debug.prompt.moves import Moves
from vmm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

INTRO = "step, where, registers, mem, continue, ...: help lists them; ^D goes on with the tests, q ends them"

__all__ = ["Open", "Prompt", "prompt"]


class Prompt(Moves):
    """All commands; those of the prompt itself are here."""

    def do_machine(self, rest: str) -> None:
        """machine [N]: the machines of this test, or look at machine N"""
        if rest:
            number = int(rest, 0) - 1
            if not 0 <= number < len(self.opened):
                raise UsageError(f"machine {rest}: there are 1 to {len(self.opened)}")
            self._choose(number)
        for number in range(len(self.opened)):
            result = self.opened[number].result
            ended = result.stop.text if result is not None else "has not ended a run"
            self.say(f"{'*' if number == self.number else ' '} machine {number + 1}: {ended}")
        self.do_where("")

    def do_vcpu(self, rest: str) -> None:
        """vcpu N: the one that is meant from now on"""
        number = int(rest, 0)
        self.session.where(number)
        self.session.vcpu = number
        self.do_where("")

    def do_python(self, rest: str) -> None:
        """python, or !CODE: Python with m (the machine), s (its Session), machines, and the test's own names"""
        opened = [each.machine for each in self.opened]
        names = {**self.given, "m": opened[self.number], "s": self.session, "machines": opened}
        console = code.InteractiveConsole(names)
        if rest:
            console.push(rest)
        else:
            console.interact("m, s, machines and the test's own names; ^D comes back", exitmsg="")
        self.given.update({name: value for name, value in names.items() if name not in ("m", "s", "machines")})

    def completenames(self, text: str, *ignored: Any) -> list[str]:
        """Of all commands."""
        return [each for each in self._commands() if each.startswith(text)]

    def _commands(self) -> dict[str, str]:
        """What each takes and does."""
        others = {name: text for name, text in self._monitor.commands.items() if name not in ("help", "reset")}
        found = {name: f"{name} {text}" if text[0].isupper() else f"{name}: {text}" for name, text in others.items()}
        own = [name for name in self.get_names() if name.startswith("do_")]
        return dict(sorted({**found, **{name[3:]: getattr(self, name).__doc__ for name in own}}.items()))

    def do_help(self, rest: str) -> None:
        """help [COMMAND]: this list"""
        wanted, commands = SHORT.get(rest, rest), self._commands()
        if wanted and wanted not in commands:
            raise UsageError(f"there is no command {rest!r}", hint="help")
        short = {whole: each for each, whole in SHORT.items() if each.isalpha() and each != "EOF"}
        for name, text in commands.items():
            if not wanted or name == wanted:
                self.say(f"{short.get(name, ''):4} {text}")

    def do_next(self, _rest: str) -> bool:
        """next, or ^D: on with the tests; the machines go as after any test"""
        return True

    def do_quit(self, _rest: str) -> bool:
        """quit: no more tests"""
        self.quitting = True
        return True


def prompt(opened: Sequence[Open], names: dict[str, Any]) -> bool:
    """Serve lines until there is no more input; the last of these machines is looked at first. True: no more tests."""
    made = Prompt(opened, names)
    try:
        made.default("where")
        made.cmdloop(INTRO)
        return made.quitting
    finally:
        made.close()
