# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pyvmm this is, where nobody can say: not installed, or its metadata may not be read."""

from __future__ import annotations

from importlib import metadata

import pytest

from vmm.base.docs_place import project_page
from vmm.base.version import pyvmm_version
from vmm.host import versions


@pytest.mark.parametrize(
    "error", [metadata.PackageNotFoundError("pyvmm"), FileNotFoundError(2, "x"), PermissionError(13)]
)
def test_metadata_that_cannot_be_read_is_no_exception(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in a sandbox may not read it; importlib_metadata, where somebody has loaded that, raises OSError."""

    def refuse(_name: str) -> None:
        raise error

    monkeypatch.setattr(metadata, "version", refuse)
    monkeypatch.setattr(metadata, "metadata", refuse)
    assert pyvmm_version() == "(not installed)"
    assert project_page() == ""
    assert versions._package("cffi") is None
