# SPDX-License-Identifier: GPL-2.0-or-later
"""A unittests.cfg as values: its shapes, what later versions call things, and what is wrong in it, by file and line."""

from __future__ import annotations

import pytest

from vmm.errors import UsageError
from vmm.payload.kut.cfg import Entry, read_cfg, seconds

WHOLE = """\
# a comment
[one]
file = one.flat
smp  = 2
extra_params = -cpu max -append 'a b'   # for the shell
arch = x86_64
groups = vmexit slow
accel = kvm
timeout = 30
check = /proc/a=1 /proc/b=N
check = /proc/c=Y

  #[two]
  #file = two.flat

[two three]
file=two.flat
qemu_params = -m 2048
test_args = "x y"
machine = q35
"""


def test_every_key() -> None:
    one, two = read_cfg(WHOLE)
    assert one == Entry(
        name="one",
        line=2,
        file="one.flat",
        smp="2",
        params="-cpu max -append 'a b'   # for the shell",
        groups=("vmexit", "slow"),
        arch="x86_64",
        accel="kvm",
        timeout="30",
        checks=(("/proc/a", "1"), ("/proc/b", "N"), ("/proc/c", "Y")),
    )
    assert (two.name, two.file, two.params, two.args) == ("two three", "two.flat", "-m 2048", '"x y"')
    assert (two.machine, two.smp, two.notes) == ("q35", "", ())


def test_a_value_over_lines() -> None:
    (one,) = read_cfg('[a]\nfile = a.flat\nextra_params = """-m 1\n  -smp 2\n-append x"""\ngroups = g\n')
    assert one.params == "-m 1 -smp 2 -append x"
    assert one.groups == ("g",)


def test_what_has_no_meaning_here_is_noted() -> None:
    (one,) = read_cfg("[a]\nfile = a.flat\nkvmtool_params = --x\ndisabled_if = [[ a ]]\nfoo = 1\n")
    assert [note.split(" ")[0] for note in one.notes] == ["kvmtool_params", "disabled_if", "no"]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "x.cfg: it has no [test]"),
        ("file = a.flat\n", "x.cfg:1: file stands before the first [test]"),
        ("[a]\nsmp = 1\n", "x.cfg:1: test 'a' has no `file`"),
        ("[a]\nsmp = 1\n[b]\nfile = b\n", "x.cfg:1: test 'a' has no `file`"),
        ("[a]\nfile = a\n\n[a]\nfile = b\n", "x.cfg:4: test 'a' stands at line 1 too"),
        ("[ ]\nfile = a\n", "x.cfg:1: a test without a name"),
        ("[a]\nfile = a\ncheck = /proc/a\n", "x.cfg:3: check '/proc/a': it is not path=value"),
        ('[a]\nfile = a\nextra_params = """-m 1\n', "x.cfg:3: a value begins with"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_cfg(text, "x.cfg")
    assert caught.value.text.startswith(where)


def test_durations() -> None:
    assert [seconds(text, "t") for text in ("30", "90s", "2m", "1h", "0", "0.5s")] == [30, 90, 120, 3600, 0, 0.5]
    for text in ("", "x", "1w", "-1"):
        with pytest.raises(UsageError, match="give seconds"):
            seconds(text, "t")
