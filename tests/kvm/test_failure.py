# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guests of a failed test leave in its report, on real guests: a crash, a good end, several, none that ran."""

from __future__ import annotations

import pytest

from vmm.report import failure
from vmm.report.failure import sections


def test_a_crash_is_a_post_mortem(machine) -> None:
    machine.load("mov al, 'x'; out 0xe9, al; ud2")
    machine.run()
    (console, post_mortem) = sections([machine])
    assert console == ("guest: console", "x")
    assert post_mortem[0] == "guest: post-mortem"
    assert "exception  #UD" in post_mortem[1]
    assert "ud2" in post_mortem[1]


def test_a_good_end_is_registers_alone(machine) -> None:
    machine.load("mov eax, 0x1234; hlt")
    machine.run()
    ((title, text),) = sections([machine])
    assert title == "guest: end"
    assert text.startswith("the guest halted\n")
    assert "rax 0000000000001234" in text
    assert "PML4E" not in text


def test_a_hang_is_a_post_mortem(machine) -> None:
    machine.load("here: jmp here")
    machine.run(timeout=0.1)
    ((title, text),) = sections([machine])
    assert title == "guest: post-mortem"
    assert "time limit" in text


def test_several_guests_have_numbers(machine_factory, run_payload) -> None:
    first, second, third = machine_factory(), machine_factory(), machine_factory()
    first.load("hlt")
    first.run()
    outcome = run_payload("hello")
    third.load("hlt")
    third.run()
    third.close()
    titles = [title for title, _ in sections([first, second, outcome, third])]
    assert titles == ["guest 1: end", "guest hello: console", "guest hello: outcome"]


def test_a_run_that_a_hook_ended_leaves_what_was_printed(machine) -> None:
    machine.load("mov al, 'y'; out 0xe9, al; hlt")
    machine.run()
    machine.on_port_write(0x80, lambda value: 1 / 0)
    machine.load("out 0x80, al; hlt")
    with pytest.raises(ZeroDivisionError):
        machine.run()
    assert list(sections([machine])) == [("guest: console", "y")]


def test_a_long_console_is_cut(machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failure, "MAX_CONSOLE", 3)
    machine.load("mov al, 0x1b; out 0xe9, al; out 0xe9, al; out 0xe9, al; mov al, 'z'; out 0xe9, al; hlt")
    machine.run()
    assert next(iter(sections([machine])))[1] == "(1 bytes before this are left out)\n\\x1b\\x1bz"
