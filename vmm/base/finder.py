# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the modules of one package quickly: each is beside its package's others, and nobody else is asked for it.

Python asks every finder, lists folders and builds each path anew, which for the modules of `pyvmm run hello` takes a
seventh of its time (row `hello_python` of the bench). Python's rule of when compiled code is good holds here too, by
time and size of the source (PEP 3147, PEP 552); whatever is not the plain case is left to Python.
"""

from __future__ import annotations

import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import MAGIC_NUMBER, SourceFileLoader
from _imp import _fix_co_filename  # type: ignore[attr-defined]
from marshal import loads
from stat import S_ISDIR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType

HEAD = 16  # bytes of a .pyc before the code: magic number, flags, and of the source time and size
ROOM = 1 << 16  # bytes of a .pyc that are read; what is longer is cut off, and Python's
BY_TIME = bytes(4)  # the flags that say so


class Loader(SourceFileLoader):
    """Python's own, but for compiled code that is there and good, which it reads in one piece."""

    cached: str
    source: posix.stat_result

    def get_code(self, fullname: str) -> CodeType | None:
        return _compiled(self.path, self.source, self.cached) or super().get_code(fullname)


def _compiled(path: str, state: posix.stat_result, cached: str) -> CodeType | None:
    """The code in the file `cached`; None where it is not as Python would write it of that source."""
    try:
        file = posix.open(cached, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            data = posix.read(file, ROOM)
        finally:
            posix.close(file)
    except OSError:
        return None
    written = (int(state.st_mtime) & 0xFFFFFFFF, state.st_size & 0xFFFFFFFF)
    good = MAGIC_NUMBER + BY_TIME + b"".join(each.to_bytes(4, "little") for each in written)
    if data[:HEAD] != good:
        return None
    try:
        code: CodeType = loads(memoryview(data)[HEAD:])
    except (EOFError, ValueError, TypeError):  # cut off, or no code: Python's
        return None
    _fix_co_filename(code, path)
    return code


def _namespace(name: str, folder: str) -> ModuleSpec | None:
    """Of a folder that is a package without a module of its own (PEP 420). None: an extension module, or nothing."""
    try:
        if not S_ISDIR(posix.stat(folder).st_mode):
            return None
    except OSError:
        return None
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [folder]
    return spec


class Finder:
    """Of the modules below `package` ("vmm"), once that itself has been imported."""

    def __init__(self, package: str) -> None:
        self._within = f"{package}."
        self._suffix = f".{sys.implementation.cache_tag}.pyc"

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec that Python's own finder would give, or None, and it is asked."""
        if not name.startswith(self._within) or path is None or len(path) != 1:
            return None
        folder, last, package = path[0], name[name.rindex(".") + 1 :], False
        try:
            source = posix.stat(f"{folder}/{last}.py")
        except OSError:
            folder, last, package = f"{folder}/{last}", "__init__", True
            try:
                source = posix.stat(f"{folder}/__init__.py")
            except OSError:
                return _namespace(name, folder)
        file = f"{folder}/{last}.py"
        loader = Loader(name, file)
        loader.source, loader.cached = source, f"{folder}/__pycache__/{last}{self._suffix}"
        spec = ModuleSpec(name, loader, origin=file, is_package=package)
        spec.has_location, spec.cached = True, loader.cached
        if package:
            spec.submodule_search_locations = [folder]
        return spec


def install(package: str) -> None:
    """Find the modules below `package` so from now on, unless this Python keeps compiled code in another way."""
    if not sys.flags.optimize and sys.pycache_prefix is None and sys.implementation.cache_tag:
        sys.meta_path.insert(0, Finder(package))
