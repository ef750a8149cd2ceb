# SPDX-License-Identifier: GPL-2.0-or-later
"""Words as a shell makes them, compared with the shell's own; and that no command is run."""

from __future__ import annotations

import os
import subprocess

import pytest

from vmm.payload.kut.shell import NoWords, words

VARIABLES = {"A": "a1", "TWO": "x  y", "MAX_SMP": "7"}
LIKE_THE_SHELL = [
    "-cpu max -append 'a b'",
    '-append "a \\"b\\" \\$A c"',
    '--append "1 $A ${TWO}"',
    "-append $TWO -x",
    "a\\ b 'c'\"d\"e ''",
    "-m 4g # -smp 2",
    "a#b c",
    "x $ y",
    '"$NOTHING" $NOTHING z',
    "$A$TWO$A",
]


@pytest.mark.parametrize("text", LIKE_THE_SHELL)
def test_as_the_shell(text: str) -> None:
    script = f"set -- {text}\nfor each; do printf '%s\\0' \"$each\"; done"
    env = {"PATH": os.environ["PATH"], **VARIABLES}
    done = subprocess.run(["sh", "-c", script], capture_output=True, check=True, env=env)
    assert words(text, VARIABLES, lambda: 0) == done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize("text", ['--append "10 `date +%s`"', '--append "10 $(date +%s)"'])
def test_the_time(text: str) -> None:
    assert words(text, {}, lambda: 1234) == ["--append", "10 1234"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("`rm -rf x`", "the command 'rm -rf x' is not run"),
        ("$(id)", "the command 'id' is not run"),
        ("a; b", "';' is the shell's to do"),
        ("a | b", "'|' is the shell's to do"),
        ("$((1+1))", "is the shell's to do"),
        ("${A:-b}", "is the shell's to do"),
        ("'a", "a quote does not end"),
        ('"a', "a quote does not end"),
        ("`date", "is the shell's to do"),
    ],
)
def test_what_only_a_shell_can_do_is_refused(text: str, reason: str) -> None:
    with pytest.raises(NoWords) as caught:
        words(text, VARIABLES, lambda: 0)
    assert reason in str(caught.value)
