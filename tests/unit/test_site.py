# SPDX-License-Identifier: GPL-2.0-or-later
"""The site: it builds without a warning, every link of it is met, and what messages and guides name is there."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.chromium import Chromium
from tools.site import build, check, commands, course, stage, tables
from vmm.abi import pv
from vmm.base import docs_place
from vmm.cli import main
from vmm.cli.arguments import COMMANDS
from vmm.learn.course import lessons
from vmm.payload.catalog import shipped

ROOT = Path(__file__).resolve().parents[2]
# What Xen, QEMU and kvm-unit-tests call docs/ has other endings or a folder below.
MENTION = re.compile(
    r"\bdocs/(?P<file>\w+)\.md(?:#(?P<a>[\w-]+))?|`pyvmm docs (?!PAGE)(?P<page>[\w/-]+)(?:#(?P<b>[\w-]+))?"
)

pytestmark = pytest.mark.timeout(600)  # the first test builds the whole site, which takes a loaded machine minutes


# All that the site is made of, beside the packages that make it.
MADE_OF = (
    "CHANGELOG.md", "CONTRIBUTING.md", "pyproject.toml", "docs", "guest_payloads", "tests/listings", "tools/site",
    "vmm",
)  # fmt: skip
BUILT = ROOT / "build" / "tested-site"


def made_of() -> str:
    """A hash of it: every file, every installed package with its version, this Python."""
    said = hashlib.sha256(sys.version.encode())
    said.update(repr(sorted((each.name, each.version) for each in importlib.metadata.distributions())).encode())
    for path in sorted(path for name in MADE_OF for path in (ROOT / name, *(ROOT / name).rglob("*"))):
        if path.is_file() and path.suffix not in (".pyc", ".so"):
            said.update(f"{path.relative_to(ROOT)} {path.stat().st_size} ".encode())
            said.update(path.read_bytes())
    return said.hexdigest()[:32]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site, built as `make docs` builds it, in a process that coverage does not make slow. What a run before
    built of the same files is the same: it was checked then, and is kept, one at a time, in build/.
    """
    try:
        BUILT.mkdir(parents=True, exist_ok=True)
        lock = (BUILT / "lock").open("w")
    except OSError:  # sources that cannot be written to
        return built(tmp_path_factory.mktemp("site") / "site")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept = BUILT / made_of()
        if not kept.exists():
            for old in BUILT.iterdir():
                if old.is_dir():
                    shutil.rmtree(old)
            built(BUILT / "new").rename(kept)
        return kept


def built(out: Path) -> Path:
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    words = [sys.executable, "-m", "tools.site", "--out", str(out)]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return out


def test_every_link_is_met_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    # That it was built says that tools/site/check.py found nothing: `site` asks for that.
    for name in ("index", "debug", "features/STEAL_TIME", "commands/run", "reference/machine", "tables/exits"):
        assert (site / f"{name}.html").is_file(), name
    for path in [*site.rglob("*.css"), *site.rglob("*.js")]:
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", path.read_text(encoding="utf-8")), path


def test_it_is_searched_without_a_server(site: Path) -> None:
    assert (site / "searchindex.js").read_text(encoding="utf-8").startswith("Search.setIndex(")
    assert '<script src="searchindex.js"' in (site / "search.html").read_text(encoding="utf-8")


def test_a_feature_has_its_abi_its_hosts_and_its_guest(site: Path) -> None:
    text = (site / "features/STEAL_TIME.html").read_text(encoding="utf-8")
    for each in ("0x4b564d03", "MSR_KVM_STEAL_TIME", "preempted", "svm-6.1", "software-backed", "steal_time.lst.txt"):
        assert each in text, each
    assert (site / "guests/steal_time.lst.txt").read_text() == (ROOT / "tests/listings/steal_time.lst").read_text()
    assert {path.name.removesuffix(".lst.txt") for path in (site / "guests").glob("*.lst.txt")} == set(shipped())
    assert all((site / f"features/{row.name}.html").is_file() for row in pv.FEATURES)


def test_the_reference_has_the_docstrings(site: Path) -> None:
    text = (site / "reference/machine.html").read_text(encoding="utf-8")
    assert 'id="vmm.Machine.run"' in text
    assert "Raises" in text
    assert 'id="vmm.Machine.on_port_write"' in text  # it inherits this one
    assert 'id="vmm.pytest_plugin.run_payload"' in (site / "reference/plugin.html").read_text(encoding="utf-8")


def test_the_index_of_pages_names_files_that_are_there(site: Path) -> None:
    every = docs_place.pages((site,))
    assert len(every) > 100
    assert all(place.file.is_file() for place in every.values())
    assert every["debug"].title.startswith("A debugger")


