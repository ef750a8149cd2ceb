# SPDX-License-Identifier: GPL-2.0-or-later
"""The judgement of ipi_smi on made-up evidence."""

from __future__ import annotations

import pytest

from guest_payloads.api.ipi_smi import judge


@pytest.mark.parametrize(
    ("entered", "answers", "verdict"), [(1, 1, "works"), (0, 1, "broken"), (2, 1, "broken"), (1, 0, "broken")]
)
def test_each(entered: int, answers: int, verdict: str) -> None:
    assert judge({"entered": entered, "answers": answers}).verdict == verdict
