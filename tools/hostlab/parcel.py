# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host gets on its second disk, a tar that is laid over its root: the wheel, installed, and what it depends on;
the tests with what they read of the sources; the steps; a folder of wheels, for a host has no network; KVM's selftests,
where they are asked for. Behind it is room for the tar that the host hands back.
"""

from __future__ import annotations

import io
import re
import shlex
import shutil
import sys
import tarfile
import tomllib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from . import store
from .errors import HostFailed, LabError
from .progress import Say, silent
from .root import PYTHON
from .tools import call

PROJECT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
STEPS = HERE / "steps"
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


def requirements(*extras: str) -> list[str]:
    """What pyproject.toml asks for to run pyvmm, and what these extras of it do for a host."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(each for name in extras for each in project["optional-dependencies"][name])]
    return [line for line in wanted if not line.startswith(NOT_THERE)]


def _pip(command: str, *words: str | Path) -> list[str | Path]:
    tags = [f"--platform={each}_x86_64" for each in PLATFORMS]
    python = ["--implementation=cp", f"--python-version={PYTHON}"]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--only-binary=:all:"]
    return [sys.executable, "-m", "pip", command, *quiet, *python, *tags, *words]


def install(target: Path, *words: str | Path) -> None:
    """Install into a folder, compiled if the Python that runs here writes what the root's reads: compiling at the first
    import takes minutes where the CPU is emulated.
    """
    call(_pip("install", "--no-compile", "--target", target, *words), limit=900, what=f"installing into {target.name}")
    if sys.version.startswith(f"{PYTHON}."):  # unchecked: a tar keeps no times that a check could trust
        modes: list[str | Path] = ["--invalidation-mode", "unchecked-hash", "-s", target, "-p", f"/{SITE}"]
        with suppress(LabError):  # a module that does not compile is nobody's trouble until somebody imports it
            call([sys.executable, "-m", "compileall", "-q", *modes, target], limit=300, what="compiling")


def dependencies(say: Say = silent) -> Path:
    """A folder with everything that pyvmm and its tests import; made anew when pyproject.toml names something else."""
    wanted = requirements("test")

    def make(work: Path) -> None:
        install(work / "packages", *wanted)

    digest = store.key("compiled", PYTHON, PLATFORMS, *wanted)
    return store.get("site", digest, make, say, "a folder of what pyvmm depends on") / "packages"


def wheels(say: Say = silent) -> Path:
    """A folder with the wheels of what pyvmm needs to run, from which pip can install in a host."""
    wanted = requirements()

    def make(work: Path) -> None:
        call(_pip("download", "--dest", work, *wanted), limit=900, what="fetching the wheels that pyvmm depends on")

    return store.get("wheels", store.key(PYTHON, PLATFORMS, *wanted), make, say, "a folder of wheels")


def wheel() -> Path:
    """The wheel that `make wheel` left in dist/.

    Raises:
        LabError: there is none, or more than one.
    """
    found = sorted((PROJECT / "dist").glob("pyvmm-*.whl"))
    if len(found) != 1:
        raise LabError(f"{len(found)} wheels in {PROJECT / 'dist'}", hint="make wheel")
    return found[0]


def limits(steps: Sequence[str]) -> dict[str, float]:
    """The seconds that each step may take, by its line `# limit: SECONDS`.

    Raises:
        LabError: there is no such step.
    """
    return {step: float(_said(step, "limit") or LIMIT) for step in steps}


def checks(steps: Sequence[str]) -> dict[str, str]:
    """The steps that leave a list of checks, and its file, by their line `# checks: FILE`.

    Raises:
        LabError: there is no such step.
    """
    return {step: file for step in steps if (file := _said(step, "checks"))}


def guests(steps: Sequence[str]) -> bool:
    """Whether one of the steps starts a Linux guest, by their line `# guest: linux`.

    Raises:
        LabError: there is no such step.
    """
    return any(_said(step, "guest") == "linux" for step in steps)


def systems(steps: Sequence[str]) -> bool:
    """Whether one of the steps starts a guest that is an operating system, by a line `# guest: ...`.

    Raises:
        LabError: there is no such step.
    """
    return any(_said(step, "guest") for step in steps)


def packages(steps: Sequence[str]) -> tuple[str, ...]:
    """What the root file system has for these steps beside the usual, by their line `# packages: NAME,NAME`.

    Raises:
        LabError: there is no such step.
    """
    return tuple(dict.fromkeys(name for step in steps for name in _said(step, "packages").split(",") if name))


def card(steps: Sequence[str]) -> str:
    """The module of a network card that these steps need, by their line `# network: MODULE`, or "".

    Raises:
        LabError: there is no such step.
    """
    return next((module for step in steps if (module := _said(step, "network"))), "")


def _said(step: str, what: str) -> str:
    script = STEPS / f"{step}.sh"
    if not re.fullmatch(r"[\w-]+", step) or not script.exists():
        known = ", ".join(sorted(path.stem for path in STEPS.glob("*.sh")))
        raise LabError(f"{step}: no step of the lab; there are {known}")
    told = re.search(rf"^# {what}: (\S+)$", script.read_text(), re.M)
    return told[1] if told else ""


def build(
    work: Path,
    steps: Sequence[str],
    module: str,
    folders: Mapping[str, Path],
    tests: str = "",
    more: Mapping[str, str] | None = None,
) -> tuple[Path, int]:
    """(disk, MiB from its start at which results begin). `module` is KVM's, `folders` go below /lab by their names,
    `tests` selects of the tests (Host.tests), `more` are further lines of /lab/parameters.
    """
    installed = work / "installed"
    install(installed, "--no-deps", wheel())
    shutil.rmtree(installed / "bin", ignore_errors=True)  # scripts that name this machine's Python
    disk = work / "parcel.img"
    _write(disk, (dependencies(), installed), [*wheels().iterdir(), wheel()], folders)
    at = disk.stat().st_size // MIB + 2  # what is added says it, and is less than a MiB
    with tarfile.open(disk, "a", format=tarfile.GNU_FORMAT) as tar:
        rows = {"KVM": module, "STEPS": " ".join(steps), "RESULTS_AT": str(at), "TESTS": tests, **(more or {})}
        text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in rows.items())
        _text(tar, "lab/parameters", text, 0o644)
    with disk.open("r+b") as file:
        file.truncate(at * MIB + ROOM)
    return disk, at


def _write(disk: Path, packages: Sequence[Path], files: Sequence[Path], folders: Mapping[str, Path]) -> None:
    with tarfile.open(disk, "w", format=tarfile.GNU_FORMAT) as tar:
        for folder in packages:
            for path in sorted(folder.iterdir()):
                tar.add(path, f"{SITE}/{path.name}", filter=_owned)
        for path in sorted(files):
            tar.add(path, f"lab/wheels/{path.name}", filter=_plain)
        for name in TREE:
            tar.add(PROJECT / name, f"lab/tree/{name}", filter=_plain)
        tar.add(STEPS, "lab/steps", filter=_plain)
        for name, folder in folders.items():
            tar.add(folder, f"lab/{name}", filter=_plain)
        _text(tar, "lab/init", (HERE / "guest" / "init").read_text(), 0o755)
        for name, line in SCRIPTS.items():
            _text(
                tar, f"usr/local/bin/{name}", f"#!/usr/bin/python3\nimport sys\n\n{line}\n\nsys.exit(main())\n", 0o755
            )


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in info.name else _owned(info)


def _owned(info: tarfile.TarInfo) -> tarfile.TarInfo:
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
