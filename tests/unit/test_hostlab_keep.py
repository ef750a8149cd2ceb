# SPDX-License-Identifier: GPL-2.0-or-later
"""What hosts said, kept, and the tables of README.md and docs/hosts.md, which are nothing but that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tools.hostlab import keep
from tools.hostlab.errors import LabError
from vmm.cli import main as pyvmm
from vmm.report import matrix


@pytest.mark.parametrize("page", keep.PAGES)
def test_a_page_has_the_table_of_what_is_kept(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert pyvmm(["matrix", *map(str, keep.kept()), *keep.PAGES[page], "--markdown"]) == 0
    text = (keep.PROJECT / page).read_text(encoding="utf-8")
    assert matrix.placed(text, capsys.readouterr().out) == text, "python -m tools.hostlab.keep writes it"


def test_the_columns_are_hosts_by_cpu_and_kernel() -> None:
    names = [path.stem for path in keep.kept()]
    assert names[-1] == "software-backed"
    assert [name for name in names if name.startswith("svm")] == ["svm-6.1", "svm-6.12", "svm-7.2"]
    assert [name for name in names if name.startswith("vmx")] == names[3:-1] != []


def host(folder: Path, name: str = "svm-7.2") -> Path:
    """A folder as a host hands it back."""
    made = folder / name
    made.mkdir()
    shutil.copy(keep.KEPT / f"{name}.json", made / "probe.json")
    return made


def test_what_is_kept_is_the_document_a_row_a_line(tmp_path: Path) -> None:
    folder = host(tmp_path)
    document = json.loads((folder / "probe.json").read_text())
    kept = keep.keep(folder, tmp_path / "docs").read_text()
    assert json.loads(kept) == document
    assert sum(line.startswith('{"name"') for line in kept.splitlines()) == 25 + len(document["topics"])


def test_what_was_not_expected_is_not_kept(tmp_path: Path) -> None:
    folder = host(tmp_path)
    text = (folder / "probe.json").read_text()
    (folder / "probe.json").write_text(text.replace('"verdict": "advertised"', '"verdict": "broken"'))
    with pytest.raises(LabError, match="NOP_IO_DELAY: expected advertised, was broken"):
        keep.keep(folder, tmp_path / "docs")
    (folder / "probe.json").unlink()
    assert keep.main([str(folder)]) == 1
    assert not (tmp_path / "docs").exists()
