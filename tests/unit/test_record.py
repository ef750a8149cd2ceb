# SPDX-License-Identifier: GPL-2.0-or-later
"""Records stand in for frozen dataclasses with slots: each promise beside what a dataclass does."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import typing
from functools import cached_property

import pytest

from vmm.base.record import Record, field, replace


class Point(Record):
    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list, compare=False)

    @property
    def total(self) -> int:
        return self.x + self.y


class Named(Point):
    name: str = "n"


class Other(Record):
    x: int
    y: int = 2


class Loose(Record, frozen=False):
    a: int = 0
    b: int = 0


class Kept(Record, cached=True):
    a: int

    @cached_property
    def twice(self) -> int:
        return self.a * 2


def test_values_come_by_position_by_name_and_by_default():
    assert (Point(1).x, Point(1).y, Point(1, 3).y, Point(y=4, x=1).y) == (1, 2, 3, 4)
    assert Named(1, name="z") == Named(1, 2, [], "z")
    assert Point(1).total == 3


def test_a_default_that_is_made_is_made_anew():
    one, other = Point(1), Point(1)
    one.tags.append("t")
    assert other.tags == []


@pytest.mark.parametrize(
    ("arguments", "named", "text"),
    [
        ((), {}, "Point needs a value for x"),
        ((1, 2, [], 4), {}, "takes 3 values, and 4 were given"),
        ((1,), {"x": 1}, "two values for x"),
        ((1,), {"z": 1}, "no field z"),
        ((), {"y": 1}, "needs a value for x"),
    ],
)
def test_arguments_that_do_not_fit_are_a_type_error(arguments, named, text):
    with pytest.raises(TypeError, match=text):
        Point(*arguments, **named)


def test_equality_is_of_type_and_fields():
    assert Point(1) == Point(1, 2, ["not compared"])
    assert Point(1) != Point(2)
    assert Point(1) != Other(1)
    assert Point(1) != (1, 2, [])
    assert hash(Point(1)) == hash(Point(1, 2, ["x"]))
    assert len({Point(1), Point(1), Point(2)}) == 2


def test_a_frozen_one_does_not_change():
    point = Point(1)
    for name in ("x", "z"):
        with pytest.raises(AttributeError, match=name):
            setattr(point, name, 5)
        with pytest.raises(AttributeError, match=name):
            delattr(point, name)
    assert not hasattr(point, "__dict__")


def test_one_that_is_not_frozen_has_its_fields_and_no_more():
    loose = Loose()
    loose.a = 5
    assert loose == Loose(5)
    with pytest.raises(AttributeError):
        loose.c = 1
    with pytest.raises(TypeError, match="unhashable"):
        hash(loose)


def test_one_with_cached_properties():
    kept = Kept(4)
    assert kept.twice == kept.twice == 8
    assert kept == Kept(4)


def test_patterns_take_it_apart():
    match Point(7):
        case Other():
            found = None
        case Point(x, y):
            found = x, y
    assert found == (7, 2)


def test_its_annotations_are_its_fields_alone():
    """Whoever evaluates them, as typing.get_type_hints does, finds no name there that only a type checker knows."""
    assert typing.get_type_hints(Named) == {"x": int, "y": int, "tags": list[str], "name": str}


def test_it_shows_itself():
    assert repr(Named(1)) == "Named(x=1, y=2, tags=[], name='n')"


def test_the_functions_of_dataclasses_work_on_it():
    assert dataclasses.is_dataclass(Point)
    assert [each.name for each in dataclasses.fields(Named)] == ["x", "y", "tags", "name"]
    assert dataclasses.replace(Point(1), y=5) == replace(Point(1), y=5) == Point(1, 5)
    assert dataclasses.asdict(Point(1)) == {"x": 1, "y": 2, "tags": []}
    assert dataclasses.astuple(Other(1)) == (1, 2)
    assert dataclasses.fields(Point)[0] is dataclasses.fields(Point)[0]  # made once


def test_making_one_imports_nothing():
    code = (
        "import sys\nfrom vmm.base.record import Record\n"
        "class A(Record):\n    a: int = 0\nA(); A(1); A(a=1)\nassert 'dataclasses' not in sys.modules"
    )
    # Coverage starts itself in every process, and imports what it likes.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    subprocess.run([sys.executable, "-c", code], check=True, env=alone)
