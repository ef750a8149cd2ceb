# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host gets on its second disk, a tar: the wheel and what it depends on, the tests with what they read of the
sources, and the steps. And the third disk, on which it hands its results back as a tar.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from . import store
from .errors import HostFailed, LabError
from .tools import call

PROJECT = Path(__file__).resolve().parents[2]
STEPS = Path(__file__).parent / "steps"
ALWAYS = ("doctor", "probe", "tests")
TEST_NEEDS = ("pytest>=8", "pytest-timeout>=2.3", "hypothesis>=6.100", "jsonschema>=4.20", "pyyaml>=6")
# The root's Python is Debian 12's; wheels are chosen for it, whatever Python runs the lab.
PYTHON = "3.11"
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
SECTOR = 512
RESULTS_SIZE = 32 << 20
RESULTS_MARK = b"hostlab-results"


def dependencies() -> Path:
    """A folder with everything that pyvmm and its tests import; made anew when pyproject.toml names something else."""
    declared = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = (*declared, *TEST_NEEDS)
    return store.get("site", store.key(PYTHON, PLATFORMS, *wanted), lambda work: _install(work, wanted))


def _install(work: Path, wanted: Sequence[str]) -> None:
    platforms = [part for each in PLATFORMS for part in ("--platform", each)]
    call(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
            "--no-compile", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *platforms,
            "--target", work, *wanted,
        ],
        limit=600,
        what="fetching what pyvmm depends on",
    )  # fmt: skip


def wheel() -> Path:
    """The wheel that `make wheel` left in dist/.

    Raises:
        LabError: there is none, or more than one.
    """
    found = sorted((PROJECT / "dist").glob("pyvmm-*.whl"))
    if len(found) != 1:
        raise LabError(f"{len(found)} wheels in {PROJECT / 'dist'}\n  try: make clean wheel")
    return found[0]


def build(work: Path, steps: Sequence[str]) -> tuple[Path, Path]:
    """(parcel, results): two disk images in a folder."""
    tree = work / "tree"
    shutil.copytree(dependencies(), tree)
    call([sys.executable, "-m", "zipfile", "-e", wheel(), tree], limit=60, what="unpacking the wheel")
    for name in _sources():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, tree / name)
    room = work / "steps"
    room.mkdir()
    for number, step in enumerate(steps):
        script = STEPS / f"{step}.sh"
        if not script.exists():
            known = ", ".join(sorted(path.stem for path in STEPS.glob("*.sh")))
            raise LabError(f"{step}: no step of the lab; there are {known}")
        shutil.copy(script, room / f"{number:02}-{step}")
    parcel = work / "parcel.img"
    with tarfile.open(parcel, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path in (tree, room):
            tar.add(path, path.name, filter=_owned_by_root)
    _pad(parcel)
    shutil.rmtree(tree)
    results = work / "results.img"
    results.write_bytes(RESULTS_MARK)
    with results.open("r+b") as file:
        file.truncate(RESULTS_SIZE)
    return parcel, results


def _owned_by_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info


def _pad(image: Path) -> None:
    """To a multiple of 64 KiB: an emulated disk ends with a whole sector."""
    with image.open("r+b") as file:
        file.seek(0, 2)
        file.truncate(-(-file.tell() // (128 * SECTOR)) * 128 * SECTOR)


def _sources() -> list[str]:
    """Files of the project that tests read, as git knows them: all but what the wheel has."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    names = [name for name in done.stdout.split("\0") if name and (PROJECT / name).is_file()]
    return [name for name in names if not name.startswith(("vmm/", "guest_payloads/"))]


def unpack(results: Path, into: Path) -> list[str]:
    """Put what the host handed back into a folder; the names.

    Raises:
        HostFailed: it handed nothing back.
    """
    into.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(results) as tar:
            tar.extractall(into, filter="data")
            return sorted(member.name.removeprefix("./") for member in tar.getmembers() if member.isfile())
    except tarfile.TarError as error:
        raise HostFailed(f"the host handed nothing back: {error}") from error
