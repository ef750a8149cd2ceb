# SPDX-License-Identifier: GPL-2.0-or-later
"""The host half of a payload as a value: which of its functions there are. It knows no guest and imports no module.

    setup(guest)    before the run: hooks, memory, features; what check needs of it goes into guest.kept
    drive(guest)    in place of the plain `guest.run()`
    check(guest)    after a clean end: compare results, `guest.expect(...)` each thing that must hold
    prove(lab)      in place of all three: the finding, or one for each name of the header's `proves`
    refusals(lab)   what must be refused, asked where the proof found something; a list is of the first name

`guest` is a vmm.payload.guest.Guest, `lab` a vmm.payload.proof.lab.Lab; both are above this module.
"""

from __future__ import annotations

from vmm.base.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import ModuleType
    from typing import Any, TypeAlias

    from vmm.payload.proof.verdict import Finding, Refusal

Prove: TypeAlias = "Callable[[Any], Finding | Mapping[str, Finding]]"
Refuse: TypeAlias = "Callable[[Any], list[Refusal] | Mapping[str, list[Refusal]]]"
ARGUMENTS = {"setup": "guest", "drive": "guest", "check": "guest", "prove": "lab", "refusals": "lab"}
# Of code objects (inspect has the names, and is too slow to import): *args; generator, coroutine, async generator.
CO_VARARGS, NOT_RUN = 0x04, 0x20 | 0x80 | 0x200
OF_A_GUEST = tuple(name for name, argument in ARGUMENTS.items() if argument == "guest")


class HostHalf(Record):
    """None is what the module does not have. `doc` is its docstring: how the thing is shown."""

    setup: Callable[[Any], object] | None = None
    drive: Callable[[Any], object] | None = None
    check: Callable[[Any], object] | None = None
    prove: Prove | None = None
    refusals: Refuse | None = None
    doc: str = ""


def half_of(module: ModuleType, names: Iterable[str] = ARGUMENTS) -> HostHalf:
    """The value for a module, of which these functions count.

    Raises:
        ValueError: a name of a function of host halves is something else there, or the parts do not go together.
    """
    found: dict[str, Any] = {}
    for name in names:
        argument = ARGUMENTS[name]
        function = getattr(module, name, None)
        if function is None:
            continue
        if not callable(function):
            raise ValueError(f"{name} is {function!r:.40}, and in a host half it is a function: {name}({argument})")
        if wrong := _never_called(function):
            raise ValueError(f"{name}() {wrong}, and a host half has {name}({argument})")
        taken = _arguments(function)
        if taken is not None and not taken[0] <= 1 <= taken[1]:
            raise ValueError(f"{name}() takes {_many(taken)}, and a host half has {name}({argument})")
        found[name] = function
    if "prove" in found and (other := next((each for each in OF_A_GUEST if each in found), "")):
        raise ValueError(f"prove() and {other}(): a proof makes its guests itself")
    if "refusals" in found and "prove" not in found:
        raise ValueError("refusals() without prove()")
    return HostHalf(**found, doc=module.__doc__ or "")


def _never_called(function: Any) -> str:
    """Why a call with one argument would not run it; empty if it would."""
    code = getattr(function, "__code__", None)
    if code is None:
        return ""
    if code.co_flags & NOT_RUN:
        return "is a coroutine or a generator, which a call does not run"
    only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    lacking = [each for each in only if each not in (function.__kwdefaults__ or {})]
    return f"needs {lacking[0]} by name" if lacking else ""


def _arguments(function: Any) -> tuple[int, int] | None:
    """(least, most) positional arguments of a plain function; None where its text does not tell."""
    code = getattr(function, "__code__", None)
    if code is None:
        return None
    most = code.co_argcount
    least = most - len(function.__defaults__ or ())
    return least, 255 if code.co_flags & CO_VARARGS else most


def _many(taken: tuple[int, int]) -> str:
    least, most = taken
    return f"{least} argument{'s' * (least != 1)}" if least == most else f"{least} to {most} arguments"
