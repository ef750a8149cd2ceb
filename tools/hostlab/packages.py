# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages of any release, by apt-get with lists and a cache of its own: this machine's apt is not touched.

The mirror is $HOSTS_MIRROR, or the one that this machine's own apt has Debian from.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

from . import store
from .errors import LabError, NotToBeHad
from .tools import call

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FRESH = 24 * 3600.0  # seconds for which lists are believed


def mirror() -> str:
    """The address of a Debian archive.

    Raises:
        LabError: this machine has none, and none was given.
    """
    given = os.environ.get("HOSTS_MIRROR")
    if given:
        return given.rstrip("/")
    form = "$(ORIGIN) $(LABEL) $(REPO_URI)"
    for line in call(["apt-get", "indextargets", "--format", form], limit=30, what="asking apt").splitlines():
        origin, label, address = (*line.split(maxsplit=2), "", "")[:3]
        if (origin, label) == ("Debian", "Debian"):
            return address.rstrip("/")
    raise LabError("no Debian mirror is known here\n  try: HOSTS_MIRROR=ADDRESS make hosts, with any mirror of Debian")


class Archive:
    """One Debian release: what it has, and its packages."""

    def __init__(self, release: str) -> None:
        if not KEYRING.exists():
            raise LabError(f"{KEYRING} is missing\n  try: apt install debian-archive-keyring")
        self.release = release
        self._mirror = mirror()
        self._folder = store.folder() / f"apt-{release}-{store.key(self._mirror)}"
        for name in ("lists/partial", "cache/archives/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        source = "".join(f"{kind} [signed-by={KEYRING}] {self._mirror} {release} main\n" for kind in ("deb", "deb-src"))
        (self._folder / "sources.list").write_text(source)

    def _apt(self, command: str, *words: str, limit: float, what: str, cwd: Path | None = None) -> str:
        options = {
            "Dir::Etc::SourceList": self._folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::State::Lists": self._folder / "lists",
            "Dir::Cache": self._folder / "cache",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",  # its own user could not read a cache below somebody's home
        }
        set_by = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return call([command, *set_by, *words], limit=limit, what=what, cwd=cwd)

    def refresh(self) -> None:
        """Fetch the release's lists, unless they are of today."""
        stamp = self._folder / "fetched"
        with store.locked(f"apt-{self.release}"):
            if stamp.exists() and time.time() - stamp.stat().st_mtime < FRESH:
                return
            what = f"reading what Debian's {self.release} has"
            self._apt("apt-get", "update", "-qq", limit=300, what=what)
            stamp.touch()

    def version(self, package: str) -> str:
        """The version that would be installed.

        Raises:
            NotToBeHad: the release has no such package today.
        """
        said = self._apt("apt-cache", "policy", package, limit=60, what=f"looking for {package}")
        for line in said.splitlines():
            if line.strip().startswith("Candidate:"):
                version = line.split(":", 1)[1].strip()
                if version != "(none)":
                    return version
        raise NotToBeHad(f"Debian's {self.release} has no package {package}")

    def depends(self, package: str) -> list[str]:
        """The packages it depends on, first alternatives alone."""
        said = self._apt("apt-cache", "depends", "--important", package, limit=60, what=f"looking at {package}")
        return [line.split(":", 1)[1].strip() for line in said.splitlines() if line.strip().startswith("Depends:")]

    def has(self, package: str) -> bool:
        try:
            self.version(package)
        except NotToBeHad:
            return False
        return True

    def download(self, package: str, into: Path) -> Path:
        """The package's .deb in a folder. apt-get has checked its hash against the signed lists.

        Raises:
            NotToBeHad: the archive does not give it.
        """
        before = set(into.glob("*.deb"))
        try:
            self._apt("apt-get", "download", "-qq", package, limit=900, what=f"fetching {package}", cwd=into)
        except LabError as error:
            raise NotToBeHad(str(error)) from error
        return next(iter(set(into.glob("*.deb")) - before))

    def source_file(self, package: str, name: str, sha256: str, into: Path) -> Path:
        """One file of a source package, with the hash that it must have. A mirror may lack the others.

        Raises:
            NotToBeHad: the archive does not give it, or gives another.
        """
        try:
            what = f"fetching the source of {package}"
            self._apt("apt-get", "source", "--download-only", "-qq", package, limit=600, what=what, cwd=into)
        except LabError as error:
            if not (into / name).exists():
                raise NotToBeHad(str(error)) from error
        found = into / name
        if not found.exists():
            raise NotToBeHad(f"Debian's {self.release} has no {name} today")
        if hashlib.sha256(found.read_bytes()).hexdigest() != sha256:
            raise NotToBeHad(f"{name} is another file than the one that was reviewed: its SHA-256 differs")
        return found
