# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on guest_memfd, on made-up evidence."""

from __future__ import annotations

import pytest

from guest_payloads.api.guest_memfd import IN_DECOY, IN_MEMFD, WRITTEN, Evidence, judge
from vmm.payload.proof.verdict import Verdict


def test_works():
    assert judge(Evidence(IN_MEMFD, WRITTEN, 0)).verdict is Verdict.WORKS


def test_inert_where_the_slots_address_is_used():
    assert judge(Evidence(IN_DECOY, 0, WRITTEN)).verdict is Verdict.INERT


@pytest.mark.parametrize(
    "numbers",
    [(IN_DECOY, WRITTEN, 0), (IN_MEMFD, 0, WRITTEN), (IN_MEMFD, 0, 0), (IN_MEMFD, WRITTEN, WRITTEN), (0, WRITTEN, 0)],
)
def test_broken(numbers):
    assert judge(Evidence(*numbers)).verdict is Verdict.BROKEN
