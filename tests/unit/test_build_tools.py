# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stranger reads when the machine lacks a compiler, a header, a Python: the words of tools/check-build-tools."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(python: str = sys.executable, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(ROOT / "tools/check-build-tools"), python]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


@pytest.fixture
def compiler(tmp_path: Path) -> Path:
    """A compiler that finds every header but those named in $LACKS."""
    fake = tmp_path / "cc"
    fake.write_text('#!/bin/sh\nread -r line\nfor name in $LACKS; do case $line in *"<$name>"*) exit 1;; esac; done\n')
    fake.chmod(0o755)
    return fake


def test_nothing_missing_says_nothing(compiler: Path) -> None:
    done = check(CC=str(compiler), LACKS="")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_no_compiler_names_the_package() -> None:
    done = check(CC="no-such-compiler")
    assert done.returncode == 1
    assert "missing: a C compiler (no-such-compiler)" in done.stderr
    assert "apt install gcc" in done.stderr


@pytest.mark.parametrize(
    ("header", "package"),
    [("stdio.h", "libc6-dev"), ("linux/kvm.h", "linux-libc-dev"), ("Python.h", "python3-dev")],
)
def test_a_missing_header_names_its_package(compiler: Path, header: str, package: str) -> None:
    done = check(CC=str(compiler), LACKS=header)
    assert done.returncode == 1
    assert f"({header})" in done.stderr
    assert f"apt install {package}\n" in done.stderr
    assert done.stderr.count("missing:") == 1


def test_several_missing_are_told_at_once(compiler: Path) -> None:
    done = check(CC=str(compiler), LACKS="linux/kvm.h Python.h")
    assert done.stderr.count("missing:") == 2
    assert done.stderr.count("cannot be built here") == 1


def test_no_python() -> None:
    done = check("no-such-python")
    assert done.returncode == 1
    assert "missing: no-such-python" in done.stderr
    assert "PYTHON=" in done.stderr


@pytest.mark.parametrize(
    ("refuses", "words"),
    [("version_info", "Python 3.11 or newer"), ("ensurepip", "apt install python3-venv")],
)
def test_a_python_that_will_not_do(tmp_path: Path, compiler: Path, refuses: str, words: str) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase $2 in *{refuses}*) exit 1;; esac\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    done = check(str(python), CC=str(compiler), LACKS="")
    assert done.returncode == 1
    assert words in done.stderr


def test_make_stops_there(tmp_path: Path) -> None:
    """`make run` and `make test` in a fresh clone end with these words, before any venv is made."""
    for name in ("Makefile", "pyproject.toml", "setup.py", "cffi_build.py", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    for target in ("run", "test"):
        done = subprocess.run(
            ["make", target, f"PYTHON={sys.executable}"],
            cwd=tmp_path,
            env={**os.environ, "CC": "no-such-compiler", "MAKEFLAGS": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "apt install gcc" in done.stderr
        assert not (tmp_path / ".venv").exists()
