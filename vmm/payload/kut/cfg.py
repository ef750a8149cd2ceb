# SPDX-License-Identifier: GPL-2.0-or-later
"""A `unittests.cfg` as values. It opens no file, and knows no option of QEMU's: parameters stay text.

Source: kvm-unit-tests, docs/unittests.txt, and how its scripts read the file: `[name]` begins a test, `key = value`
lines follow, lines of other shapes are passed over. A value that begins with three double quotes ends where they end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from vmm.base import names
from vmm.errors import UsageError

FILE = "unittests.cfg"
ARCH = "x86_64"
NODEFAULT, MIGRATION, PANIC = "nodefault", "migration", "panic"  # groups that mean something to kvm-unit-tests
QUOTES = '"""'

# What the values are called here, by key. Later versions call extra_params qemu_params.
_KEYS = {
    "file": "file", "smp": "smp", "extra_params": "params", "qemu_params": "params", "test_args": "args",
    "groups": "groups", "arch": "arch", "machine": "machine", "accel": "accel", "timeout": "timeout", "check": "checks",
}  # fmt: skip
# For another monitor, or evaluated by the shell that runs QEMU; known, and without a meaning here.
_OTHERS = {"kvmtool_params": "for kvmtool", "disabled_if": "an expression of the shell, which is not evaluated here"}

_SECTION = re.compile(r"\[(.*)\]")
_VALUE = re.compile(r"([A-Za-z_]+)\s*=\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Entry:
    """One test of the file, which begins at `line` (from 1). Values are as they stand there, `groups` are words,
    `checks` pairs of a path and the text that it has to hold. `notes` say what of it has no meaning here.
    """

    name: str
    line: int
    file: str = ""
    smp: str = ""
    params: str = ""
    args: str = ""
    groups: tuple[str, ...] = ()
    arch: str = ""
    machine: str = ""
    accel: str = ""
    timeout: str = ""
    checks: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


def read_cfg(text: str, name: str = FILE) -> tuple[Entry, ...]:
    """The tests of the file, in its order. `name` is the file's, for messages.

    Raises:
        UsageError: no test is in it, one has no `file` or a name that is taken, a value has no end, or a check is not
            `path=value`. With file and line.
    """
    found: list[Entry] = []
    lines = iter(enumerate(text.splitlines(), 1))
    for number, raw in lines:
        line = raw.strip()
        if section := _SECTION.fullmatch(line):
            _finish(found, name)
            found.append(Entry(_named(section[1].strip(), number, found, name), number))
        elif (value := _VALUE.fullmatch(line)) and not line.startswith("#"):
            whole = value[2]
            if whole.startswith(QUOTES):
                whole = _quoted(whole, lines, f"{name}:{number}")
            if not found:
                raise UsageError(f"{name}:{number}: {value[1]} stands before the first [test]")
            found[-1] = _with(found[-1], value[1], whole, f"{name}:{number}")
    _finish(found, name)
    if not found:
        raise UsageError(f"{name}: it has no [test]", hint="a unittests.cfg of kvm-unit-tests (x86/unittests.cfg)")
    return tuple(found)


def _named(test: str, number: int, found: list[Entry], name: str) -> str:
    if not test:
        raise UsageError(f"{name}:{number}: a test without a name")
    for before in found:
        if before.name == test:
            raise UsageError(f"{name}:{number}: test {test!r} stands at line {before.line} too")
    return test


def _finish(found: list[Entry], name: str) -> None:
    if found and not found[-1].file:
        raise UsageError(f"{name}:{found[-1].line}: test {found[-1].name!r} has no `file`")


def _quoted(begun: str, lines: object, where: str) -> str:
    """The value between three double quotes, over lines, which become blanks."""
    parts = [begun.removeprefix(QUOTES)]
    while QUOTES not in parts[-1]:
        try:
            parts.append(next(lines)[1])  # type: ignore[call-overload]
        except StopIteration:
            raise UsageError(f"{where}: a value begins with {QUOTES} and does not end") from None
    parts[-1] = parts[-1].partition(QUOTES)[0]
    return " ".join(part.strip() for part in parts).strip()


def _with(entry: Entry, key: str, value: str, where: str) -> Entry:
    if key in _OTHERS:
        return replace(entry, notes=(*entry.notes, f"{key} is {_OTHERS[key]}"))
    if key not in _KEYS:
        return replace(entry, notes=(*entry.notes, names.unknown("key", key, [*_KEYS, *_OTHERS])))
    field = _KEYS[key]
    if field == "params":
        return replace(entry, params=value)  # the shell gets it, comment and all
    value = re.sub(r"(^|\s)#.*", "", value).strip()
    if field == "groups":
        return replace(entry, groups=tuple(value.split()))
    if field == "checks":
        return replace(entry, checks=(*entry.checks, *(_check(word, where) for word in value.split())))
    changed: dict[str, Any] = {field: value}
    return replace(entry, **changed)


def _check(word: str, where: str) -> tuple[str, str]:
    path, equals, value = word.partition("=")
    if not equals or not path:
        raise UsageError(f"{where}: check {word!r}: it is not path=value")
    return path, value


def seconds(text: str, where: str) -> float:
    """A duration of `timeout(1)`: `30`, `90s`, `2m`, `1h`; 0 is no limit.

    Raises:
        UsageError: it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None:
        raise UsageError(f"{where}: timeout {text!r}: give seconds, or a number with s, m, h or d")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]
