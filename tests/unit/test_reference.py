# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference is complete: it has every public name, and each says its shapes, units, errors and source."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import vmm
from tools.site import complete, public
from tools.site.public import Name

ROOT = Path(__file__).resolve().parents[2]
NAMES = list(public.names())


def test_every_public_name_is_complete() -> None:
    assert complete.report(iter(NAMES)) == []


def test_there_is_something_to_look_at() -> None:
    assert len(NAMES) > 350
    assert {"vmm.Machine.run", "vmm.Vcpu.get_regs", "vmm.pytest_plugin.machine", "vmm.debug.session.Session.step"} <= {
        each.full for each in NAMES
    }


def test_what_the_library_shows_and_what_guides_name_is_in_the_reference() -> None:
    entries = {entry for page in public.PAGES for entry in page.names}
    classes = {getattr(vmm, name) for name in vmm.__all__}
    assert classes <= {each.value for each in NAMES if isinstance(each.value, type)}
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"])
    for name in set(re.findall(r"\bvmm(?:\.\w+)+", text)):
        covered = any(f"{name}.".startswith(f"{entry}.") or entry.startswith(f"{name}.") for entry in entries)
        assert covered or name.startswith("vmm.abi."), f"{name}: no page of tools/site/public.py has it"


# --- each criterion can fail -----------------------------------------------------------------------------------------

BAD = '''
"""A module."""
from __future__ import annotations
from vmm.errors import UsageError
class Thing:
    """A thing."""
    def silent(self) -> None: ...
    def shapeless(self, breadth: int) -> None:
        """Do it."""
    def gives(self) -> int:
        """It is so."""
    def raises(self) -> None:
        """Do it."""
        self._check()
    def _check(self) -> None:
        raise UsageError("no")
    def catches(self) -> None:
        """Do it."""
        try:
            self._check()
        except UsageError:
            pass
    def good(self, breadth: int) -> bytes:
        """The bytes of `breadth` pages.

        Raises:
            UsageError: there are none.
        """
        self._check()
        return b""
'''


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module with a flaw of each kind, where the kernel's floor is."""
    import importlib.util

    (tmp_path / "bad.py").write_text(BAD)
    spec = importlib.util.spec_from_file_location("vmm.kvm.bad", tmp_path / "bad.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "vmm.kvm.bad", module)
    spec.loader.exec_module(module)
    yield module
    complete._tree.cache_clear()


@pytest.mark.parametrize(
    ("member", "said"),
    [
        ("silent", "no docstring"),
        ("shapeless", "parameter breadth: no shape or unit"),
        ("gives", "gives int: no shape or unit"),
        ("raises", "raises UsageError: not said"),
        ("catches", ""),
        ("good", ""),
    ],
)
def test_a_flaw_is_found(bad: ModuleType, member: str, said: str) -> None:
    found = complete.lacking(Name(f"vmm.kvm.bad.Thing.{member}", getattr(bad.Thing, member), bad.Thing))
    assert [each for each in found if each != "no source"] == ([said] if said else [])
    assert ("no source" in found) == (said != "no docstring")  # nothing here names a call of the kernel
