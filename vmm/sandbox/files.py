# SPDX-License-Identifier: GPL-2.0-or-later
"""The files that a sandboxed process may still open, to read: Python's own modules and the libraries below them.

Much of pyvmm is imported when it is needed, such as what tells of a crash. It knows places, and no right of landlock's
beyond reading.
"""

from __future__ import annotations

import os
import sys

LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache")
"""What an extension module may be linked with."""
INSTALLED = ("site-packages", "dist-packages")


def modules() -> list[str]:
    """Folders of modules: the standard library's, those of installed packages, pyvmm's own. The current folder and that
    of a script, which may be anybody's, are none.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    beside = os.path.join(os.path.dirname(package), "guest_payloads")
    found = [os.path.dirname(os.path.abspath(os.__file__)), package, beside]
    found += [each for each in sys.path if os.path.basename(each.rstrip("/")) in INSTALLED]
    dynamic = [each for each in sys.path if os.path.basename(each) == "lib-dynload"]
    return list(dict.fromkeys((*found, *dynamic)))


def readable() -> list[str]:
    """All of them, existing or not."""
    return [*modules(), *LIBRARIES]
