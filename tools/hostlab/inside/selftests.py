# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's selftests of KVM, one after another, each with a limit. It knows nothing of pyvmm, and judges nothing:
what each said is written down.

The file is written anew after each program: one that takes the host down costs only itself.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SKIP = 4  # kselftest's exit code
# Seconds of the host's own clock. QEMU's is that of the machine outside, and the longest takes 90 on a busy one. Bochs
# counts instructions: a second of its clock takes ten or more outside, and the longest takes 12 of them.
LIMITS = {"kvm_amd": 600.0, "kvm_intel": 40.0}
LAST = 16  # lines of output that are kept
NOISE = "addr2line: not found"  # a failed one asks for the names of its functions, and these hosts have no binutils
WIDE = 300  # characters of each


def run(program: Path, limit: float) -> dict[str, object]:
    """Name, status (pass, fail, skip, timeout), seconds, the last lines of what it said."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as said:
        # Of its own session: what it has started ends with it. The path is whole, since it loads itself as the guest.
        process = subprocess.Popen(
            [program], stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        said.seek(0)
        text = said.read().decode(errors="replace")
        lines = [line.rstrip()[:WIDE] for line in text.splitlines() if line.strip() and NOISE not in line]
    if code is not None and code < 0:
        lines.append(f"ended by {signal.Signals(-code).name}")
    status = "timeout" if code is None else {0: "pass", SKIP: "skip"}.get(code, "fail")
    took = round(time.monotonic() - begin, 1)
    return {"name": program.name, "status": status, "seconds": took, "output": lines[-LAST:]}


def module_in(parameters: str) -> str:
    """KVM's, which the lab's /lab/parameters names: it tells the emulator."""
    found = re.search(r"^KVM=(\w+)$", parameters, re.M)
    return found[1] if found else "kvm_intel"


def results(folder: Path, module: str) -> Iterator[dict[str, object]]:
    """Of each program of the folder's list, in its order."""
    listed = json.loads((folder / "programs.json").read_text())
    for name in listed["programs"]:
        yield run(folder / name, LIMITS[module])
    for name in listed["unbuilt"]:
        yield {"name": name, "status": "unbuilt", "seconds": 0.0, "output": ["the compiler refused it"]}


def main(folder: Path, out: Path) -> int:
    """0, when every program was run, whatever it said."""
    if not (folder / "programs.json").exists():
        print(f"selftests: there are none in {folder}", file=sys.stderr)
        return 2
    source = json.loads((folder / "programs.json").read_text())["source"]
    found: list[dict[str, object]] = []
    for result in results(folder, module_in((folder.parent / "parameters").read_text())):
        found.append(result)
        document = {"schema": 1, "kernel": os.uname().release, "source": source, "selftests": found}
        (out / "selftests.json").write_text(json.dumps(document, indent=1) + "\n")
        print(f"{result['status']:<8}{result['name']}, {result['seconds']} s", flush=True)
        if result["status"] not in ("pass", "skip"):
            print("\n".join(f"    {line}" for line in result["output"]), flush=True)  # type: ignore[attr-defined]
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["LAB"]) / "selftests", Path(os.environ["OUT"])))
