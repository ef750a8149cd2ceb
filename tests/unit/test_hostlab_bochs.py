# SPDX-License-Identifier: GPL-2.0-or-later
"""What the lab changes of Bochs' source, without building it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.hostlab import bochs
from tools.hostlab.errors import LabError


def tree(folder: Path, texts: dict[str, str]) -> Path:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_what_follows_a_line_is_put_behind_it(tmp_path: Path) -> None:
    bochs.mend(tree(tmp_path, {name: f"before\n{line}after\n" for name, line, _ in bochs.MENDS}))
    for name, line, more in bochs.MENDS:
        assert (tmp_path / name).read_text() == f"before\n{line}{more}after\n"


@pytest.mark.parametrize("times", [0, 2])
@pytest.mark.parametrize("which", range(len(bochs.MENDS)))
def test_another_source_is_not_mended_blindly(tmp_path: Path, which: int, times: int) -> None:
    texts = {name: line for name, line, _ in bochs.MENDS}
    name, line, _ = bochs.MENDS[which]
    texts[name] = line * times
    with pytest.raises(LabError, match=f"{name}: not one line {line.split(' =')[0].strip()}"):
        bochs.mend(tree(tmp_path, texts))
    assert (tmp_path / name).read_text() == line * times
