# SPDX-License-Identifier: GPL-2.0-or-later
"""Which pyvmm this is, where nobody can say: not installed, or its metadata may not be read."""

from __future__ import annotations

from importlib import metadata

import pytest

from vmm.base import version
from vmm.base.docs_place import project_page
from vmm.base.version import pyvmm_version
from vmm.host import versions


@pytest.mark.parametrize(
    "error", [metadata.PackageNotFoundError("pyvmm"), FileNotFoundError(2, "x"), PermissionError(13)]
)
def test_metadata_that_cannot_be_read_is_no_exception(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in a sandbox may not read it; importlib_metadata, where somebody has loaded that, raises OSError."""

    _refuse(error, monkeypatch)
    version._installed.cache_clear()
    assert pyvmm_version() == "(not installed)"
    assert project_page() == ""
    assert versions._package("cffi") is None


def test_what_was_read_before_a_sandbox_closes_is_known_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    known = pyvmm_version()
    _refuse(PermissionError(13), monkeypatch)
    assert pyvmm_version() == known == metadata.distribution("pyvmm").version


def _refuse(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata that cannot be read."""

    def refuse(_name: str) -> None:
        raise error

    monkeypatch.setattr(metadata, "version", refuse)
    monkeypatch.setattr(metadata, "metadata", refuse)
