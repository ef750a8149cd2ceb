# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tools.sanitize [TEST ...]`: tests with a binding that AddressSanitizer and UBSan watch.

The C is compiled as for use, and with -fsanitize=address,undefined; a child process with the sanitizers' library loads
that in place of vmm/kvm/_kvm, and runs pytest. Without names: the tests that give the C hostile drivers. The first
access outside an object, or undefined operation, ends it with a report and a status that is not 0.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cffi_build

FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g")
TESTS = ("tests/unit/test_virtio_disk.py", "tests/unit/test_virtio_net.py")
ROOT = Path(__file__).resolve().parents[1]

_CHILD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("vmm.kvm._kvm", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import vmm.kvm
sys.modules["vmm.kvm._kvm"] = vmm.kvm._kvm = module
import pytest
status = pytest.main(["-q", "-p", "no:cacheprovider", "-n", "0", "--no-cov", *sys.argv[2:]])
assert sys.modules["vmm.kvm._kvm"].__file__ == sys.argv[1], "another binding was loaded"
sys.exit(status)
"""


def build(folder: Path) -> Path:
    """Compile the binding into a folder."""
    ffi = cffi_build.make_builder(*FLAGS)
    before = Path.cwd()
    os.chdir(folder)
    try:
        return Path(ffi.compile(tmpdir=str(folder), verbose=False))
    finally:
        os.chdir(before)


def library() -> str:
    """The compiler's own AddressSanitizer, which must be loaded before all else."""
    done = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    found = done.stdout.strip()
    if not Path(found).is_absolute():
        raise SystemExit("tools.sanitize: gcc has no libasan.so: on Debian or Ubuntu, `apt install gcc`")
    return found


def environment() -> dict[str, str]:
    """What a process with such a binding needs besides."""
    return {
        "LD_PRELOAD": library(),
        # Python itself leaves memory behind, and maps guard pages where it likes. What is freed is kept for a while.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=97:quarantine_size_mb=16",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        binding = build(Path(folder))
        command = [sys.executable, "-c", _CHILD, str(binding), *(arguments or TESTS)]
        return subprocess.run(command, cwd=ROOT, env=os.environ | environment(), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
