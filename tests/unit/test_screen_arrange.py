# SPDX-License-Identifier: GPL-2.0-or-later
"""Where panes lie: no two on the same place, all of them reachable, at any size of a terminal."""

from __future__ import annotations

import pytest

from vmm.screen.arrange import CHROME, PANES, TABS, arrange

SIZES = [(60, 16), (80, 24), (100, 30), (110, 32), (120, 40), (169, 60), (170, 48), (200, 60), (300, 100)]


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("tab", TABS)
def test_panes_are_apart_and_inside(width: int, height: int, tab: str) -> None:
    found = arrange(width, height, tab)
    taken: set[tuple[int, int]] = set()
    for place in (*found.places.values(), found.tabs):
        assert place.width > 0
        assert place.height > 0
        assert place.x >= 0
        assert place.x + place.width <= width
        assert place.y >= 0
        assert place.y + place.height <= height - CHROME
        cells = {(x, y) for x in range(place.x, place.x + place.width) for y in range(place.y, place.y + place.height)}
        assert not cells & taken
        taken |= cells
    assert len(taken) == width * (height - CHROME)  # nothing is left over


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_pane_is_seen_or_a_tab_away(width: int, height: int) -> None:
    found = arrange(width, height, "registers")
    assert set(found.places) | set(found.tabbed) == set(PANES)
    for tab in found.tabbed:
        assert tab in arrange(width, height, tab).places


def test_80x24_is_the_source_and_one_tab() -> None:
    found = arrange(80, 24, "memory")
    assert set(found.places) == {"source", "memory"}
    assert min(place.height for place in found.places.values()) >= 9


def test_a_large_terminal_shows_all_but_one() -> None:
    assert len(arrange(200, 60, "walk").places) == len(PANES) - 1
