# SPDX-License-Identifier: GPL-2.0-or-later
"""What docs/release.md and docs/install.md name exists; the version stands in one place; the form of the changelog."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lacking(text: str, root: Path = ROOT) -> list[str]:
    """What the text names and is not there: make targets, commands of pyvmm, extras, files of the project."""
    from vmm.cli.arguments import COMMANDS

    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(encoding="utf-8"), re.M))
    wrong = [f"make {name}" for name in re.findall(r"\bmake ([a-z-]+)", text) if name not in targets]
    wrong += [f"pyvmm {name}" for name in re.findall(r"^ *pyvmm ([a-z]+)", text, re.M) if name not in COMMANDS]
    wrong += [each for each in re.findall(r"FILE\[(\w+)\]", text) if each not in PROJECT["optional-dependencies"]]
    wrong += [
        each
        for each in re.findall(r"`((?:tools|vmm|docs)/[\w/.-]+|\w+\.(?:toml|md))`", text)
        if not (root / each).exists()
    ]
    return wrong + [each for each in re.findall(r"\]\(([\w.-]+)\)", text) if not (root / "docs" / each).exists()]


@pytest.mark.parametrize("page", ["release", "install"])
def test_what_the_page_names_exists(page: str) -> None:
    assert lacking((ROOT / f"docs/{page}.md").read_text(encoding="utf-8")) == []


def test_what_does_not_exist_is_seen() -> None:
    text = "`make no-such` and\n    pyvmm nosuch\n'FILE[none]' `tools/none.py` `NONE.md` [x](none.md)"
    assert lacking(text) == ["make no-such", "pyvmm nosuch", "none", "tools/none.py", "NONE.md", "none.md"]


def test_the_version_stands_in_one_place() -> None:
    files = [*ROOT.glob("*.py"), *ROOT.glob("vmm/**/*.py"), *ROOT.glob("tools/**/*.py"), ROOT / "Makefile"]
    version = re.compile(rf"(?<![\d.]){re.escape(PROJECT['version'])}(?![\d.])")
    assert [str(each) for each in files if version.search(each.read_text(encoding="utf-8"))] == []


def test_the_changelog_has_its_form() -> None:
    """Keep a Changelog 1.1.0: Unreleased first, then versions with their days, newest first; known kinds of change."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    first, *released = re.findall(r"^## (.*)$", text, re.M)
    assert first == "[Unreleased]"
    days = [re.fullmatch(r"\[\d+\.\d+\.\d+\S*\] - (\d{4}-\d\d-\d\d)", each) for each in released]
    assert all(days)
    assert (told := [day[1] for day in days if day]) == sorted(told, reverse=True)
    assert set(re.findall(r"^### (.*)$", text, re.M)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }


def test_the_workflow_runs_the_wheel_on_every_python() -> None:
    """Its jobs as the runner reads them: one makes the wheel, one installs it on each Python that the page promises."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]
    job = jobs["installed"]
    assert job["needs"] == "wheel"
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    shell = "\n".join(step.get("run", "") for step in job["steps"])
    assert "--only-binary=:all: dist/pyvmm-*.whl" in shell
    assert "pyvmm run hello" in shell
    kept = {step["with"]["name"] for step in jobs["wheel"]["steps"] if "upload" in step.get("uses", "")}
    assert {step["with"]["name"] for step in job["steps"] if "download" in step.get("uses", "")} == kept
