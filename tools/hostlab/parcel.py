# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host gets on its second disk, a tar that is laid over its root: the wheel, installed, and what it depends on;
the tests with what they read of the sources; the steps; KVM's selftests, where they are asked for. Behind it is room
for the tar that the host hands back.
"""

from __future__ import annotations

import io
import re
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from . import store
from .errors import HostFailed, LabError
from .progress import Say, silent
from .root import PYTHON
from .tools import call

PROJECT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
STEPS = HERE / "steps"
ALWAYS = ("doctor", "probe", "tests")
LIMIT = 1200.0  # seconds for a step that does not say its own
NOT_THERE = ("pytest-cov", "coverage", "pytest-xdist")  # of what tests need: a host measures no coverage
# Wheels are chosen for the root's Python, whatever Python runs the lab.
PLATFORMS = ("manylinux_2_28", "manylinux_2_17", "manylinux2014", "manylinux1", "linux")
SITE = f"usr/local/lib/python{PYTHON}/dist-packages"
# What tests read of the project beside what the wheel has.
TREE = ("tests", "docs", "tools", "bench", "action.yml", "pyproject.toml", "Makefile", *("README.md", "CHANGELOG.md"))
SCRIPTS = {"pyvmm": "from vmm.cli import command as main", "pytest": "from pytest import main"}
MIB = 1 << 20
ROOM = 64 * MIB


def requirements() -> list[str]:
    """What pyproject.toml asks for to run pyvmm and those of its tests that a host runs."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return [line for line in wanted if not line.startswith(NOT_THERE)]


def _pip(target: Path, *words: str | Path) -> list[str | Path]:
    tags = [f"--platform={each}_x86_64" for each in PLATFORMS]
    python = ["--implementation=cp", f"--python-version={PYTHON}"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-compile", "--only-binary=:all:"]
    return [sys.executable, "-m", "pip", "install", *quiet, *python, *tags, "--target", target, *words]


def dependencies(say: Say = silent) -> Path:
    """A folder with everything that pyvmm and its tests import; made anew when pyproject.toml names something else."""
    wanted = requirements()

    def make(work: Path) -> None:
        call(_pip(work / "packages", *wanted), limit=900, what="fetching what pyvmm depends on")

    digest = store.key(PYTHON, PLATFORMS, *wanted)
    return store.get("site", digest, make, say, "a folder of what pyvmm depends on") / "packages"


def wheel() -> Path:
    """The wheel that `make wheel` left in dist/.

    Raises:
        LabError: there is none, or more than one.
    """
    found = sorted((PROJECT / "dist").glob("pyvmm-*.whl"))
    if len(found) != 1:
        raise LabError(f"{len(found)} wheels in {PROJECT / 'dist'}\n  try: make wheel")
    return found[0]


def limits(steps: Sequence[str]) -> dict[str, float]:
    """The seconds that each step may take, by its line `# limit: SECONDS`.

    Raises:
        LabError: there is no such step.
    """
    found = {}
    for step in steps:
        script = STEPS / f"{step}.sh"
        if not re.fullmatch(r"[\w-]+", step) or not script.exists():
            known = ", ".join(sorted(path.stem for path in STEPS.glob("*.sh")))
            raise LabError(f"{step}: no step of the lab; there are {known}")
        told = re.search(r"^# limit: (\d+)$", script.read_text(), re.M)
        found[step] = float(told[1]) if told else LIMIT
    return found


def build(work: Path, steps: Sequence[str], module: str, programs: Path | None = None) -> tuple[Path, int]:
    """(disk, MiB from its start at which results begin). `module` is KVM's, `programs` a folder of selftests."""
    installed = work / "installed"
    call(_pip(installed, "--no-deps", wheel()), limit=300, what="installing the wheel")
    shutil.rmtree(installed / "bin", ignore_errors=True)  # scripts that name this machine's Python
    disk = work / "parcel.img"
    _write(disk, (dependencies(), installed), programs)
    at = disk.stat().st_size // MIB + 2  # what is added says it, and is less than a MiB
    with tarfile.open(disk, "a", format=tarfile.GNU_FORMAT) as tar:
        _text(tar, "lab/parameters", f'KVM={module}\nSTEPS="{" ".join(steps)}"\nRESULTS_AT={at}\n', 0o644)
    with disk.open("r+b") as file:
        file.truncate(at * MIB + ROOM)
    return disk, at


def _write(disk: Path, packages: Sequence[Path], programs: Path | None) -> None:
    with tarfile.open(disk, "w", format=tarfile.GNU_FORMAT) as tar:
        for folder in packages:
            for path in sorted(folder.iterdir()):
                tar.add(path, f"{SITE}/{path.name}", filter=_plain)
        for name in TREE:
            tar.add(PROJECT / name, f"lab/tree/{name}", filter=_plain)
        tar.add(STEPS, "lab/steps", filter=_plain)
        if programs:
            tar.add(programs, "lab/selftests", filter=_plain)
        _text(tar, "lab/init", (HERE / "guest" / "init").read_text(), 0o755)
        for name, line in SCRIPTS.items():
            _text(
                tar, f"usr/local/bin/{name}", f"#!/usr/bin/python3\nimport sys\n\n{line}\n\nsys.exit(main())\n", 0o755
            )


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "__pycache__" in info.name:
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info


def _text(tar: tarfile.TarFile, name: str, text: str, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(text.encode()), mode
    tar.addfile(info, io.BytesIO(text.encode()))


def unpack(disk: Path, at: int, into: Path) -> list[str]:
    """Put what the host handed back into a folder; the names.

    Raises:
        HostFailed: it handed nothing back.
    """
    names: list[str] = []
    try:
        with disk.open("rb") as file:
            file.seek(at * MIB)
            with tarfile.open(fileobj=file, mode="r|") as tar:
                for member in tar:
                    tar.extract(member, into, filter="data")
                    names += [member.name.removeprefix("./")] if member.isfile() else []
    except tarfile.TarError as error:
        raise HostFailed(f"what the host handed back cannot be read: {error}") from error
    if not names:
        raise HostFailed("the host handed nothing back: no step came to its end")
    return sorted(names)
