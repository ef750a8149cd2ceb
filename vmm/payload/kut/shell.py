# SPDX-License-Identifier: GPL-2.0-or-later
"""Parameters of a test as the words that a shell would make of them. No shell is run, whatever a file says.

The scripts of kvm-unit-tests hand `extra_params` to eval. Of what a shell does there, quotes, backslashes, variables
and the time (`date +%s`) are done here, for those are what the files use; anything else is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_NAME = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_COMMAND = re.compile(r"`([^`]*)`|\$\(([^()]*)\)")
_BLANKS = " \t\n"
_ACTS = "|&;<>()"


class NoWords(Exception):
    """The text asks for what only a shell can do, or a quote does not end."""


def words(text: str, variables: Mapping[str, str], now: Callable[[], int]) -> list[str]:
    """The words of `text`. `now()` is the time in s since 1970, for `date +%s`. A variable without a value is empty.

    Raises:
        NoWords: a command other than `date +%s`, an operator of the shell, a quote without its end.
    """
    found: list[str] = []
    word: str | None = None
    at = 0
    while at < len(text):
        char = text[at]
        if char in _BLANKS:
            if word is not None:
                found.append(word)
            word, at = None, at + 1
        elif char == "#" and word is None:
            break
        elif char == "'":
            end = text.find("'", at + 1)
            if end < 0:
                raise NoWords(f"a quote does not end: {text[at:]}")
            word, at = (word or "") + text[at + 1 : end], end + 1
        elif char == '"':
            inner, at = _double(text, at + 1, variables, now)
            word = (word or "") + inner
        elif char == "\\" and at + 1 < len(text):
            word, at = (word or "") + text[at + 1], at + 2
        elif char in "$`":
            value, at = _value(text, at, variables, now)
            first, *rest = value.split() or [""]
            word = (word or "") + first if value or word is not None else None
            for each in rest:
                found.append(word or "")
                word = each
        elif char in _ACTS:
            raise NoWords(f"{char!r} is the shell's to do, and no shell is run: {text}")
        else:
            word, at = (word or "") + char, at + 1
    return found if word is None else [*found, word]


def _double(text: str, at: int, variables: Mapping[str, str], now: Callable[[], int]) -> tuple[str, int]:
    """What stands up to the closing double quote, and the place behind it."""
    parts: list[str] = []
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and text[at + 1 : at + 2] in ('"', "\\", "$", "`"):
            parts.append(text[at + 1])
            at += 2
        elif text[at] in "$`":
            value, at = _value(text, at, variables, now)
            parts.append(value)
        else:
            parts.append(text[at])
            at += 1
    if at >= len(text):
        raise NoWords(f"a quote does not end: {text}")
    return "".join(parts), at + 1


def _value(text: str, at: int, variables: Mapping[str, str], now: Callable[[], int]) -> tuple[str, int]:
    if command := _COMMAND.match(text, at):
        asked = (command[1] if command[1] is not None else command[2]).strip()
        if asked != "date +%s":
            raise NoWords(f"the command {asked!r} is not run; of commands only `date +%s` is known here")
        return str(now()), command.end()
    if name := _NAME.match(text, at):
        return variables.get(name[1] or name[2], ""), name.end()
    if text[at] == "$" and (at + 1 >= len(text) or text[at + 1] in _BLANKS + "\"'"):
        return "$", at + 1
    raise NoWords(f"{text[at : at + 20]!r} is the shell's to do, and no shell is run")
