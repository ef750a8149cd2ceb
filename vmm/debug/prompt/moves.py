# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of the prompt that run the guest, or put it elsewhere."""

from __future__ import annotations

import shlex

from vmm.debug.prompt.looks import Looks
from vmm.errors import UsageError
from vmm.machine.run.call import prepare


class Moves(Looks):
    """Each tells the stop that it came to."""

    def do_step(self, rest: str) -> None:
        """step [N]: N instructions, one without a number"""
        count = int(rest or "1", 0)
        self._went(lambda: self.session.step(count))

    def do_over(self, _rest: str) -> None:
        """over: one instruction, a call as a whole"""
        self._went(self.session.step_over)

    def do_line(self, _rest: str) -> None:
        """line: to the next line of the source"""
        self._went(self.session.step_line)

    def do_finish(self, _rest: str) -> None:
        """finish: until the function returns"""
        self._went(self.session.finish)

    def do_until(self, rest: str) -> None:
        """until WHERE: to a label, an address, FILE:LINE"""
        self._went(lambda: self.session.until(rest))

    def do_continue(self, _rest: str) -> None:
        """continue: until something stops the guest; ^C does. On with the tests goes `next`"""
        self._went(self.session.go, "it runs; ^C stops it")

    def do_back(self, rest: str) -> None:
        """back [N]: to the stop before, or to stop N"""
        self.say(f"{self.session.back(int(rest or '-1', 0))}")

    def do_call(self, rest: str) -> None:
        """call FUNCTION [ARGUMENT ...]: as Machine.call, to its first instruction: step, or continue, from there"""
        function, *words = shlex.split(rest)
        at = self.session.address(function)
        prepare(self.opened[self.number].machine, at, [self._value(each) for each in words])
        self._anew()

    def do_restart(self, _rest: str) -> None:
        """restart: the program is loaded again, and stands at its begin; other memory stays as it is"""
        machine = self.opened[self.number].machine
        if machine.program is None or not machine.program.code or machine.board.name != "own":
            raise UsageError("restart: there is no program of pyvmm's own to load again")
        machine.load(machine.program)
        self._anew()

    def _anew(self) -> None:
        self.session.begin()
        self.do_where("")
