# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages of any release, by apt-get with lists and a cache of its own: this machine's apt is not touched.

The mirror is $HOSTS_MIRROR, or the one that this machine's own apt has Debian from.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from . import store
from .errors import LabError, NotToBeHad
from .progress import Say, silent, working
from .tools import call, need

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MIRROR = "http://deb.debian.org/debian"  # where this machine's apt has no Debian: what is fetched is signed
FRESH = 24 * 3600.0  # seconds for which lists are believed
GONE = re.compile(r"404 +Not Found|does not have a Release file|Unable to locate|was not found|Can't find a source")


@cache
def mirror() -> str:
    """The address of a Debian archive: this machine's, where it has one."""
    given = os.environ.get("HOSTS_MIRROR")
    if given:
        return given.rstrip("/")
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    return mirror_in(call(["apt-get", "indextargets", "--format", form], limit=60, what="asking apt")) or MIRROR


def mirror_in(targets: str) -> str:
    """The first archive of Debian's own in lines ORIGIN|LABEL|ADDRESS, or nothing. That of security is labelled so."""
    for line in targets.splitlines():
        origin, label, address = (*line.split("|", 2), "", "")[:3]
        if (origin, label) == ("Debian", "Debian"):
            return address.rstrip("/")
    return ""


def candidate_in(policy: str) -> str:
    """The version in what `apt-cache policy` says of one package, or nothing."""
    found = re.search(r"^ *Candidate: (\S+)$", policy, re.M)
    return found[1] if found and found[1] != "(none)" else ""


def source_line(release: str, kind: str = "deb") -> str:
    """A line for apt's sources. Raises: LabError, without Debian's keys."""
    need(str(KEYRING))
    return f"{kind} [signed-by={KEYRING} arch=amd64] {mirror()} {release} main"


def proxies() -> list[str]:
    """This machine's proxy for packages, as lines of apt's configuration."""
    said = call(["apt-config", "dump"], limit=60, what="asking apt for its proxy")
    return re.findall(r'^Acquire::https?::Proxy ".+";$', said, re.M)


class Archive:
    """One Debian release: what it has, and its packages."""

    def __init__(self, release: str) -> None:
        self.release = release
        lines = "".join(f"{source_line(release, kind)}\n" for kind in ("deb", "deb-src"))
        self._folder = store.folder() / f"apt-{release}-{store.key(lines)}"
        for name in ("lists/partial", "cache/archives/partial"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        sources = self._folder / "sources.list"
        if not sources.exists():  # others may read it: never a part of it, and never anything else
            new = sources.with_suffix(f".{os.getpid()}.{threading.get_ident()}")
            new.write_text(lines)
            new.replace(sources)
        os.utime(self._folder)

    def _apt(self, command: str, *words: str, limit: float, what: str, cwd: Path | None = None) -> str:
        options = {
            "Dir::Etc::SourceList": self._folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": self._folder / "lists",
            "Dir::State::Status": "/dev/null",  # what this machine has installed is no candidate
            "Dir::Cache": self._folder / "cache",
            "Dir::Cache::pkgcache": "pkgcache.bin",  # containers turn it off, and each question takes a second then
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "APT::Architecture": "amd64",
            "APT::Architectures": "amd64",
            "APT::Default-Release": "",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "APT::Sandbox::User": "",  # a user of its own could not read a cache below somebody's home
        }
        set_by = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        return call([command, *set_by, *words], limit=limit, what=what, cwd=cwd)

    def refresh(self, say: Say = silent) -> None:
        """Fetch the release's lists, unless they are of the last day; HOSTS_RENEW=1 does not believe those either.

        Raises:
            NotToBeHad: the mirror does not have the release.
        """
        stamp = self._folder / "fetched"
        with store.locked(f"apt-{self.release}", say):
            age = time.time() - stamp.stat().st_mtime if stamp.exists() else FRESH
            if age < FRESH and not (os.environ.get("HOSTS_RENEW") and age > 600):  # once a run, not once a host
                return
            what = f"a list of what Debian's {self.release} has"
            with working(say, what), told_apart():
                self._apt("apt-get", "update", "-qq", limit=900, what=what)
            stamp.touch()

    def _known(self, about: str, package: str) -> str:
        """What apt-cache says, which is asked once for each list."""
        remembered, stamp = self._folder / f"{about.split()[0]}-{package}", self._folder / "fetched"
        with store.locked(f"apt-{self.release}"):
            if not remembered.exists() or (stamp.exists() and remembered.stat().st_mtime < stamp.stat().st_mtime):
                said = self._apt("apt-cache", *about.split(), package, limit=120, what=f"looking for {package}")
                remembered.write_text(said)
            return remembered.read_text()

    def version(self, package: str) -> str:
        """The version that would be installed.

        Raises:
            NotToBeHad: the release has no such package today.
        """
        if version := candidate_in(self._known("policy", package)):
            return version
        raise NotToBeHad(f"Debian's {self.release} has no package {package}")

    def depends(self, package: str) -> list[str]:
        """The packages it depends on, first alternatives alone."""
        said = self._known("depends --important", package)
        return [line.split(":", 1)[1].strip() for line in said.splitlines() if line.strip().startswith("Depends:")]

    def download(self, package: str, into: Path) -> Path:
        """The package's .deb in a folder. apt-get has checked its hash against the signed lists.

        Raises:
            NotToBeHad: the archive lost it.
        """
        before = set(into.glob("*.deb"))
        with told_apart():
            self._apt("apt-get", "download", "-qq", package, limit=900, what=f"fetching {package}", cwd=into)
        return next(iter(set(into.glob("*.deb")) - before))

    def source_file(self, package: str, name: str, sha256: str, into: Path) -> Path:
        """One file of a source package, with the hash that it must have. A mirror may lack the others.

        Raises:
            NotToBeHad: the archive does not give it, or gives another.
        """
        found = into / name
        try:
            what = f"fetching the source of {package}"
            with told_apart():
                self._apt("apt-get", "source", "--download-only", "-qq", package, limit=600, what=what, cwd=into)
        except NotToBeHad:
            if not found.exists():
                raise
        if not found.exists():
            raise NotToBeHad(f"Debian's {self.release} has no {name} today")
        if hashlib.sha256(found.read_bytes()).hexdigest() != sha256:
            raise LabError(f"{name} is another file than the one that was reviewed: its SHA-256 differs")
        return found


@contextlib.contextmanager
def told_apart() -> Iterator[None]:
    """What a mirror does not have is NotToBeHad; a network that is down or a full disk stays a LabError."""
    try:
        yield
    except LabError as error:
        if GONE.search(str(error)):
            raise NotToBeHad(str(error)) from error
        raise
