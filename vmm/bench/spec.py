# SPDX-License-Identifier: GPL-2.0-or-later
"""A row to be: what it is called, and how it is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vmm.bench.compare import Budget, Row


class Spec(NamedTuple):
    """`measure` gives `row` with its figures."""

    row: Row
    measure: Callable[[Budget], Row]
