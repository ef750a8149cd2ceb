# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of the screen: what is understood, what is refused in one line, what Tab makes of a beginning."""

from __future__ import annotations

import pytest

from vmm.errors import UsageError
from vmm.screen.commands import BY_NAME, COMMANDS, KINDS, Names, complete, help_lines, parse
from vmm.screen.keys import KEYS, footer

NAMES = Names(symbols=("start", "sum", "counter"), files=("first.asm:",), breaks=(1, 2), stops=(1, 2, 3), vcpus=2)


class TestParse:
    def test_a_place_and_a_condition(self) -> None:
        asked = parse(":break sum if rax == 3 and [counter] > 10")
        assert (asked.command.name, asked.rest, asked.condition) == ("break", "sum", "rax == 3 and [counter] > 10")

    def test_a_colon_is_not_needed_and_a_beginning_is_enough(self) -> None:
        assert parse("cont").command.name == "continue"
        assert parse("u done").words == ("done",)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("brek sum", "no command is called 'brek'; did you mean break"),
            ("", "no command"),
            ("break", "usage: break WHERE"),
            ("catch port", "usage: catch port"),
            ("over 3", ":over takes nothing"),
            ("break sum if", "nothing stands behind `if`"),
        ],
    )
    def test_what_is_refused(self, text: str, said: str) -> None:
        with pytest.raises(UsageError) as refused:
            parse(text)
        assert said in str(refused.value)

    def test_an_if_inside_of_a_word_is_none(self) -> None:
        assert parse("find endif").rest == "endif"
        assert parse("break if_zero").rest == "if_zero"


class TestComplete:
    def test_commands(self) -> None:
        assert complete("wa", NAMES) == ["watch ", "walk "]

    def test_labels_and_files_where_a_place_is_wanted(self) -> None:
        assert complete("break s", NAMES) == ["break start", "break sum"]
        assert complete("until fi", NAMES) == ["until first.asm:"]

    def test_registers_in_a_condition(self) -> None:
        assert "break sum if rax" in complete("break sum if ra", NAMES)

    def test_kinds_of_exit(self) -> None:
        assert "catch exit PortOut" in complete("catch exit Po", NAMES)
        assert complete("catch ", NAMES) == ["catch port", "catch mmio", "catch msr", "catch exit"]

    def test_numbers(self) -> None:
        assert complete("delete ", NAMES) == ["delete 1", "delete 2", "delete all"]
        assert complete("back ", NAMES) == ["back 1", "back 2", "back 3"]
        assert complete("vcpu ", NAMES) == ["vcpu 0", "vcpu 1"]

    def test_nothing_of_what_is_no_command(self) -> None:
        assert complete("zzz ", NAMES) == []


def test_exit_kinds_are_those_that_are_known() -> None:
    assert {"PortOut", "MmioWrite", "Halt", "ReadMsr"} <= set(KINDS)


def test_every_key_does_something_that_is_a_command() -> None:
    for key in KEYS:
        word = key.does.strip("[]").split()[0]
        assert word in BY_NAME or word in ("command", "pane")


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_the_footer_fits_and_always_says_how_to_leave(width: int) -> None:
    shown = footer(width)
    assert sum(len(key.key) + len(key.label) + 2 for key in shown) <= width
    assert {"s", "c", "q"} <= {key.key for key in shown}


def test_80_columns_have_the_keys_that_one_needs() -> None:
    assert {"s", "o", "n", "u", "c", "i", "b", "r", ":", "?", "q"} <= {key.key for key in footer(80)}


def test_the_help_names_every_command() -> None:
    text = "\n".join(help_lines())
    assert all(f":{each.usage}" in text for each in COMMANDS)
    assert "run one instruction" in help_lines("step")[0]
    with pytest.raises(UsageError):
        help_lines("zzz")
