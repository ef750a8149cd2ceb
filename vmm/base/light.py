# SPDX-License-Identifier: GPL-2.0-or-later
"""Parts of `typing`, `enum`, `collections`, `bisect`, `functools` and `threading`, without what importing those costs.

They and what they import in turn were a third of the time of `pyvmm run hello`. So modules that every run imports take
them from here, and a type checker finds the originals in light.pyi. Each has what pyvmm uses of it, and no more;
modules that not every run imports use the originals. tests/unit/test_light.py holds each promise beside the original.
"""

from __future__ import annotations

import _thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self

Lock, RLock, local = _thread.allocate_lock, _thread.RLock, _thread._local

try:  # the parts in C, without the Python around them
    from _collections import _tuplegetter as _getter  # type: ignore[import-not-found]
    from _collections import deque as deque
    from _functools import _lru_cache_wrapper as _memo  # type: ignore[import-not-found]
    from _functools import partial as partial

    def lru_cache(maxsize: int | None) -> Callable[..., Any]:
        """As functools has it; `cache_info()` is a plain tuple."""

        def decorate(f: Any) -> Any:
            made = _memo(f, maxsize, False, lambda *counts: counts)
            for name in ("__module__", "__name__", "__qualname__", "__doc__"):
                setattr(made, name, getattr(f, name))
            made.__wrapped__ = f
            return made

        return decorate

except ImportError:  # pragma: no cover  # another Python than CPython
    from collections import deque as deque
    from functools import lru_cache as lru_cache
    from functools import partial as partial

    def _getter(i: int, _doc: None) -> Any:
        return property(lambda row: tuple.__getitem__(row, i))


def __getattr__(name: str) -> Any:
    """bisect_left and bisect_right: a file of C, and no plain run needs it."""
    if name not in ("bisect_left", "bisect_right"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import _bisect as home
    except ImportError:  # pragma: no cover  # another Python than CPython
        import bisect as home  # type: ignore[no-redef]
    return getattr(home, name)


def cache(f: Any) -> Any:
    """As functools has it."""
    return lru_cache(None)(f)


class cached_property:
    """A property that is made when it is first asked for, and kept in the value's `__dict__`."""

    def __init__(self, f: Callable[[Any], Any]) -> None:
        self._f, self.__doc__ = f, f.__doc__

    def __get__(self, value: Any, kind: type | None = None) -> Any:
        if value is None:
            return self
        return value.__dict__.setdefault(self._f.__name__, self._f(value))  # of two threads, the first


_MISSING: Any = object()


class _Row(tuple):  # type: ignore[type-arg]
    """What every named tuple can do."""

    __slots__ = ()
    _fields: tuple[str, ...] = ()

    def _replace(self, **changes: Any) -> Self:
        """The same with some fields changed."""
        return type(self)(**self._asdict() | changes)

    def _asdict(self) -> dict[str, Any]:
        return dict(zip(self._fields, self, strict=True))

    def __getnewargs__(self) -> tuple[Any, ...]:  # what copy and pickle make it of
        return tuple(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._asdict().items())})"


class _RowType(type):
    """Turns a body with annotated fields into a subclass of _Row; there is no other use of it."""

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, body)
        fields = tuple(body.get("__annotations__", ()))
        defaults = {each: body.pop(each) for each in fields if each in body}
        body |= {each: _getter(i, None) for i, each in enumerate(fields)}
        body |= {"__slots__": (), "_fields": fields, "__match_args__": fields, "__new__": _new(fields, defaults)}
        return type(name, (_Row,), body)


class NamedTuple(metaclass=_RowType):
    """Base of a tuple with named fields, some with defaults; methods and properties in the body are kept."""


def _new(fields: tuple[str, ...], defaults: dict[str, Any]) -> Callable[..., Any]:
    count, make = len(fields), tuple.__new__
    tails = {}  # number of positional values -> the defaults that follow them, where all do
    for start in range(count, -1, -1):
        tails[start] = tuple(defaults[name] for name in fields[start:])
        if start and fields[start - 1] not in defaults:
            break

    def __new__(cls: type[_Row], *args: Any, **named: Any) -> Any:
        if not named and len(args) in tails:
            return make(cls, args + tails[len(args)])
        given = dict(zip(fields, args, strict=False)) | named
        extra = len(args) > count or len(given) != len(args) + len(named) or named.keys() - set(fields)
        values = [given.get(name, defaults.get(name, _MISSING)) for name in fields]
        if extra or any(value is _MISSING for value in values):
            raise TypeError(f"{cls.__name__} is made of ({', '.join(fields)})")
        return make(cls, values)

    return __new__


class Counter(dict):  # type: ignore[type-arg]
    """How often each thing was counted."""

    def __missing__(self, _key: Any) -> int:
        return 0

    def update(self, counts: dict[Any, int]) -> None:  # type: ignore[override]
        """Add them."""
        for key, count in counts.items():
            self[key] += count

    def copy(self) -> Counter:
        return Counter(self)


class _WordType(type):
    """The class of a closed set of words: it can be iterated, and called with a text it gives the word."""

    _words: dict[str, Any]

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any]) -> Any:
        made: Any = super().__new__(cls, name, bases, body)
        made._words = {}
        for each, text in body.items():
            if type(text) is str and not each.startswith("_"):
                word = str.__new__(made, text)
                word.name = each
                setattr(made, each, word)
                made._words[text] = word
        return made

    def __call__(cls, text: str) -> Any:
        if text not in cls._words:
            raise ValueError(f"{text!r} is not a valid {cls.__name__}")
        return cls._words[text]

    def __iter__(cls) -> Iterator[Any]:
        return iter(cls._words.values())

    def __len__(cls) -> int:
        return len(cls._words)


class StrEnum(str, metaclass=_WordType):
    """Base of a closed set of words. Each is one object, so `is` compares; it is a string, and prints as one."""

    name: str

    @property
    def value(self) -> str:
        return str(self)

    def __str__(self) -> str:
        return str.__str__(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}.{self.name}: {str.__repr__(self)}>"

    def __reduce__(self) -> tuple[Any, ...]:  # a copy is the same object
        return type(self), (str.__str__(self),)

    __hash__ = str.__hash__


# What a type checker reads and a run ignores.


def assert_never(value: Any) -> Any:
    raise AssertionError(f"nobody thought of {value!r}")


class Protocol:
    """A class that says what its users must have; nobody is made of it."""


class TypeVar:
    def __init__(self, name: str, **_of: Any) -> None:
        self.name = name


class Generic:
    def __class_getitem__(cls, _of: object) -> type:
        return cls
