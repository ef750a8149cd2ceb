# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds vmm/kvm/_kvm, the cffi binding, in API mode from the build host's <linux/kvm.h>.

Declarations are vmm/kvm/*.cdef.h and the C is vmm/kvm/*.c, files of their own that an editor can colour; those of
SHARED are in both. The constants that vmm/abi holds as facts are declared from its tables, so that the compiler's
value can be compared with ours; a row newer than the oldest supported header (Linux 6.1) carries `since` and gets an
#ifndef guard.

`python cffi_build.py` builds in place; setuptools builds the same `builder` for a wheel.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cffi import FFI

if TYPE_CHECKING:
    from vmm.abi import Constant

HERE = Path(__file__).resolve().parent
SHARED = ("_transmitter.h", "_lean.h", "_queue.h", "_disk.h", "_net.h", "_plain.h", "_prepared.h", "_snapshot.h")
HEADER = Path("/usr/include/linux/kvm.h")


def _read(name: str) -> str:
    return (HERE / "vmm/kvm" / name).read_text(encoding="utf-8")


def facts() -> list[Constant]:
    """The constants of vmm/abi that a uapi header holds."""
    if str(HERE) not in sys.path:
        sys.path.insert(0, str(HERE))  # setuptools runs this file by path
    from vmm.abi import cdef_constants

    return list(cdef_constants())


def declarations() -> str:
    """The cdef: the hand-written part, then one `#define NAME ...` for each fact that a uapi header holds."""
    constants = "".join(f"#define {row.name} ...\n" for row in facts())
    names = ("_kvm.cdef.h", *SHARED, "_lean.cdef.h", "_queue.cdef.h", "_disk.cdef.h", "_net.cdef.h",
             "_plain.cdef.h", "_prepared.cdef.h", "_snapshot.cdef.h")  # fmt: skip
    return "".join(map(_read, names)) + constants


def source() -> str:
    """The C: the hand-written part, then a guarded definition of each fact that an older header lacks."""
    guards = "".join(
        f"#ifndef {row.name} /* Linux {row.since} */\n#define {row.name} {row.value:#x}\n#endif\n"
        for row in facts()
        if row.since
    )
    parts = ("_lean", "_transmitter", "_queue", "_disk", "_net", "_python", "_serve", "_plain", "_prepared",
             "_snapshot", "_faults", "_signals", "_confine")  # fmt: skip
    return _read("_kvm.c") + guards + "".join(map(_read, (*SHARED, *(f"{name}.c" for name in parts))))


def missing() -> list[str]:
    """What this machine lacks for the build, each in one sentence with what to install."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    found = []
    if not any(shutil.which(name) for name in (compiler, "cc", "gcc")):
        found.append("no C compiler (gcc): on Debian or Ubuntu, `apt install gcc`")
    if not HEADER.exists():
        found.append(f"no {HEADER}, the kernel's own header of KVM: on Debian or Ubuntu, `apt install linux-libc-dev`")
    if sysconfig.get_platform() not in ("linux-x86_64",):
        found.append(f"pyvmm drives KVM on 64-bit x86 Linux, and this is {sysconfig.get_platform()}")
    return found


def make_builder(*flags: str) -> FFI:
    """The FFI that setuptools compiles (`cffi_modules`), with more flags for compiler and linker where they are given.
    Stops in words where the machine lacks something.
    """
    lacking = missing()
    if lacking:
        raise SystemExit("pyvmm cannot build its binding:\n  " + "\n  ".join(lacking))
    ffi = FFI()
    ffi.cdef(declarations())
    ffi.set_source(
        "vmm.kvm._kvm",
        source(),
        extra_compile_args=["-Wall", "-Wextra", "-O2", *flags],
        extra_link_args=list(flags),
        libraries=["dl"],  # has dlsym, before glibc 2.34
        # One abi3 module for every CPython from 3.11 on; one without a GIL has no limited API.
        py_limited_api=not sysconfig.get_config_var("Py_GIL_DISABLED"),
    )
    return ffi


def build_in_place() -> Path:
    """Compile and put the module beside its sources; the generated C stays out of the tree."""
    ffi = make_builder()
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        os.chdir(folder)  # setuptools would read the pyproject.toml of the working folder
        try:
            built = Path(ffi.compile(tmpdir=folder, verbose=False))
        finally:
            os.chdir(before)
        target = HERE / "vmm/kvm" / built.name
        shutil.copyfile(built, target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)  # a running pyvmm keeps the old one
    return target


if __name__ == "__main__":
    print(build_in_place())
else:
    builder = make_builder()
