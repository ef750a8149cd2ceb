# SPDX-License-Identifier: GPL-2.0-or-later
"""`typing.get_type_hints` on our modules, whose annotations name what only a type checker imports.

An annotation is text, evaluated in its module's globals and then in what these have as `__builtins__`; functions keep
the builtins of their making. So a module gets a mapping there that finds what stands under its `if TYPE_CHECKING:`,
and imports it then. The command imports none of this; to a program that takes names of `vmm` it is some 0.8 ms, once.
"""

from __future__ import annotations

import builtins
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any


class Hints(dict[str, object]):
    """Builtins, and behind them the names that a module imports for a type checker."""

    def __init__(self, module: ModuleType) -> None:
        # All of them: functions that are made from now on have these builtins, and IMPORT_NAME asks no __missing__.
        super().__init__(vars(builtins))
        self._module = module
        self._guarded: dict[str, tuple[str, str | None]] | None = None

    def __missing__(self, name: str) -> Any:
        if self._guarded is None:
            self._guarded = guarded(self._module)
        if name not in self._guarded:
            raise KeyError(name)
        import importlib

        home, attribute = self._guarded[name]
        module = importlib.import_module(home)
        prepare()  # what has been imported for it may have annotations of its own
        if attribute is None:
            return module
        return getattr(module, attribute)


def guarded(module: ModuleType) -> dict[str, tuple[str, str | None]]:
    """name -> (module, attribute or None for the module itself), of each import under `if TYPE_CHECKING:`."""
    import ast
    import inspect

    found: dict[str, tuple[str, str | None]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                if isinstance(line, ast.ImportFrom):
                    found |= {each.asname or each.name: (line.module or "", each.name) for each in line.names}
                elif isinstance(line, ast.Import):
                    found |= {each.asname or each.name: (each.name, None) for each in line.names}
    return found


_loaded = 0  # modules that there were when it was last looked for ours


def prepare() -> None:
    """Every module of ours that is loaded and not prepared yet."""
    global _loaded
    if len(sys.modules) == _loaded:
        return
    _loaded = len(sys.modules)
    for name, module in [*sys.modules.items()]:
        if name.startswith("vmm.") and type(vars(module).get("__builtins__")) is dict:
            hints = vars(module)["__builtins__"] = Hints(module)
            for each in vars(module).values():
                if isinstance(each, type) and each.__module__ == name and "__annotations__" in vars(each):
                    each.__builtins__ = hints  # type: ignore[attr-defined]  # of a class its own names are the globals