def test_a_bad_link_a_bad_anchor_and_a_forgotten_page_are_warnings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(into: Path) -> None:
        into.mkdir(parents=True)
        (into / "index.md").write_text("# A\n\n[b](b.md#nowhere), [c](c.md)\n\n```{toctree}\nb\n```\n")
        (into / "b.md").write_text("# B\n")
        (into / "lost.md").write_text("# Lost\n")

    monkeypatch.setattr(stage, "stage", small)
    wrong = build.build(tmp_path / "out")
    for each in ("nowhere", "c.md", "lost.md"):
        assert any(each in line for line in wrong), (each, wrong)
    assert not (tmp_path / "out").exists()


def test_the_check_of_links_can_fail(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<a href="b.html">x</a><a href="b.html#no">x</a><a href="#here">x</a><a href="gone.html">x</a>'
        '<script src="https://cdn.example/x.js"></script><a href="https://example.org/">x</a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="yes">b</h1>')
    wrong = check.problems(tmp_path)
    assert len(wrong) == 4
    for each in ("b.html#no", "#here", "gone.html", "cdn.example"):
        assert any(each in line for line in wrong), each


def mentions() -> Iterator[tuple[str, str, str]]:
    """(file, page, anchor) of each page that a source, a message or a guest names."""
    for path in [*ROOT.glob("vmm/**/*.*"), *ROOT.glob("guest_payloads/**/*.*")]:
        if path.suffix in (".py", ".asm", ".inc", ".c", ".h", ".md"):
            for found in MENTION.finditer(path.read_text(encoding="utf-8")):
                yield str(path.relative_to(ROOT)), found["file"] or found["page"], found["a"] or found["b"] or ""


def test_every_page_that_a_message_names_is_there(site: Path) -> None:
    every = docs_place.pages((site,))
    named = list(mentions())
    assert len([page for _, page, _ in named if page == "debug"]) >= 1
    for file, page, anchor in named:
        places = docs_place.find(page, every)
        assert len(places) == 1, f"{file} names the page {page}"
        assert not anchor or f'id="{anchor}"' in places[0].file.read_text(encoding="utf-8"), f"{file}: {page}#{anchor}"


def test_every_guide_is_in_one_group_and_has_its_question() -> None:
    names = [name for group in stage.GUIDES.values() for name in group]
    assert len(names) == len(set(names))
    assert stage.OTHERS not in stage.grouped(), f"a group of tools/site/stage.py has none of {stage.grouped()['More']}"
    assert set(stage.questions()) == {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"}


def test_the_menu_has_every_page_of_its_own() -> None:
    shown = {page for _, entries in stage.menu() for page, _ in entries}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} - {"README"} <= shown


def test_every_command_and_option_has_its_place() -> None:
    made = dict(commands.pages())
    assert {f"commands/{name}.md" for name in COMMANDS} < set(made)
    assert "`--timeout" in made["commands/run.md"]
    assert "--gdb" in made["commands/run.md"]


def test_tables_have_every_row() -> None:
    rows = {each.name: each.rows for each in tables.every()}
    assert len(rows["exits"]) == 44
    assert any("MSR\\_KVM\\_STEAL\\_TIME" in row[1] or "MSR_KVM_STEAL_TIME" in row[1] for row in rows["msrs"])


def test_pages_are_no_wider_than_a_telephone(site: Path, chromium: Chromium) -> None:
    for name in ("index", "changelog", "library", "reference/images", "features/STEAL_TIME", "tables/msrs"):
        chromium.visit((site / f"{name}.html").as_uri(), width=400)
        assert chromium.run("document.documentElement.scrollWidth") == 400, name
    assert chromium.complaints == []


@pytest.mark.parametrize(("style", "scheme"), [("default", 0), ("github-dark", 1)])
def test_highlighted_text_can_be_read(style: str, scheme: int) -> None:
    """WCAG 2.2, 1.4.3: each colour of the highlighter on the ground that code lies on, in light and in dark."""
    from pygments.styles import get_style_by_name

    from tests.unit.test_pages_look import TEXT, colour, contrast

    css = (ROOT / "tools/site/theme/static/pyvmm.css").read_text(encoding="utf-8")
    assert re.search(r"pre, \.highlight pre \{\s*background: var\(--code\)", css)
    ground = colour(re.findall(r"--code: (#\w{6});", css)[scheme])
    used = {
        str(token): f"#{each['color']}"
        for token, each in get_style_by_name(style)
        if each["color"] and "Whitespace" not in str(token)
    }
    assert len(used) > 20
    assert {name: each for name, each in used.items() if contrast(colour(each), ground) < TEXT} == {}


def test_every_lesson_is_a_page_in_its_place() -> None:
    made = dict(course.pages())
    assert set(made) == {"learn/index.md", *(f"learn/{each.name}.md" for each in lessons())}
    for each in lessons():
        text = made[f"learn/{each.name}.md"]
        assert each.starter in text
        assert each.hint in text.partition("<details>")[2]
        assert text.startswith("# ")


