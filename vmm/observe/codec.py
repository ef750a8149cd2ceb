# SPDX-License-Identifier: GPL-2.0-or-later
"""Values of our types as JSON and back, checked against their annotations. It knows no file.

A value is an object with its class's name under "is"; bytes are hexadecimal text; a tuple is a list. Reading is
strict: a missing, unknown or ill-typed field is a ValueError that names it.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping
from enum import StrEnum
from types import MemberDescriptorType
from typing import Any

from vmm.base import light
from vmm.kvm.exits import Exit

TAG = "is"
WORDS: Any = (StrEnum, light.StrEnum)


def encode(value: Any) -> Any:
    """`value` as json.dumps takes it."""
    kind: Any = type(value)
    if _is_record(kind):
        return {TAG: kind.__name__} | {name: encode(getattr(value, name)) for name in kind.__match_args__}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [encode(each) for each in value]
    return str(value) if isinstance(value, WORDS) else value


def decode(hint: Any, value: Any, what: str = "value") -> Any:
    """The value of type `hint` that `encode` made this of.

    Raises:
        ValueError: it is none; the message begins with `what`, the field's name.
    """
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _union(typing.get_args(hint), value, what)
    if origin is tuple:
        return _tuple(typing.get_args(hint), value, what)
    if origin is dict:
        key, each = typing.get_args(hint)
        if not isinstance(value, dict):
            raise ValueError(f"{what} is no object")
        return {decode(key, k, f"a key of {what}"): decode(each, v, f"{what}.{k:.40}") for k, v in value.items()}
    if hint is Any:
        return value
    if isinstance(hint, type) and issubclass(hint, WORDS):
        return hint(decode(str, value, what))  # its ValueError names the value
    if hint is bytes:
        try:
            return bytes.fromhex(decode(str, value, what))
        except ValueError as error:
            raise ValueError(f"{what} is no hexadecimal text") from error
    if _is_record(hint):
        return _object(hint, value, what)
    if type(value) is not hint:  # bool is not an int here
        raise ValueError(f"{what} is no {hint.__name__}")
    return value


def _is_record(kind: Any) -> bool:
    return hasattr(kind, "__match_args__")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of its fields, in order."""
    hints = typing.get_type_hints(kind, localns={"Exit": Exit})  # which vmm.machine.ends names for type checkers alone
    return {name: hints[name] for name in kind.__match_args__}


def _object(kind: Any, value: Any, what: str) -> Any:
    if not isinstance(value, Mapping) or value.get(TAG) != kind.__name__:
        raise ValueError(f"{what} is no {kind.__name__}")
    hints = _hints(kind)
    for name in (*hints, *value):
        if name != TAG and (name not in hints or (name not in value and not _has_default(kind, name))):
            raise ValueError(f"{kind.__name__} {'lacks' if name in hints else 'has an unknown field'} {name!r:.40}")
    return kind(**{name: decode(each, value[name], name) for name, each in hints.items() if name in value})


def _has_default(kind: Any, name: str) -> bool:
    """A field that an older trace may lack. (A class whose fields are slots has no defaults here.)"""
    return name in vars(kind) and not isinstance(vars(kind)[name], MemberDescriptorType)


def _union(members: tuple[Any, ...], value: Any, what: str) -> Any:
    """Objects by their tag; plain values by their JSON type, which no two members share."""
    if isinstance(value, Mapping):
        for member in members:
            if _is_record(member) and member.__name__ == value.get(TAG):
                return _object(member, value, what)
        raise ValueError(f"{what} is of unknown kind {str(value.get(TAG))!r:.40}")
    for member in members:
        if value is None and member is types.NoneType:
            return None
        if value is not None and member is not types.NoneType and not _is_record(member):
            text = isinstance(value, str)
            if text == (member in (str, bytes)):
                return decode(member, value, what)
    raise ValueError(f"{what} cannot be {str(value)!r:.40}")


def _tuple(members: tuple[Any, ...], value: Any, what: str) -> Any:
    if not isinstance(value, list):
        raise ValueError(f"{what} is no list")
    if len(members) == 2 and members[1] is ...:
        return tuple(decode(members[0], each, what) for each in value)
    if len(value) != len(members):
        raise ValueError(f"{what} has {len(value)} elements, not {len(members)}")
    return tuple(decode(member, each, what) for member, each in zip(members, value, strict=True))
