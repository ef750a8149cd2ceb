# SPDX-License-Identifier: GPL-2.0-or-later
"""`make release-check`: what docs/release.md asks of the two files in dist/. Its tools come into a venv below build/,
from the extra `release` of pyproject.toml. A line for each check; status 1 if one failed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)
# Public and exported by every CPython so far, but not of the stable ABI: what makes a Python handler's call cheap
# (vmm/kvm/_python.c). PyObject_Vectorcall is of the stable ABI since 3.12.
BESIDE_ABI3 = {"PyVectorcall_Function", "PyInterpreterState_Head", "PyInterpreterState_Next",
               "PyInterpreterState_ThreadHead", "PyThreadState_Next", "PyObject_Vectorcall"}  # fmt: skip
failed = False


def say(what: str, good: bool, seen: str = "") -> None:
    """One line; and the end of what was seen, where it is bad."""
    global failed
    failed = failed or not good
    print(f"{'ok  ' if good else 'FAIL'}  {what}", flush=True)
    if not good and seen:
        print("      " + seen.strip()[-2000:].replace("\n", "\n      "), flush=True)


def call(*words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """The process, ended; one that cannot be started has status 127."""
    try:
        return subprocess.run(
            list(map(str, words)), env=os.environ | more, capture_output=True, text=True, check=False, timeout=900
        )
    except OSError as error:
        return subprocess.CompletedProcess(words, 127, "", str(error))


def pythons() -> Iterator[tuple[str, str]]:
    """(version, path) of each CPython from 3.11 on that is here, one of each minor version."""
    folders = [Path(each) for each in os.environ.get("PATH", "").split(os.pathsep) if each]
    folders += [*Path.home().glob(".pyenv/versions/*/bin"), *Path.home().glob(".local/share/uv/python/*/bin")]
    found = {}
    asked = "import sys; print(*sys.version_info[:3], sys.implementation.name, sep='.')"
    for path in sorted({each for folder in folders for each in folder.glob("python3.*")}):
        minor = path.name.removeprefix("python3.")
        if minor.isdigit() and int(minor) >= OLDEST[1] and minor not in found:
            version = call(path, "-c", asked).stdout.strip()
            if version.endswith(".cpython"):
                found[minor] = version.removesuffix(".cpython"), str(path)
    return iter(found[minor] for minor in sorted(found, key=int))


def installed(wheel: Path, version: str, python: str) -> None:
    """An empty venv of this Python, a PATH that has nothing but it, and a guest."""
    with tempfile.TemporaryDirectory(prefix="release check ") as folder:
        place = Path(folder)
        made = call(python, "-m", "venv", place / "env")
        bare = {"PATH": str(place / "env/bin"), "PYTHONPATH": "", "PYTHONHOME": ""}
        program = place / "env/bin/pyvmm"
        pip = [place / "env/bin/python", "-m", "pip", "install", "--quiet", "--only-binary=:all:", wheel]
        for what, words in (
            ("installs", pip), ("says its version", [program, "--version"]), ("runs hello", [program, "run", "hello"]),
        ):  # fmt: skip
            done = call(*words, **bare) if not made.returncode else made
            say(f"Python {version}: {what} without a compiler", done.returncode == 0, done.stdout + done.stderr)
            if done.returncode:
                return


def main() -> int:
    """Every check of docs/release.md that a machine can make."""
    (wheel,), (sdist,) = (ROOT / "dist").glob("*.whl"), (ROOT / "dist").glob("*.tar.gz")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    say(f"{wheel.name} runs with glibc 2.17", "manylinux_2_17_x86_64" in wheel.name)
    say(
        f"both are of version {project['version']}",
        all(f"-{project['version']}" in each.name for each in (wheel, sdist)),
    )
    tools = ROOT / "build/release-tools"
    venv.create(tools, with_pip=True, clear=True)
    got = call(tools / "bin/python", "-m", "pip", "install", "--quiet", *project["optional-dependencies"]["release"])
    say("the tools of the extra `release`", got.returncode == 0, got.stderr)
    done = call(tools / "bin/twine", "check", "--strict", wheel, sdist)
    say("twine check --strict", done.returncode == 0, done.stdout + done.stderr)
    done = call(tools / "bin/abi3audit", "--report", "--output", tools / "abi3.json", wheel)
    try:
        (report,) = json.loads((tools / "abi3.json").read_text(encoding="utf-8"))["specs"].values()
        results = [each["result"] for each in report["wheel"]]
        beside = {name for each in results for name in (*each["non_abi3_symbols"], *each["future_abi3_objects"])}
        say("beside the stable ABI: what is known", bool(results) and beside <= BESIDE_ABI3, f"{beside - BESIDE_ABI3}")
    except (OSError, ValueError, KeyError) as error:
        say("abi3audit", False, f"{error!r}: {done.stdout}{done.stderr}")
    for version, python in pythons():
        installed(wheel, version, python)
    own = {"PIPX_HOME": str(tools / "pipx"), "UV_CACHE_DIR": str(tools / "uv"), "PIPX_DEFAULT_PYTHON": sys.executable}
    for what, words in (
        ("pipx run --spec", [tools / "bin/pipx", "run", "--no-cache", "--spec", wheel, "pyvmm"]),
        ("uvx --from", [tools / "bin/uvx", "--python", sys.executable, "--from", wheel, "pyvmm"]),
    ):
        done = call(*words, "run", "hello", **own)
        say(f"{what} FILE pyvmm run hello", done.returncode == 0, done.stdout + done.stderr)
    shutil.rmtree(tools)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
