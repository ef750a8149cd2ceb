# SPDX-License-Identifier: GPL-2.0-or-later
"""What is said of a kernel before it begins, by how this KVM runs ring 0."""

from __future__ import annotations

import pytest

from vmm.cli.emulated import note
from vmm.host.ring0 import judge

LINUX = bytes(0x1FE) + b"\x55\xaa\0\0HdrS"


@pytest.mark.parametrize(
    ("emulated", "code", "said"),
    [
        (2003, LINUX, "Linux ends at the first instruction"),
        (2003, b"\x7fELF", ""),
        (900, LINUX, "rose by 900 over 2003"),
        (3, LINUX, ""),
        (None, LINUX, ""),
    ],
)
def test_it_is_said_where_ring_0_is_emulated_and_nowhere_else(emulated: int | None, code: bytes, said: str) -> None:
    text = note(judge(2003, emulated, None), code)
    assert said in text
    assert bool(text) == bool(said)
