# SPDX-License-Identifier: GPL-2.0-or-later
"""The hosts' file system: a minimal Debian with Python and what the steps need, as an ext4 image. It holds no kernel,
no module and nothing of pyvmm, so that one serves every host.

mmdebstrap makes it as root or, in a user namespace, as anybody; mkfs.ext4 fills the image from the folder, so nothing
is mounted.
"""

from __future__ import annotations

from pathlib import Path

from . import store
from .hosts import ROOT_RELEASE
from .packages import mirror
from .tools import call, need

PACKAGES = (
    "python3", "python3-venv", "kmod", "procps", "iproute2", "udev", "sudo", "acl", "gdb-minimal",
)  # fmt: skip
SIZE = "1500M"
IMAGE = "root.img"
INIT = Path(__file__).parent / "guest" / "init"


def image() -> Path:
    """The image; made once for each content, in a minute or two."""
    digest = store.key(ROOT_RELEASE, PACKAGES, SIZE, INIT)
    return store.get("root", digest, _make) / IMAGE


def _make(work: Path) -> None:
    need("mmdebstrap", "mkfs.ext4")
    work.chmod(0o777)  # in a user namespace mmdebstrap's root is another user here
    image = work / IMAGE
    # /proc and the like are mounted below the folder while hooks run: the image gets a copy of what is on the disk.
    copy = 'mkdir "$1.copy" && tar --one-file-system -C "$1" -cf - . | tar -C "$1.copy" -xf -'
    fill = f'mkfs.ext4 -q -F -O ^has_journal -E root_owner=0:0 -d "$1.copy" {image} {SIZE} && rm -r "$1.copy"'
    call(
        [
            "mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}",
            "--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            f"--customize-hook=upload {INIT} /init-lab", "--customize-hook=chmod 755 \"$1/init-lab\"",
            f"--customize-hook={copy} && {fill}",
            ROOT_RELEASE, "/dev/null", mirror(),
        ],
        limit=1200,
        what="making the hosts' file system",
    )  # fmt: skip
