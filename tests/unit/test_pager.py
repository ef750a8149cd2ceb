# SPDX-License-Identifier: GPL-2.0-or-later
"""When a pager's patience ends: by what the vCPU's thread does, not by the clock."""

from __future__ import annotations

import threading

import pytest

from vmm.payload.proof import held_back as pager
from vmm.payload.proof.held_back import LOOKS, Pager


class Slot:
    """Pages that are supplied, in order."""

    def __init__(self) -> None:
        self.supplied: list[int] = []

    def supply(self, page: int, content: bytes) -> None:
        self.supplied.append(page)


class Looks(threading.Event):
    """Ends the watch after so many looks; `at` is done before the look of that number."""

    def __init__(self, limit: int, at: dict[int, object] | None = None) -> None:
        super().__init__()
        self.left, self.number, self.at = limit, 0, at or {}

    def wait(self, timeout: float | None = None) -> bool:
        self.number += 1
        if self.number in self.at:
            self.at[self.number]()
        if self.number > self.left:
            self.set()
        return self.is_set()


def watch(pages: Pager, looks: Looks) -> list[int]:
    """The pages that were supplied by the end of the watch."""
    pages.wait_patiently(1, looks)
    return pages.slot.supplied


@pytest.fixture(name="pages")
def _pages(monkeypatch: pytest.MonkeyPatch) -> Pager:
    monkeypatch.setattr(pager.schedstat, "asleep", lambda tid: True)
    return Pager(Slot(), [b"A", b"B"], asked={0})


def test_a_vcpu_that_sleeps_for_a_page_gets_it(pages: Pager) -> None:
    assert watch(pages, Looks(LOOKS)) == [0]
    assert pages.prompt  # and the next page at once


def test_one_look_less_is_too_early(pages: Pager) -> None:
    assert watch(pages, Looks(LOOKS - 1)) == []


def test_a_vcpu_that_works_may_take_as_long_as_it_likes(pages: Pager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pager.schedstat, "asleep", lambda tid: False)
    assert watch(pages, Looks(100 * LOOKS)) == []


@pytest.mark.parametrize("change", [{"asked": set()}, {"told": {0}}, {"telling": True}], ids=str)
def test_it_is_not_about_other_sleeps(pages: Pager, change: dict[str, object]) -> None:
    """No page asked for, or all of them told of, or the vCPU waits in `tell` itself."""
    for name, value in change.items():
        setattr(pages, name, value)
    assert watch(pages, Looks(10 * LOOKS)) == []


def test_whatever_happens_begins_it_anew(pages: Pager) -> None:
    later = {LOOKS - 1: lambda: pages.asked.add(1)}
    assert watch(pages, Looks(2 * LOOKS - 3, later)) == []
    pages.asked = {0}
    assert watch(pages, Looks(2 * LOOKS, later)) == [0, 1]
