# SPDX-License-Identifier: GPL-2.0-or-later
"""Value types, as `dataclass(slots=True)` makes them, without its cost at import. It knows no fact and no type of ours.

A dataclass compiles source text for each class, a third of a millisecond and more each, and importing the module
`dataclasses` takes as long as ten of them. `pyvmm run` needs some sixty value types before its guest starts, and most
of them never get a value. So what a run imports uses `Record`; the rest of pyvmm uses dataclasses as usual.

Type checkers treat a record as a frozen dataclass (PEP 681), patterns match it by position, and the functions of
`dataclasses` (fields, replace, asdict, astuple) work on it: what they need is made when they first ask for it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, ClassVar, TypeVar, dataclass_transform

    T = TypeVar("T")
else:

    def dataclass_transform(**_of: Any) -> Callable[[type], type]:
        """What a type checker reads, and a run ignores."""
        return lambda kind: kind


_MISSING: Any = object()


class _Default:
    """What `field` leaves in the class body: how to make a value, whether equality looks at it."""

    def __init__(self, default: Any, factory: Callable[[], Any] | None, compare: bool) -> None:
        self.default, self.factory, self.compare = default, factory, compare


def field(*, default: Any = _MISSING, default_factory: Callable[[], Any] | None = None, compare: bool = True) -> Any:
    """A field with a fresh default for each value, or one that equality does not look at."""
    return _Default(default, default_factory, compare)


class _Fields:
    """`__dataclass_fields__`, made by the first who asks, who has imported `dataclasses` for it."""

    def __get__(self, value: object, kind: type[Any]) -> dict[str, Any]:
        import dataclasses

        rows: list[Any] = []
        for name, one in ((name, _default(one)) for name, one in kind.__record__.items()):
            made = dataclasses.field(
                default=dataclasses.MISSING if one.default is _MISSING else one.default,
                default_factory=one.factory or dataclasses.MISSING,
                compare=one.compare,
            )
            rows.append((name, next(base.__annotations__[name] for base in kind.__mro__ if name in _own(base)), made))
        plain: Any = dataclasses.make_dataclass(kind.__name__, rows)
        kind.__dataclass_fields__ = plain.__dataclass_fields__  # once for all
        return kind.__dataclass_fields__  # type: ignore[no-any-return]


def replace(value: T, **changes: Any) -> T:
    """A value of the same type with some fields changed."""
    kept = {name: getattr(value, name) for name in type(value).__match_args__}  # type: ignore[attr-defined]
    return type(value)(**kept | changes)


def _own(kind: type) -> dict[str, Any]:
    return vars(kind).get("__annotations__", {})  # type: ignore[no-any-return]


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class _Type(type):
    """Makes a subclass of Record of a body with annotated fields. A decorator would have to make each type a second
    time, for slots are fixed when a type is made: twice the cost.
    """

    def __new__(
        cls, name: str, bases: tuple[type, ...], body: dict[str, Any], *, frozen: bool = True, cached: bool = False
    ) -> Any:
        if not bases:
            return super().__new__(cls, name, bases, body)
        own = body.get("__annotations__", {})
        fields: dict[str, Any] = {}
        for base in reversed(bases):
            fields |= getattr(base, "__record__", {})
        for each in own:
            fields[each] = body.pop(each, _MISSING)
        body["__slots__"] = (*own, "__dict__") if cached else tuple(own)
        body["__record__"], body["__match_args__"] = fields, tuple(fields)
        body["__dataclass_fields__"] = _Fields()  # each its own, as __init__ is: a base's may have been made already
        if not frozen:
            body |= {"__setattr__": object.__setattr__, "__delattr__": object.__delattr__, "__hash__": None}
        if "__init__" not in body:
            body["__init__"] = _first
            body.setdefault("__reduce__", _reduce)
        return super().__new__(cls, name, bases, body)


class Record(metaclass=_Type):
    """Base of a value type: `class Port(Record): ...`, whose body annotates its fields. All have slots and compare by
    their fields. One of `class Port(Record, frozen=False)` can be changed, and not hashed; `cached=True` leaves room
    for cached properties.

    Other than a dataclass, `__init__` is one function for all types, and slower by a fraction of a microsecond.
    """

    __slots__ = ()
    if TYPE_CHECKING:  # no annotation that anybody would evaluate
        __record__: ClassVar[dict[str, Any]]  # the fields: their defaults, _MISSING, or what `field` gave

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__record__)
        return f"{type(self).__qualname__}({inside})"

    def __eq__(self, other: object) -> Any:
        return _values(self) == _values(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), *_values(self)))

    def __setattr__(self, name: str, *value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is a value: {name!r} cannot be changed; make another one")

    __delattr__ = __setattr__


def _first(self: Any, *args: Any, **named: Any) -> None:
    """The `__init__` of a type that has no value yet: it makes the one for all."""
    kind: Any = next(each for each in type(self).__mro__ if each.__dict__.get("__init__") is _first)
    kind.__init__ = init = _init(kind)
    init(self, *args, **named)


def _init(kind: Any) -> Callable[..., None]:
    fields = {name: _default(one) for name, one in kind.__record__.items()}
    setters = tuple(getattr(kind, name).__set__ for name in fields)  # of the slots: __setattr__ may refuse
    after: Callable[[Any], object] | None = getattr(kind, "__post_init__", None)
    count, names = len(setters), tuple(fields)
    plain = {name: one.default for name, one in fields.items() if one.default is not _MISSING}
    fresh = [(name, one.factory) for name, one in fields.items() if one.factory is not None]

    tails = {}  # number of positional values -> the defaults that stand behind them, where none is missing
    for start in range(count - 1, -1, -1):
        if names[start] not in plain:
            break
        tails[start] = tuple(plain[name] for name in names[start:])

    def __init__(self: object, *args: Any, **named: Any) -> None:
        if not named and len(args) == count:
            pass
        elif not named and len(args) in tails:
            args += tails[len(args)]
        elif not args and named.keys() == fields.keys():
            args = tuple([named[name] for name in names])
        else:
            given = dict(zip(names, args, strict=False)) | named
            if len(given) != len(args) + len(named):
                raise TypeError(_wrong(type(self).__name__, names, args, named))
            for name, factory in fresh:
                if name not in given:
                    given[name] = factory()
            given = plain | given
            if len(given) != count or named.keys() - fields.keys():
                raise TypeError(_wrong(type(self).__name__, names, args, named, plain.keys() | dict(fresh).keys()))
            args = tuple([given[name] for name in names])
        for put, value in zip(setters, args, strict=True):
            put(self, value)
        if after is not None:
            after(self)

    return __init__


def _wrong(
    what: str, names: tuple[str, ...], args: tuple[Any, ...], named: dict[str, Any], optional: Collection[str] = ()
) -> str:
    """What is wrong with these arguments, as Python says it of any function."""
    if len(args) > len(names):
        return f"{what} takes {len(names)} values, and {len(args)} were given"
    for name in named:
        if name not in names:
            return f"{what} has no field {name}"
        if name in names[: len(args)]:
            return f"{what} got two values for {name}"
    missing = [name for name in names[len(args) :] if name not in named and name not in optional]
    return f"{what} needs a value for {', '.join(missing)}"


def _default(one: Any) -> _Default:
    """What a field has as its default: as `field` gives it, or a value that stands for itself."""
    return one if isinstance(one, _Default) else _Default(one, None, True)


def _values(self: Any) -> tuple[Any, ...]:
    return tuple(
        [getattr(self, name) for name, one in self.__record__.items() if type(one) is not _Default or one.compare]
    )


def _reduce(self: Any) -> tuple[Any, tuple[Any, ...]]:
    """For pickle and copy: made anew of its fields, as nothing can be put into a value that is there."""
    return type(self), tuple(getattr(self, name) for name in self.__record__)
