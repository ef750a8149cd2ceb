# SPDX-License-Identifier: GPL-2.0-or-later
"""The finder of the command's own modules: the same modules as Python's, and never code that is not the source's."""

from __future__ import annotations

import importlib
import importlib.util
import os
import py_compile
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmm
from vmm.base import finder

NAME = "package_of_a_test"


class Plain:
    """A package of one module, `NAME.word`, whose `said` is what the test wrote."""

    def __init__(self, root: Path) -> None:
        self.folder = root / NAME
        self.word = self.folder / "word.py"
        self.folder.mkdir()
        (self.folder / "__init__.py").touch()
        self.write("first")

    def write(self, said: str, when: int = 1_700_000_000) -> None:
        """All of one size, if the words are."""
        self.word.write_text(f"said = {said!r}\n")
        os.utime(self.word, (when, when))

    @property
    def compiled(self) -> Path:
        return Path(importlib.util.cache_from_source(str(self.word)))

    def said(self) -> str:
        """By the module, imported anew."""
        for name in [each for each in sys.modules if each == NAME or each.startswith(f"{NAME}.")]:
            del sys.modules[name]
        importlib.invalidate_caches()
        said: str = importlib.import_module(f"{NAME}.word").said
        return said


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Plain]:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "meta_path", [finder.Finder(NAME), *sys.meta_path])
    yield Plain(tmp_path)
    for name in [each for each in sys.modules if each.split(".")[0] == NAME]:
        del sys.modules[name]


def test_what_was_compiled_is_what_is_read(plain: Plain) -> None:
    """Not the source: else nothing here would show that the finder is at work."""
    assert plain.said() == "first"  # by Python, which keeps it compiled
    other = plain.folder / "other.py"
    other.write_text("said = 'other'\n")
    os.utime(other, (1_700_000_000, 1_700_000_000))  # of one size and time with the source
    py_compile.compile(str(other), cfile=str(plain.compiled))
    assert plain.said() == "other"
    assert isinstance(sys.modules[f"{NAME}.word"].__loader__, finder.Loader)


def test_a_source_of_another_time_is_compiled_anew(plain: Plain) -> None:
    assert plain.said() == "first"
    plain.write("newer", when=1_700_000_001)
    assert plain.said() == "newer"


def test_a_source_of_another_size_is_compiled_anew(plain: Plain) -> None:
    assert plain.said() == "first"
    plain.write("a longer one")
    assert plain.said() == "a longer one"


@pytest.mark.parametrize(
    "damage", [b"", b"\0\0\0\0", importlib.util.MAGIC_NUMBER, None], ids=["empty", "magic", "short", "cut"]
)
def test_damaged_code_is_not_run(plain: Plain, damage: bytes | None) -> None:
    assert plain.said() == "first"
    good = plain.compiled.read_bytes()
    plain.compiled.write_bytes(damage if damage is not None else good[:-4])
    if damage is None:  # with a good head: Python does not go on either
        with pytest.raises(EOFError):
            plain.said()
        return
    assert plain.said() == "first"


def test_code_of_another_python_is_not_run(plain: Plain) -> None:
    assert plain.said() == "first"
    code = plain.compiled.read_bytes()
    plain.compiled.write_bytes(b"\x01\x02\r\n" + code[4:].replace(b"first", b"older"))
    assert plain.said() == "first"


def test_code_by_hash_is_pythons(plain: Plain) -> None:
    """PEP 552: Python compares the source with the hash, and time and size say nothing."""
    py_compile.compile(str(plain.word), invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH)
    plain.write("other")
    assert plain.said() == "other"


def test_a_hash_that_looks_like_time_and_size_is_none(plain: Plain) -> None:
    assert plain.said() == "first"
    code = plain.compiled.read_bytes()
    plain.compiled.write_bytes(code[:4] + b"\x03" + code[5:].replace(b"first", b"older"))
    assert plain.said() == "first"


def test_a_module_without_compiled_code_is_imported_and_compiled(plain: Plain) -> None:
    assert not plain.compiled.exists()
    assert plain.said() == "first"
    assert plain.compiled.exists()


def test_a_folder_that_cannot_be_written_is_no_error(plain: Plain) -> None:
    (plain.folder / "__pycache__").touch()  # a file, where the folder would be
    assert plain.said() == "first"


def test_a_long_module_is_whole(plain: Plain) -> None:
    plain.word.write_text(f"said = {'x' * (finder.ROOM + 1)!r}\n")
    assert plain.said() == plain.said() == "x" * (finder.ROOM + 1)
    assert plain.compiled.stat().st_size > finder.ROOM


def test_code_names_the_file_where_it_is_now(plain: Plain) -> None:
    """And not where it was compiled, in another folder."""
    plain.word.write_text("said = (lambda: 0).__code__.co_filename\n")
    py_compile.compile(str(plain.word), dfile="/elsewhere/word.py")
    assert plain.said() == str(plain.word)


def test_modules_are_as_pythons_own() -> None:
    """Every module of pyvmm, the binding too: where each is found, and by what its spec says."""
    ours = finder.Finder("vmm")
    root = Path(vmm.__file__).parent
    for file in sorted(root.rglob("*.py")):
        parts = file.relative_to(root.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name in ("vmm", "vmm.__main__"):
            continue
        found, theirs = (
            ours.find_spec(name, [str(root.joinpath(*name.split(".")[1:-1]))]),
            importlib.util.find_spec(name),
        )
        assert found is not None
        assert theirs is not None
        for each in ("name", "origin", "cached", "has_location", "submodule_search_locations", "parent"):
            assert getattr(found, each) == getattr(theirs, each), (name, each)
    for folder in (each for each in root.rglob("*") if each.is_dir() and list(each.glob("*.py"))):
        name = ".".join(folder.relative_to(root.parent).parts)
        if (folder / "__init__.py").exists():
            continue
        found, theirs = ours.find_spec(name, [str(folder.parent)]), importlib.util.find_spec(name)
        assert found is not None
        assert theirs is not None
        assert (
            list(found.submodule_search_locations or [])
            == list(theirs.submodule_search_locations or [])
            == [str(folder)]
        )
        assert (found.loader, found.origin, found.has_location) == (None, theirs.origin, theirs.has_location)
    assert ours.find_spec("vmm.kvm._kvm", [str(root / "kvm")]) is None
    assert ours.find_spec("vmm.no_such_module", [str(root)]) is None
    assert ours.find_spec("json.decoder", ["/"]) is None
    assert ours.find_spec("vmm.cli", None) is None
    assert ours.find_spec("vmm.cli", [str(root), "/elsewhere"]) is None


def test_no_module_has_the_name_of_a_folder() -> None:
    """Python would take the folder, and the finder the module."""
    root = Path(vmm.__file__).parent
    assert not [each for each in root.rglob("*.py") if each.with_suffix("").is_dir()]


@pytest.mark.parametrize(("options", "used"), [([], True), (["-O"], False), (["-X", "pycache_prefix=/nowhere"], False)])
def test_another_way_of_keeping_code_is_left_to_python(options: list[str], used: bool) -> None:
    program = (
        "import sys; from vmm.base.finder import Finder, install; install('vmm'); "
        "print(type(sys.meta_path[0]) is Finder)"
    )
    done = subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(used)
