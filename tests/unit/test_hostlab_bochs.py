# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lab changes of Bochs' source, without building it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.hostlab import bochs
from tools.hostlab.errors import LabError

NAME, LINE, MORE = bochs.MENDS[0]


def tree(folder: Path, text: str) -> Path:
    (folder / NAME).parent.mkdir(parents=True)
    (folder / NAME).write_text(text)
    return folder


def test_what_follows_a_line_is_put_behind_it(tmp_path: Path) -> None:
    bochs.mend(tree(tmp_path, f"before\n{LINE}after\n"))
    assert (tmp_path / NAME).read_text() == f"before\n{LINE}{MORE}after\n"


@pytest.mark.parametrize("text", ["other\n", LINE * 2], ids=["none", "two"])
def test_another_source_is_not_mended_blindly(tmp_path: Path, text: str) -> None:
    with pytest.raises(LabError, match="not one line BX_CPU_THIS_PTR in_vmx_guest"):
        bochs.mend(tree(tmp_path, text))
    assert (tmp_path / NAME).read_text() == text
