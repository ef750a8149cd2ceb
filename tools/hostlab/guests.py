# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest for the steps that start one: the host's own kernel once more, and an initial file system that
`pyvmm initrd` makes of its modules and Debian's busybox, as a user would, with a program that measures beside it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from . import store
from .hosts import ROOT_RELEASE
from .kernel import BUSYBOX, Source, unpack
from .packages import Archive
from .parcel import PROJECT
from .progress import Say, silent
from .tools import call

FOLDER = "linux"  # of the parcel
MEASURE = Path(__file__).parent / "measure.c"
COMMANDS = ("gcc",)
RECIPE = 2  # counted up when the code below makes something else of the same inputs


def linux(archive: Archive, found: Source, say: Say = silent) -> Path:
    """A folder with `vmlinuz`, `initrd.img`, `measure`, and `release`, what uname says there.

    Raises:
        NotToBeHad: the archive lost a package.
    """
    tools_of = Archive(ROOT_RELEASE)
    tools_of.refresh(say)
    makers = sorted(path for path in (PROJECT / "vmm/payload/linux").iterdir() if path.is_file())
    makers.append(MEASURE)
    digest = store.key(RECIPE, found, tools_of.version(BUSYBOX), *makers)

    def make(work: Path) -> None:
        _make(work, archive, tools_of, found)

    return store.get("guest", digest, make, say, f"a guest, Linux {found.version}")


def _make(work: Path, archive: Archive, tools_of: Archive, found: Source) -> None:
    tree = work / "tree"
    for package in found.packages:
        unpack(archive, package, tree)
    unpack(tools_of, BUSYBOX, tree)
    shutil.copy(next(iter(sorted(tree.rglob("vmlinuz*")))), work / "vmlinuz")
    measure = work / "measure"  # of the host too: it is the other end of a guest's network card
    call(["gcc", "-O2", "-static", "-s", "-o", measure, MEASURE], limit=300, what="compiling the guest's measurements")
    words: list[str | Path] = [sys.executable, "-m", "vmm", "initrd", tree, "--release", found.release]
    words += ["-o", work / "initrd.img"]
    words += ["--add", f"{measure}=bin/measure"]
    call(words, limit=300, what="making the guest's initial file system", cwd=PROJECT)
    (work / "release").write_text(found.release + "\n")
    shutil.rmtree(tree)
