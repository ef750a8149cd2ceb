# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m tools.sandbox_filter`: writes vmm/sandbox/compiled.py, the table of system calls as the kernel takes it.

To make it of the table takes longer than a process has for giving up what it does not need. tests/unit/test_sandbox.py
says when the file is old.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from vmm.abi.syscalls import SECCOMP_FILTER_FLAG_TSYNC, SECCOMP_RET_KILL_PROCESS
from vmm.sandbox.filter import PARTS, program

FILE = Path(__file__).resolve().parents[1] / "vmm/sandbox/compiled.py"
MARK = 0x7E57_1D00  # no request, number or flag of the table
HEAD = '''# SPDX-License-Identifier: GPL-2.0-or-later
"""Made by `python -m tools.sandbox_filter` of vmm/sandbox/calls.py, by vmm/sandbox/filter.py: edit those.

Programs of seccomp as hexadecimal digits, instructions of 8 bytes; PID stands where the number of the process belongs.
"""

from __future__ import annotations

import os

KILL, TSYNC = {kill:#x}, {tsync:#x}  # SECCOMP_RET_KILL_PROCESS, SECCOMP_FILTER_FLAG_TSYNC
PID = "{pid}"


def for_process(program: str) -> bytes:
    """The program for the process that calls."""
    return bytes.fromhex(program.replace(PID, os.getpid().to_bytes(4, "little").hex()))


'''


def text() -> str:
    """What the file has to be."""
    pid = MARK.to_bytes(4, "little").hex()
    made = HEAD.format(kill=SECCOMP_RET_KILL_PROCESS, tsync=SECCOMP_FILTER_FLAG_TSYNC, pid=pid)
    for name, parts in PARTS.items():
        rows = textwrap.wrap(program(parts, MARK).hex(), 112)
        made += f"{name} = (\n" + "".join(f'    "{row}"\n' for row in rows) + ")\n"
    return made


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(FILE)
