# SPDX-License-Identifier: GPL-2.0-or-later
"""The host half of a person's own payload: NAME.py beside NAME.asm. Its errors are its author's, with file and line.

A file of that name may be anything, such as the script that runs the payload. It is a host half, and is imported, only
if its text defines one of the functions that a host half has, at its outermost level.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vmm.base.record import replace
from vmm.errors import PayloadError, VmmError, os_reason
from vmm.payload.half import OF_A_GUEST, HostHalf, half_of
from vmm.payload.header import MissingResult

MAX_SOURCE = 1 << 20
ALIKE = 0.75  # how near a name is to a hook's


def load(asm: str) -> HostHalf | None:
    """The host half beside this .asm, where there is one.

    Raises:
        PayloadError: it cannot be read, is no Python, its import fails, or a function of it has another shape.
    """
    path = Path(asm).with_suffix(".py")
    file = str(path)
    if not path.is_file():
        return None
    try:
        with path.open("rb") as source:
            text = source.read(MAX_SOURCE)
        tree = ast.parse(text, file)
    except SyntaxError as error:
        line, shown = error.lineno or 0, (error.text or "").rstrip()
        raise PayloadError(f"the host half is no Python: {error.msg}", file=file, line=line, row=shown) from error
    except (OSError, ValueError) as error:
        raise PayloadError(f"reading the host half: {os_reason(error)}", file=file) from error
    if not any(_is_a_hook(each) for each in tree.body):
        return None
    name = f"host_half_of_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # a dataclass in it looks itself up
    with Blamed(file, "importing the host half"):
        spec.loader.exec_module(module)
    try:
        half = half_of(module, OF_A_GUEST)
    except ValueError as error:
        raise PayloadError(f"the host half: {error}", file=file) from error
    hooks = {name: getattr(half, name) for name in OF_A_GUEST}
    made = {name: hook and _blamed(hook, file, f"{name}()") for name, hook in hooks.items()}
    # Without a drive() of its own the run is the same: what it hooked into the machine may raise in there.
    made["drive"] = made["drive"] or _blamed(lambda guest: guest.run(), file, "a callback, in the run")
    return replace(half, **made)


def overlooked(asm: str) -> tuple[str, ...]:
    """Why a module beside this .asm is no host half, where one was meant: a name like a hook's is something else."""
    from difflib import get_close_matches

    path = Path(asm).with_suffix(".py")
    try:
        tree = ast.parse(path.read_bytes()[:MAX_SOURCE])
    except (OSError, ValueError, SyntaxError):
        return ()
    if any(map(_is_a_hook, tree.body)):
        return ()
    for line in (each for each in ast.walk(tree) if isinstance(each, ast.stmt)):
        for name in _defined(line):
            near = get_close_matches(name.lower(), OF_A_GUEST, 1, ALIKE)
            if near:
                return (f"{path}:{line.lineno}: `{name}` is no host half: write `def {near[0]}(guest)`, at the top",)
    return ()


def _defined(line: ast.stmt) -> list[str]:
    """The names that a statement of a module gives something."""
    match line:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.Assign(targets=targets):
            return [each.id for each in targets if isinstance(each, ast.Name)]
        case ast.ImportFrom(names=names):
            return [each.asname or each.name for each in names]
        case _:
            return []


def _is_a_hook(line: ast.stmt) -> bool:
    """A function with such a name that takes anything; whether it has the right shape is `half_of`'s to say."""
    if not isinstance(line, ast.FunctionDef | ast.AsyncFunctionDef) or line.name not in OF_A_GUEST:
        return False
    return bool(line.args.posonlyargs or line.args.args or line.args.vararg)


def _blamed(function: Callable[[Any], Any], file: str, doing: str) -> Callable[[Any], Any]:
    def call(guest: Any) -> Any:
        with Blamed(file, doing):
            return function(guest)

    return call


class Blamed:
    """What is raised inside is a PayloadError at the last line of `file` that it came through; ours go through."""

    def __init__(self, file: str, doing: str) -> None:
        self._file, self._doing = file, doing
        self._path = Path(file).absolute()

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, (VmmError, MissingResult)):
            return
        if not isinstance(error, (Exception, SystemExit)):
            return
        lines = [each for each in traceback.extract_tb(trace) if Path(each.filename).absolute() == self._path]
        line, text = (lines[-1].lineno or 0, lines[-1].line or "") if lines else (0, "")
        said = f"{self._doing}: {type(error).__name__}: {error}"
        raise PayloadError(said, file=self._file, line=line, row=text) from error
