# SPDX-License-Identifier: GPL-2.0-or-later
"""The light twins of the standard library: each promise is asked of the original and of ours, with one answer."""

from __future__ import annotations

import bisect
import collections
import copy
import enum
import functools
import pickle
import threading
import typing
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vmm.base import light


class LightPoint(light.NamedTuple):  # type: ignore[misc, valid-type]
    """A point."""

    x: int
    y: int = 2
    z: int = 3

    @property
    def total(self) -> int:
        return self.x + self.y + self.z


class RealPoint(typing.NamedTuple):
    """A point."""

    x: int
    y: int = 2
    z: int = 3

    @property
    def total(self) -> int:
        return self.x + self.y + self.z


class LightColour(light.StrEnum):
    RED = "red"
    DARK_BLUE = "dark blue"


class RealColour(enum.StrEnum):
    RED = "red"
    DARK_BLUE = "dark blue"


both_points = pytest.mark.parametrize("Point", [LightPoint, RealPoint])
both_colours = pytest.mark.parametrize("Colour", [LightColour, RealColour])
ORIGINALS = SimpleNamespace(
    Counter=collections.Counter, deque=collections.deque, cache=functools.cache, lru_cache=functools.lru_cache,
    cached_property=functools.cached_property, partial=functools.partial,
    Lock=threading.Lock, RLock=threading.RLock, local=threading.local, assert_never=typing.assert_never,
)  # fmt: skip
both = pytest.mark.parametrize("lib", [light, ORIGINALS], ids=["light", "original"])


@both_points
def test_a_named_tuple_is_a_tuple_with_names(Point: Any) -> None:
    point = Point(1, z=5)
    assert (point.x, point.y, point.z, point.total) == (1, 2, 5, 8)
    assert point == (1, 2, 5) == Point(1, 2, 5)
    assert hash(point) == hash((1, 2, 5))
    assert point[1:] == (2, 5)
    assert [*point] == [1, 2, 5]
    assert sorted([Point(2), Point(1)]) == [Point(1), Point(2)]
    assert point._replace(x=7) == Point(7, 2, 5)
    assert type(point._replace(x=7)) is Point
    assert point._asdict() == {"x": 1, "y": 2, "z": 5}
    assert Point._fields == ("x", "y", "z") == Point.__match_args__
    assert repr(point) == f"{Point.__name__}(x=1, y=2, z=5)"
    assert Point.__doc__ == "A point."
    match point:
        case Point(x, 2, z=z):
            assert (x, z) == (1, 5)
        case _:
            pytest.fail("the pattern did not match")
    assert copy.copy(point) == copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point
    assert type(pickle.loads(pickle.dumps(point))) is Point


@both_points
@pytest.mark.parametrize(("args", "named"), [((), {}), ((1, 2, 3, 4), {}), ((1,), {"x": 2}), ((1,), {"w": 2})])
def test_a_named_tuple_of_the_wrong_values_is_a_type_error(Point: Any, args: Any, named: Any) -> None:
    with pytest.raises(TypeError):
        Point(*args, **named)


@both_points
def test_a_named_tuple_stays_as_it_is(Point: Any) -> None:
    with pytest.raises(AttributeError):
        Point(1).x = 2
    with pytest.raises(AttributeError):
        Point(1).other = 2


@both_colours
def test_words_are_strings_and_one_object_each(Colour: Any) -> None:
    assert Colour("dark blue") is Colour.DARK_BLUE
    assert Colour(Colour.RED) is Colour.RED
    assert Colour.RED == "red"
    assert f"{Colour.RED}" == "red" == str(Colour.RED)
    assert {"red": 1}[Colour.RED] == 1
    assert (Colour.DARK_BLUE.name, Colour.DARK_BLUE.value) == ("DARK_BLUE", "dark blue")
    assert list(Colour) == [Colour.RED, Colour.DARK_BLUE]
    assert len(Colour) == 2
    assert isinstance(Colour.RED, Colour)
    assert repr(Colour.RED) == f"<{Colour.__name__}.RED: 'red'>"
    assert copy.deepcopy(Colour.RED) is Colour.RED
    assert pickle.loads(pickle.dumps(Colour.RED)) is Colour.RED
    with pytest.raises(ValueError, match=f"'green' is not a valid {Colour.__name__}"):
        Colour("green")


@both
def test_a_counter_counts(lib: Any) -> None:
    counter = lib.Counter()
    counter["a"] += 1
    counter.update({"a": 2, "b": 1})
    counter.update(lib.Counter(b=5))
    assert counter == {"a": 3, "b": 6}
    assert counter["c"] == 0
    assert "c" not in counter
    other = counter.copy()
    other["a"] += 1
    assert counter["a"] == 3
    assert other["z"] == 0
    assert dict(sorted(counter.items())) == {"a": 3, "b": 6}


@both
def test_what_is_kept_is_made_once(lib: Any) -> None:
    made: list[Any] = []

    @lib.cache
    def double(n: int) -> int:
        """Twice."""
        made.append(n)
        return 2 * n

    @lib.lru_cache(maxsize=1)
    def triple(n: int) -> int:
        made.append(n)
        return 3 * n

    assert (double(2), double(2), double(3), made) == (4, 4, 6, [2, 3])
    assert (double.__name__, double.__doc__, double.__wrapped__(5)) == ("double", "Twice.", 10)
    double.cache_clear()
    made.clear()
    assert double(2) == 4
    assert (triple(1), triple(2), triple(1), made) == (3, 6, 3, [2, 1, 2, 1])


@both
def test_a_cached_property_is_made_once_for_each(lib: Any) -> None:
    class Thing:
        made = 0

        @lib.cached_property
        def number(self) -> int:
            """A number."""
            Thing.made += 1
            return Thing.made

    one, other = Thing(), Thing()
    assert (one.number, one.number, other.number) == (1, 1, 2)
    assert Thing.number.__doc__ == "A number."


@both
def test_the_rest_is_the_original_in_c(lib: Any) -> None:
    assert lib.partial(int, base=16)("ff") == 255
    assert list(lib.deque([1, 2, 3], maxlen=2)) == [2, 3]
    with lib.Lock() as taken, lib.RLock():
        assert taken
    kept = lib.local()
    kept.value = 1
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append(hasattr(kept, "value")))
    thread.start()
    thread.join()
    assert seen == [False]
    with pytest.raises(AssertionError):
        lib.assert_never(3)


def test_types_for_the_checker_alone_cost_nothing_and_do_nothing() -> None:
    class Names(light.Protocol):
        name: str

    class Box(light.Generic[light.TypeVar("T")]):  # type: ignore[misc]
        pass

    assert Box[int] is Box
    assert Names.__mro__[1] is light.Protocol


def test_no_module_of_the_standard_library_comes_with_it() -> None:
    known = {name for name, value in vars(light).items() if isinstance(value, ModuleType) and name.isidentifier()}
    assert known == {"_thread"}


def test_bisect_is_the_original_in_c() -> None:
    assert light.bisect_left is bisect.bisect_left
    assert light.bisect_right is bisect.bisect_right
