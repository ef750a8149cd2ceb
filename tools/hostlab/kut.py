# SPDX-License-Identifier: GPL-2.0-or-later
"""The step `kut`: a folder of kvm-unit-tests' images, which whoever asks has built, goes into a host. What becomes of
each under pyvmm and under QEMU there is judged by judge.py. No image comes with the lab.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vmm.errors import UsageError
from vmm.payload.kut import suite

from .errors import LabError

STEP = "kut"
FOLDER = "kut"  # of the parcel
RESULTS = "kut.json"  # as `pyvmm kut --qemu --json` leaves it
TABLE = "kut.md"
HINT = "HOSTS_KUT=DIR, a folder with its unittests.cfg and *.flat: docs/kut.md"
TIMEOUT = 60.0  # seconds of the host's, for each test under each of the two: a CPU there is ten to fifty times slower


@dataclass(frozen=True)
class Request:
    """`folder` is what `pyvmm kut` takes: the images, or the tree of kvm-unit-tests; `tests` are names or patterns of
    its file, all of it where there are none.
    """

    folder: Path
    tests: tuple[str, ...] = ()
    timeout: float = TIMEOUT

    @property
    def parameters(self) -> dict[str, str]:
        """Lines of the host's /lab/parameters."""
        return {"KUT_TESTS": shlex.join(self.tests), "KUT_TIMEOUT": f"{self.timeout:g}"}


def check(steps: Sequence[str], request: Request | None) -> None:
    """Raises: LabError, where the step is asked for without images, or they without it, or are not what it takes."""
    if STEP not in steps:
        if request is not None:
            raise LabError("HOSTS_KUT is for the step kut", hint="HOSTS_ONLY=kut, or HOSTS_STEPS=kut")
        return
    if request is None:
        raise LabError(
            "the step kut starts images that you have built of kvm-unit-tests, and none was given",
            hint=HINT,
        )
    if not request.timeout > 0:
        raise LabError(f"HOSTS_KUT_TIMEOUT={request.timeout:g}: give seconds, more than 0")
    _images(request)


def _images(request: Request) -> tuple[Path, list[Path]]:
    """The file, and the images that its chosen tests name and that are there."""
    try:
        cfg = suite.find_cfg(request.folder)
        chosen = suite.select(suite.load(cfg), request.tests, ())
    except UsageError as error:
        raise LabError(f"HOSTS_KUT={request.folder}: {error.text}", hint=HINT) from error
    named = dict.fromkeys(cfg.parent / entry.file for entry in chosen)
    there = [path for path in named if path.is_file() and path.resolve().is_relative_to(cfg.parent.resolve())]
    if not there:
        raise LabError(
            f"HOSTS_KUT={request.folder}: none of its tests has an image there", hint="build them there first"
        )
    return cfg, there


def stage(request: Request, into: Path) -> Path:
    """A folder with the file and the images alone, and not with all that lies around them."""
    cfg, images = _images(request)
    into.mkdir()
    shutil.copy(cfg, into / cfg.name)
    for path in images:
        target = into / path.relative_to(cfg.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return into
