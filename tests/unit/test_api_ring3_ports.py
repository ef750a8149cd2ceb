# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on port I/O of ring 3, on made-up evidence."""

from dataclasses import replace

import pytest

from guest_payloads.api.ring3_ports import ON_THE_BUS, WANTED, Evidence, judge
from vmm.payload.proof.verdict import Verdict

GOOD = Evidence(dict(WANTED), ON_THE_BUS, 1)


def test_works():
    assert judge(GOOD).verdict is Verdict.WORKS


@pytest.mark.parametrize("name", WANTED)
def test_each_step_counts(name):
    found = judge(replace(GOOD, results=WANTED | {name: WANTED[name] ^ 1}))
    assert found.verdict is Verdict.BROKEN
    assert found.reason.startswith(f"{name} is ")


@pytest.mark.parametrize(
    "seen",
    [
        replace(GOOD, written=()),
        replace(GOOD, written=(*ON_THE_BUS, (0x82, 1, 0x33))),
        replace(GOOD, reads=0),
    ],
    ids=["none came", "a denied one came", "no IN"],
)
def test_the_bus_is_looked_at_too(seen):
    assert judge(seen).verdict is Verdict.BROKEN
