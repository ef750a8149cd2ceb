# SPDX-License-Identifier: GPL-2.0-or-later
"""The hosts' file system: a minimal Debian with Python and what the steps need, as an image that no run changes. It
holds no kernel, no module and nothing of pyvmm, so that one serves every host.

mmdebstrap makes a tar of it as root or, in a user namespace, as anybody; genext2fs makes an image of the tar. Nothing
is mounted, and files keep owners that the user who runs this could not give them.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Sequence
from pathlib import Path

from . import store
from .errors import LabError
from .hosts import ROOT_RELEASE
from .packages import proxies, source_line
from .progress import Say, silent
from .tools import call, need

# gdb and what follows are for steps: a debugger that reads guests, a user who is not root, udev that sets a mode.
PACKAGES = (
    "python3", "python3-venv", "kmod", "procps", "iproute2", "gdb-minimal", "udev", "sudo", "acl", "passwd",
)  # fmt: skip
PYTHON = "3.11"  # ROOT_RELEASE's
OPTIONS = (
    "--mode=auto", "--variant=minbase", "--format=tar", '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)  # fmt: skip
BLOCK = 4096  # bytes
SPARE = 512 << 20  # bytes for what a run writes
FILES = 80_000
IMAGE = "root.img"
SUBUID = Path("/etc/subuid")


def _digest(extra: Sequence[str]) -> str:
    return store.key(ROOT_RELEASE, (*PACKAGES, *extra), OPTIONS, BLOCK, SPARE, FILES)


def there(extra: Sequence[str] = ()) -> bool:
    """Whether the image is kept already."""
    return store.has("root", _digest(extra))


def image(say: Say = silent, extra: Sequence[str] = ()) -> Path:
    """The image, with these packages beside the usual ones; made anew when what is asked of it changes, not when Debian
    does.
    """

    def make(work: Path) -> None:
        _make(work, (*PACKAGES, *extra))

    what = f"the hosts' file system, Debian {ROOT_RELEASE}" + (f" with {', '.join(extra)}" if extra else "")
    return store.get("root", _digest(extra), make, say, what) / IMAGE


def check() -> None:
    """Raises: LabError, where a user who is not root lacks what mmdebstrap needs for its user namespace."""
    if os.geteuid() == 0:
        return
    need("newuidmap")
    user = pwd.getpwuid(os.geteuid()).pw_name
    for file in (SUBUID, SUBUID.with_name("subgid")):
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if not any(line.partition(":")[0] in (user, str(os.geteuid())) for line in text.splitlines()):
            raise LabError(
                f"{file} has no range for {user}: mmdebstrap cannot make files of other users in a namespace",
                hint=f"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}, or run it as root",
            )


def _make(work: Path, packages: Sequence[str]) -> None:
    check()
    need("mmdebstrap", "genext2fs")
    tar, image = work / "root.tar", work / IMAGE
    words = ["mmdebstrap", *OPTIONS, *(f"--aptopt={line}" for line in proxies()), f"--include={','.join(packages)}"]
    words += [ROOT_RELEASE, "-", source_line(ROOT_RELEASE)]
    call(words, limit=1800, what="making the hosts' file system", into=tar)
    blocks = (tar.stat().st_size * 5 // 4 + SPARE) // BLOCK
    words = ["genext2fs", "-B", str(BLOCK), "-b", str(blocks), "-N", str(FILES), "-m", "0", "-a", str(tar), str(image)]
    call(words, limit=600, what="making an image of the hosts' file system")
    tar.unlink()
