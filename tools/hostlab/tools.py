# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands of this machine that the lab calls: looked for first, run with a limit, named when they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from .errors import LabError

# command -> Debian package. The same table is read by tools/install-host-tools.
PACKAGES = dict(line.split() for line in (Path(__file__).parent / "commands.txt").read_text().splitlines() if line)
SBIN = "/usr/sbin:/sbin"


def path_of(command: str) -> str | None:
    """Where it is, also where only root's PATH leads to."""
    return shutil.which(command, path=f"{os.environ.get('PATH', os.defpath)}:{SBIN}")


def need(*commands: str) -> None:
    """Raises: LabError with every command that is missing, and the packages that have them."""
    missing = [each for each in commands if path_of(each) is None]
    if missing:
        packages = sorted({PACKAGES.get(each, each) for each in missing})
        raise LabError(
            f"missing on this machine: {', '.join(missing)}\n"
            f"  try: tools/install-host-tools, or apt install {' '.join(packages)}"
        )


def call(
    words: Sequence[str | Path],
    *,
    limit: float,
    what: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> str:
    """Standard output of a command. `limit` in seconds.

    Raises:
        LabError: it failed, or took longer; with `what` it was for and the last lines it said.
    """
    command = str(words[0])
    need(command) if "/" not in command else None
    try:
        done = subprocess.run(
            [path_of(command) or command, *map(str, words[1:])],
            cwd=cwd,
            env={**os.environ, "PATH": f"{os.environ.get('PATH', os.defpath)}:{SBIN}", "LC_ALL": "C", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{what}: {command} took longer than {limit:g} s") from error
    if check and done.returncode != 0:
        said = "\n".join(f"    {line}" for line in (done.stdout + done.stderr).splitlines()[-12:])
        raise LabError(f"{what}: {command} ended with status {done.returncode}\n{said}")
    return done.stdout
