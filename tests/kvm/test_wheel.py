# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel as a stranger gets it: no compiler, an empty venv, a folder whose name has a space.

The other Pythons are `make release-check`'s and the CI's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kvm.conftest import build_wheel
from vmm.cli.completion import SHELLS

if TYPE_CHECKING:
    from tests.kvm.conftest import Wheel

SHARE = {
    "bash": "bash-completion/completions/pyvmm",
    "zsh": "zsh/site-functions/_pyvmm",
    "fish": "fish/vendor_completions.d/pyvmm.fish",
}
MANUAL = "man/man1/pyvmm.1"


def files(wheel: Path) -> set[str]:
    return {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}


def metadata(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return archive.read(name).decode()


def test_its_name_says_what_it_needs(wheel: Wheel) -> None:
    """auditwheel gives a newer name to what needs a newer C library: a symbol of one is to be seen here."""
    tags = set(wheel.file.stem.split("-")[2:])
    assert tags == {"cp311", "abi3", "manylinux2014_x86_64.manylinux_2_17_x86_64"}


def test_sources_and_sdist_give_the_same(wheel: Wheel, tmp_path: Path) -> None:
    """A file that MANIFEST.in forgets is missing in the wheel that is made of the sdist, and only there. What differs
    is that this one is told where the documentation is published.
    """
    published = "https://docs.example/pyvmm/"
    done = build_wheel(wheel.sources, tmp_path / "wheels", wheel.environment | {"PYVMM_DOCS_URL": published})
    assert done.returncode == 0, done.stderr
    (plain,) = (tmp_path / "wheels").iterdir()
    assert files(plain) == files(wheel.file)
    assert f"Project-URL: Documentation, {published}\n" in metadata(plain)
    assert "Project-URL" not in metadata(wheel.file)
    assert {f"pyvmm-{plain.name.split('-')[1]}.data/data/share/{name}" for name in (*SHARE.values(), MANUAL)} <= files(
        plain
    )
    with tarfile.open(wheel.sdist) as tar:
        kept = {name.partition("/")[2] for name in tar.getnames()}
    assert {"Makefile", "CHANGELOG.md", "tools/share.py", "vmm/kvm/_kvm.c"} <= kept
    assert not {name for name in kept if name.endswith((".so", ".pyc"))}


def test_hello_where_nothing_can_be_compiled(wheel: Wheel, tmp_path: Path) -> None:
    """pip from an index, wheels alone; a PATH with nothing on it; then a guest. The other half of `works offline` is
    that the same wheels then install without an index.
    """
    place = tmp_path / "a folder"
    place.mkdir()
    bare = {"PATH": str(place), "HOME": str(place), "LANG": "C.UTF-8"}
    given = {name: value for name, value in os.environ.items() if name.lower().startswith(("pip_", "http", "ssl_"))}
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    fetch = [*pip, "download", "--only-binary=:all:", "--dest", str(place / "wheels"), str(wheel.file)]
    fetched = subprocess.run(fetch, env=bare | given, capture_output=True, text=True, check=False)
    if fetched.returncode and re.search(
        r"NewConnectionError|Connection\w*Error|Temporary failure|timed out", fetched.stderr
    ):
        pytest.skip(f"no package index can be reached: {fetched.stderr.strip()[-200:]}")
    assert fetched.returncode == 0, fetched.stderr
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "env")], env=bare, check=True)
    python = place / "env/bin/python"
    # Without bytecode of all that pyvmm depends on, which is half of the time: who runs it makes what he needs.
    install = [*pip, "--python", str(python), "install", "--no-compile", "--no-index"]
    install += ["--find-links", str(place / "wheels"), "pyvmm"]
    subprocess.run(install, env=bare, check=True)
    command = python.with_name("pyvmm")

    def said(*words: str) -> str:
        done = subprocess.run([command, *words], cwd=place, env=bare, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "not installed" not in said("--version")
    assert re.search(r"^pass +hello ", said("run", "hello"), re.M)
    for shell in SHELLS:
        assert (python.parents[1] / "share" / SHARE[shell]).read_text(encoding="utf-8") == said("completion", shell)


def test_the_manual_page(wheel: Wheel) -> None:
    """As groff and mandoc read it: no warning, a line for whatis, every command."""
    page = wheel.venv / "share" / MANUAL
    text = page.read_text(encoding="utf-8")
    for command in wheel.run("pyvmm", "--help", cwd=wheel.venv).stdout.split("commands:")[1].splitlines():
        if found := re.match(r"    ([a-z]+) ", command):
            assert re.search(rf"^\.SS \\fBpyvmm {found[1]}\\fR$", text, re.M), found[1]
    assert re.search(r"^\.SH NAME\npyvmm \\- \w", text, re.M)
    readers = {"groff": ["-man", "-Tutf8", "-ww", "-z"], "mandoc": ["-T", "lint", "-W", "warning"]}
    for reader, words in readers.items():
        if shutil.which(reader):
            done = subprocess.run([reader, *words, str(page)], capture_output=True, text=True, check=False)
            assert done.stdout + done.stderr == ""
