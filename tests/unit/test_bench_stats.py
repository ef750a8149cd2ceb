# SPDX-License-Identifier: GPL-2.0-or-later
"""The bench's judgements on made-up samples: median, MAD, when a ratio is settled, when a machine is too noisy."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from vmm.bench.compare import Budget, Goal, Row, per_operation, row_of, take_turns
from vmm.bench.stats import FEWEST_NOISY, Pair, mad, noise_verdict, noisy


class Fake:
    """A side that takes `center` ns a round, give or take."""

    def __init__(self, center: float, spread: float, seed: int = 1) -> None:
        self._chance, self._center, self._spread = random.Random(seed), center, spread
        self.rounds = 0

    def measure(self, rounds: int) -> list[float]:
        self.rounds += rounds
        return [self._center * (1 + self._spread * self._chance.uniform(-1, 1)) for _ in range(rounds)]

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("values", "expected"), [([5], 0), ([1, 1, 1], 0), ([1, 2, 3], 1), ([1, 2, 3, 4], 1), ([1, 1, 1, 100], 0)]
)
def test_mad(values, expected):
    assert mad(values) == expected


def test_a_pair_without_a_floor_has_no_ratio():
    pair = Pair([[1.0, 2.0, 3.0]])
    assert (pair.median, pair.mad, pair.n, pair.floor_median, pair.ratio) == (2.0, 1.0, 3, None, None)
    assert not pair.settled


def test_what_slows_both_sides_for_a_while_does_not_move_the_ratio():
    slow = [1.0, 1.0, 3.0, 3.0, 1.0]
    pair = Pair([[110 * factor] for factor in slow], [[100 * factor] for factor in slow])
    assert pair.ratio == pytest.approx(1.1)
    assert pair.settled


def test_one_turn_settles_nothing():
    assert Pair([[1.0]], [[1.0]]).error == math.inf


def test_turns_go_on_until_the_ratio_is_settled():
    quiet = take_turns(Fake(1000, 0.001), Fake(900, 0.001, 2), Budget(10.0, 1e-5))
    assert len(quiet.ours) == 5
    assert quiet.ratio == pytest.approx(1000 / 900, rel=0.01)
    begin_of_time = take_turns(Fake(1000, 0.9), Fake(900, 0.9, 2), Budget(0.0, 1e-6))
    assert len(begin_of_time.ours) == 5  # the bound, and yet enough for an error


def test_turns_alternate_who_comes_first():
    order = []

    class Told(Fake):
        def __init__(self, name: str) -> None:
            super().__init__(1000, 0.5, len(name))
            self._name = name

        def measure(self, rounds: int) -> list[float]:
            order.append(self._name)
            return super().measure(rounds)

    take_turns(Told("ours"), Told("floor"), Budget(0.0, 1e-6))
    assert order[-10:] == ["ours", "floor", "floor", "ours"] * 2 + ["ours", "floor"]


def test_per_operation_divides_both_sides():
    pair = per_operation(Pair([[100.0]], [[50.0]]), 10)
    assert (pair.median, pair.floor_median, pair.ratio) == (10.0, 5.0, 2.0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([100.0] * 20, False),
        ([100.0 + i % 3 for i in range(20)], False),
        ([50.0, 100.0, 150.0, 100.0, 50.0, 150.0], True),  # the MAD
        ([100.0] * 15 + [200.0] * 5, True),  # a quarter of them far off, and the MAD 0
        ([100.0] * 18 + [200.0] * 2, False),
    ],
)
def test_noise_is_spread_or_outliers(values, expected):
    assert noisy(values) is expected


def test_the_verdict_on_a_machine_is_a_sentence_or_nothing():
    assert noise_verdict(0, 0, 9.0, 1) is None
    assert noise_verdict(1, 10, 9.0, 1) is None
    text = noise_verdict(5, 10, 9.0, 2)
    assert text is not None
    assert "too noisy" in text
    assert "5 of 10 rows" in text
    assert "9.0 processes wanted to run on 2 CPUs" in text
    calm = noise_verdict(5, 10, 0.5, 2)
    assert calm is not None
    assert "wanted to run" not in calm
    assert FEWEST_NOISY == 4


@pytest.mark.parametrize(
    ("goal", "value", "met", "close"),
    [
        (Goal(1.1, ""), 1.08, True, False),
        (Goal(1.1, ""), 1.095, False, True),  # another run may say otherwise
        (Goal(1.1, ""), 1.105, False, True),
        (Goal(1.1, ""), 1.12, False, False),
        (Goal(1.9, "", better="higher"), 1.95, True, False),
        (Goal(1.9, "", better="higher"), 1.91, False, True),
        (Goal(1.9, "", better="higher"), 1.8, False, False),
    ],
)
def test_a_goal_has_a_direction_and_an_edge(goal, value, met, close):
    row = Row("r", "goals", "", median=1.0, ratio=value, error=0.01, goal=goal)
    assert (row.met, row.close) == (met, close)


def test_the_margin_is_in_units_of_the_figures_own_noise():
    assert Row("r", "goals", "", median=1.0, ratio=1.0, error=0.01, goal=Goal(1.05, "")).margin == pytest.approx(5)
    assert Row("r", "goals", "", median=1.0, ratio=1.0, error=0.02, goal=Goal(1.05, "")).margin == pytest.approx(2.5)
    of_median = Row("r", "goals", "", median=90.0, mad=8.0, n=16, goal=Goal(100, "", of="median"))
    assert of_median.margin == pytest.approx(5)
    exact = Row("r", "goals", "", median=90.0, goal=Goal(100, "", of="median"))
    assert (exact.margin, exact.met, exact.close) == (math.inf, True, False)
    at_the_edge = replace(exact, median=100.0)
    assert (at_the_edge.margin, at_the_edge.met, at_the_edge.close) == (0.0, False, True)
    unknown = Row("r", "goals", "", median=1.0, ratio=1.0, error=math.inf, goal=Goal(9.0, ""))
    assert (unknown.margin, unknown.met, unknown.close) == (0.0, False, True)  # one turn tells nothing of the next


def test_a_goal_of_the_median_does_not_look_at_the_ratio():
    row = Row("r", "goals", "", median=10.0, ratio=99.0, error=0.1, goal=Goal(20, "", of="median"))
    assert row.met is True
    assert Row("r", "goals", "").met is None
    assert Row("r", "goals", "", goal=Goal(1.0, "")).met is None


def test_a_goal_may_depend_on_the_floor():
    pair = Pair([[1400.0]] * 2, [[1000.0]] * 2)
    made = row_of(pair, Row("r", "goals", ""), lambda floor: Goal(1 + 500 / floor, "+ 0.5 us"))
    assert made.goal is not None
    assert made.goal.limit == 1.5
    assert made.met is True


def test_the_turns_that_a_ratio_needs_grow_with_the_square_of_its_error() -> None:
    settled = Pair([[1.0]] * 5, [[1.0]] * 5)
    assert settled.turns_needed == 5
    wide = Pair([[1.0], [1.1], [0.9], [1.1], [0.9]], [[1.0]] * 5)
    assert not wide.settled
    assert wide.turns_needed == math.ceil(5 * (wide.error / 0.005) ** 2) > 100
    assert Pair([[1.0]] * 5).turns_needed is None
    assert Pair([[1.0]], [[1.0]]).turns_needed is None