# --- pyvmm docs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    """`pyvmm` with these words: status, output, errors."""

    def called(*words: str) -> tuple[int, str, str]:
        status = main(words)
        out, err = capsys.readouterr()
        return status, out, err

    return called


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small site where the wheel would have one."""
    folder = tmp_path / "site"
    (folder / "features").mkdir(parents=True)
    titles = {"index": "pyvmm", "debug": "Debugging", "features/index": "F", "features/STEAL_TIME": "STEAL_TIME"}
    (folder / "pages.json").write_text(json.dumps(titles))
    for name in titles:
        (folder / f"{name}.html").write_text('<h1 id="top">x</h1>')
    monkeypatch.setattr(docs_place, "PACKAGE", tmp_path)
    return folder


def test_docs_lists_pages_and_says_where_one_is(installed: Path, call: Any) -> None:
    status, out, err = call("docs")
    assert (status, err) == (0, "")
    assert "debug" in out
    assert "features/STEAL_TIME" in out
    assert call("docs", "debug")[1] == f"Debugging: {(installed / 'debug.html').as_uri()}\n"
    assert call("docs", "docs/debug.md", "--path")[1] == f"{installed / 'debug.html'}\n"
    assert call("docs", "steal_time#top")[1].endswith("STEAL_TIME.html#top\n")
    assert call("docs", "--path")[1] == f"{installed / 'index.html'}\n"
    assert call("docs", "features", "--path")[1] == f"{installed / 'features/index.html'}\n"


def test_docs_as_a_document(installed: Path, call: Any, follows: Any) -> None:
    doc = follows("docs", call("docs", "debug", "--json")[1])
    assert doc["pages"] == [
        {
            "name": "debug",
            "title": "Debugging",
            "file": f"{installed}/debug.html",
            "url": f"file://{installed}/debug.html",
        }
    ]


def test_what_is_not_there_is_said(installed: Path, call: Any) -> None:
    status, out, err = call("docs", "debgu")
    assert (status, out) == (2, "")
    assert "did you mean debug?" in err
    assert "no part #nowhere" in call("docs", "debug#nowhere")[2]
    (installed / "debug.html").unlink()
    assert "not there any more" in call("docs", "debug")[2]
    (installed / "commands").mkdir()
    (installed / "pages.json").write_text('{"a/run": "1", "b/run": "2"}')
    assert "several pages" in call("docs", "run")[2]


def test_docs_opens_a_browser_or_says_that_there_is_none(
    installed: Path, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import webbrowser

    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: not opened.append(url))
    assert call("docs", "debug", "--open")[0] == 0
    assert opened == [(installed / "debug.html").as_uri()]
    monkeypatch.setattr(webbrowser, "open", lambda url: False)
    status, _, err = call("docs", "--open")
    assert status == 2
    assert "no browser" in err


def test_a_checkout_without_a_site_has_the_text(call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(docs_place, "PACKAGE", tmp_path)
    monkeypatch.setattr(docs_place, "CHECKOUT", tmp_path / "checkout")
    from email.message import Message

    assert "no documentation is installed" in call("docs")[2]
    known = Message()
    known["Project-URL"] = "Documentation, https://example.org/pyvmm"
    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "metadata", lambda name: known)
        assert "try: https://example.org/pyvmm" in call("docs")[2]
    shutil.copytree(ROOT / "docs", tmp_path / "checkout/docs", ignore=shutil.ignore_patterns("hosts"))
    status, out, _ = call("docs", "debug")
    assert status == 0
    assert out.endswith("checkout/docs/debug.md\n")
    for word, page, instead in (
        ("STEAL_TIME", "features/STEAL_TIME", "explain STEAL_TIME"),
        ("features/steal_time#abi", "features/STEAL_TIME", "explain STEAL_TIME"),
        ("initrd", "commands/initrd", "help initrd"),
        ("learn/idt", "learn/idt", "learn show idt"),
    ):
        status, out, err = call("docs", word)
        assert (status, out) == (2, "")
        assert f"the page {page} is of the site, which {tmp_path}/checkout has not built yet" in err
        assert f"try: `make docs` there builds it, and `pyvmm {instead}`" in err
    assert "no page is called" in call("docs", "commands/STEAL_TIME")[2]
    assert call("docs", "--path")[1].endswith("docs/README.md\n")


def test_a_wheel_that_is_built_after_the_site_carries_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import runpy

    import setuptools
    from setuptools.command.build_py import build_py

    said: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **options: said.update(options))
    monkeypatch.setattr(build_py, "run", lambda self: None)
    runpy.run_path(str(ROOT / "setup.py"))
    command = said["cmdclass"]["build_py"](setuptools.Distribution())
    command.build_lib, command.SITE = str(tmp_path / "lib"), tmp_path / "made"
    command.run()
    assert not (tmp_path / "lib").exists()  # nobody has built it: a wheel without the site is one, too
    (tmp_path / "made/features").mkdir(parents=True)
    for name in ("pages.json", "features/X.html"):
        (tmp_path / "made" / name).write_text("{}")
    command.run()
    assert (tmp_path / "lib/vmm/site/features/X.html").is_file()
    assert docs_place.site((tmp_path / "lib/vmm/site",)) is not None
