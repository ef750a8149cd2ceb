# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of the prompt that show or change what stands still."""

from __future__ import annotations

from vmm.debug import conditions
from vmm.debug.prompt.loop import Loop
from vmm.machine.x86.registers import names as register_names

ROW = 16
MOST_BYTES = 1 << 16
AROUND = 5  # source lines before and after the one that a vCPU is at


class Looks(Loop):
    """None of them lets the guest run."""

    def do_where(self, _rest: str) -> None:
        """where: each vCPU's place, with its source line"""
        self.default("where")

    def do_list(self, _rest: str) -> None:
        """list: the source around the place"""
        session = self.session
        here, program = session.where(), session.program
        rows = program.written if program else ()
        text = {each.line: each.text for each in rows if each.file == here.file and each.line}
        if not here.file or not text:
            self.do_dis("")
            return
        numbers = sorted(text)
        at = numbers.index(here.line)
        for number in numbers[max(0, at - AROUND) : at + AROUND + 1]:
            self.say(f"{'->' if number == here.line else '  '} {number:>4}  {text[number].rstrip()}")

    def do_dis(self, rest: str) -> None:
        """dis [WHERE]: eight instructions from there on"""
        for each in self.session.disassemble(rest or None):
            self.say(f"{each.address:#10x}  {each.bytes.hex(' '):30}  {each.text}")

    def do_registers(self, _rest: str) -> None:
        """registers: rax to r15, rip, rflags; `print cr3` and `set` know all names"""
        rows = [f"{name:>7} {value:016x}" for name, value in self.session.registers().items()]
        for at in range(0, len(rows), 3):
            self.say("  ".join(rows[at : at + 3]))

    def do_mem(self, rest: str) -> None:
        """mem WHERE [BYTES]: guest-virtual memory; `phys` shows guest-physical"""
        where, *size = rest.split()
        at = self._value(where) if where in register_names() else self.session.address(where)
        data = self.session.read(at, min(max(int(size[0], 0) if size else 4 * ROW, 1), MOST_BYTES))
        for offset in range(0, len(data), ROW):
            row = data[offset : offset + ROW]
            text = "".join(chr(each) if 0x20 <= each < 0x7F else "." for each in row)
            self.say(f"{at + offset:#012x}  {row.hex(' '):47}  {text}")

    def do_print(self, rest: str) -> None:
        """print EXPRESSION: registers, labels, [memory]: rax + 8, [counter], u8[rsp + 4]"""
        value = self._value(rest)
        program = self.session.program
        label = (program.symbolize(value) if program else None) or ""
        self.say(f"{value:#x} ({value})  {label}".rstrip())

    def _value(self, text: str) -> int:
        return conditions.evaluate(conditions.parse(text), self.session)

    def do_stops(self, _rest: str) -> None:
        """stops: all so far; `back N` goes to one"""
        for each in self.session.stops or ():
            self.say(str(each))
        if not self.session.stops:
            self.say("none yet")

    def do_console(self, _rest: str) -> None:
        """console: what the guest has written"""
        self.say(self.opened[self.number].machine.sink.data.decode("utf-8", "replace") or "nothing")

    def do_postmortem(self, _rest: str) -> None:
        """postmortem: how the test's run ended"""
        self.say(self.opened[self.number].ending or "its last run did not crash")

    # -- changing

    def do_set(self, rest: str) -> None:
        """set REGISTER VALUE, set WHERE BYTES: an expression, or bytes as hexadecimal digits"""
        target, value = rest.split(None, 1)
        if target.lower() in register_names():
            self.session.set_register(target.lower(), self._value(value))
            self.do_print(target.lower())
        else:
            data = bytes.fromhex(value.replace("0x", ""))
            self.session.write(target, data)
            self.say(f"{len(data)} bytes at {self.session.address(target):#x}")
