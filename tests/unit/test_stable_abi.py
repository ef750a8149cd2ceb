# SPDX-License-Identifier: GPL-2.0-or-later
"""The wheel is named for the stable ABI of CPython 3.11: its extension asks for nothing else, and does without what it
looks for beside that (vmm/kvm/_python.c).
"""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

import pytest
from abi3info import DATAS, FUNCTIONS
from abi3info.models import PyVersion, Symbol
from elftools.elf.elffile import ELFFile

from vmm.kvm import _kvm

ROOT = Path(__file__).resolve().parents[2]
NAMED = PyVersion(3, 11)
BESIDE = re.findall(r'\{"(Py\w+)", &beside_abi3', (ROOT / "vmm/kvm/_python.c").read_text(encoding="utf-8"))

pytestmark = pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="a Python without a GIL has no stable ABI"
)


def asked_for() -> set[str]:
    """Names of CPython's that the dynamic linker has to find before the extension can be used."""
    with Path(_kvm.__file__).open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym").iter_symbols()
        return {
            each.name
            for each in symbols
            if each["st_shndx"] == "SHN_UNDEF" and each.name.startswith(("Py", "_Py"))
        }  # fmt: skip


def outside(names: set[str]) -> set[str]:
    """Those that the stable ABI of NAMED has not."""
    rows = {each: FUNCTIONS.get(Symbol(each)) or DATAS.get(Symbol(each)) for each in names}
    return {name for name, row in rows.items() if row is None or row.added > NAMED}


def test_nothing_outside_of_the_stable_abi_is_linked_to() -> None:
    names = asked_for()
    assert {"PyObject_Call", "PyGILState_Ensure"} <= names
    assert outside(names) == set()


def test_what_is_looked_for_is_outside_of_it() -> None:
    """Else it would be linked to."""
    assert len(BESIDE) == 6
    assert outside(set(BESIDE)) == set(BESIDE)
