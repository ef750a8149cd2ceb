# SPDX-License-Identifier: GPL-2.0-or-later
"""What to try where a file could not be opened: what is called alike beside it, or which of its folders is not there.

It looks at names of folders and opens no file; it asks for nothing, so what it cannot see it does not tell.
"""

from __future__ import annotations

import errno
import os
import shlex

MOST_NAMES = 4096  # of a folder that are looked at


def to_try(error: BaseException, file: str | os.PathLike[str]) -> str:
    """One hint for the error that opening `file` gave; empty where nothing is known to help."""
    number = error.errno if isinstance(error, OSError) else None
    path = os.fspath(file)
    if number == errno.ENOENT and path and not os.path.lexists(path):
        return _missing(path)
    if number == errno.ENOENT and path:
        return f"{path} is a link to a file that is not there: `ls -l {shlex.quote(path)}`"
    if number in (errno.EACCES, errno.EPERM):
        return f"`ls -l {shlex.quote(path)}`: this user may not read it, or not enter its folder"
    return ""


def _missing(path: str) -> str:
    from pathlib import Path  # only a mistake pays for it

    from vmm.base.names import nearest

    folder, name = Path(path).parent, Path(path).name
    try:
        while not folder.is_dir() and folder != folder.parent:
            folder, name = folder.parent, folder.name
        with os.scandir(folder) as found:
            names = [each.name for each, _ in zip(found, range(MOST_NAMES), strict=False)]
    except OSError:
        return ""
    near = [shlex.quote(str(folder / each)) for each in nearest(name, names)]
    looked = f"`ls {shlex.quote(str(folder))}`, where nothing is called {name}"
    return f"{looked}; did you mean {', '.join(near)}?" if near else looked
