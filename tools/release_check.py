# SPDX-License-Identifier: GPL-2.0-or-later
"""`make release-check`: what docs/release.md asks of the two files in dist/. Its tools come into a venv below build/,
from the extra `release` of pyproject.toml. A line for each check; status 1 if one failed. What could not be tried,
since it is not here, is named by a line of its own and once more at the end.
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
PROMISED = ("3.11", "3.12", "3.13", "3.14")  # docs/install.md
failed = False
untried: list[str] = []


def say(what: str, good: bool, seen: str = "") -> None:
    """One line; and the end of what was seen, where it is bad."""
    global failed
    failed = failed or not good
    print(f"{'ok  ' if good else 'FAIL'}  {what}", flush=True)
    if not good and seen:
        print("      " + seen.strip()[-2000:].replace("\n", "\n      "), flush=True)


def skip(what: str, why: str) -> None:
    """What could not be tried, and what it would need."""
    untried.append(what)
    print(f"----  {what}: not tried, {why}", flush=True)


def call(*words: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """The process, ended; one that cannot be started has status 127."""
    try:
        return subprocess.run(
            list(map(str, words)), env=os.environ | more, capture_output=True, text=True, check=False, timeout=900
        )
    except OSError as error:
        return subprocess.CompletedProcess(words, 127, "", str(error))


def pythons() -> Iterator[tuple[str, str]]:
    """(version, path) of each CPython from PROMISED's first on that is here, one of each minor version."""
    folders = [Path(each) for each in os.environ.get("PATH", "").split(os.pathsep) if each]
    folders += [*Path.home().glob(".pyenv/versions/*/bin"), *Path.home().glob(".local/share/uv/python/*/bin")]
    found = {}
    oldest = int(PROMISED[0].partition(".")[2])
    asked = "import sys, venv; print(*sys.version_info[:3], sys.implementation.name, sep='.')"
    for path in sorted({each for folder in folders for each in folder.glob("python3.*")}):
        minor = path.name.removeprefix("python3.")
        if minor.isdigit() and int(minor) >= oldest and minor not in found:
            version = call(path, "-c", asked).stdout.strip()
            if version.endswith(".cpython"):
                found[minor] = version.removesuffix(".cpython"), str(path)
    return iter(found[minor] for minor in sorted(found, key=int))


def installed(wheel: Path, version: str, python: str, tools: Path) -> None:
    """An empty venv of this Python, a PATH that has nothing but it, and guests. The tools' pip installs: a Debian has
    Pythons without one.
    """
    with tempfile.TemporaryDirectory(prefix="release check ") as folder:
        place = Path(folder)
        made = call(python, "-m", "venv", "--without-pip", place / "env")
        bare = {"PATH": str(place / "env/bin"), "PYTHONPATH": "", "PYTHONHOME": ""}
        program = place / "env/bin/pyvmm"
        pip = [tools / "bin/python", "-m", "pip", "--python", place / "env/bin/python", "install", "--quiet",
               "--only-binary=:all:", wheel]  # fmt: skip
        for what, words in (
            ("installs", pip),
            ("says its version", [program, "--version", "--json"]),
            ("runs hello", [program, "run", "hello"]),
            ("probes this host", [program, "probe"]),
        ):
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
        beside = {str(name) for each in results for name in (*each["non_abi3_symbols"], *each["future_abi3_objects"])}
        say("abi3audit: nothing outside of the stable ABI", bool(results) and not beside, ", ".join(sorted(beside)))
    except (OSError, ValueError, KeyError) as error:
        say("abi3audit", False, f"{error!r}: {done.stdout}{done.stderr}")
    here = dict(pythons())
    for version, python in here.items():
        installed(wheel, version, python, tools)
    for promised in PROMISED:
        if not any(version.startswith(f"{promised}.") for version in here):
            skip(f"Python {promised}", f"there is no python{promised} on the PATH, of pyenv or of uv, that makes venvs")
    own = {"PIPX_HOME": str(tools / "pipx"), "UV_CACHE_DIR": str(tools / "uv"), "PIPX_DEFAULT_PYTHON": sys.executable}
    for what, words in (
        ("pipx run --spec", [tools / "bin/pipx", "run", "--no-cache", "--spec", wheel, "pyvmm"]),
        ("uvx --from", [tools / "bin/uvx", "--python", sys.executable, "--from", wheel, "pyvmm"]),
    ):
        done = call(*words, "run", "hello", **own)
        say(f"{what} FILE pyvmm run hello", done.returncode == 0, done.stdout + done.stderr)
    shutil.rmtree(tools)
    if untried:
        print(f"not tried here: {', '.join(untried)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
