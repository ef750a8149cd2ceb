# SPDX-License-Identifier: GPL-2.0-or-later
"""A CPython that lacks what is outside of the stable ABI: handlers are called, threads have their turn.

It is made of this one: of a copy of the extension, in which those functions have names that nobody exports.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_stable_abi import BESIDE, ROOT
from vmm.kvm import _kvm

# Only the extension comes from elsewhere: its finder is asked before all others. A guest writes 0 to 99 to a port, then
# spins until a thread, which its handler has started and which needs the GIL for every turn, has had enough of them.
PROGRAM = """
import importlib.machinery, importlib.util, sys
class Finder:
    def find_spec(name, path=None, target=None):
        if name == "vmm.kvm._kvm":
            loader = importlib.machinery.ExtensionFileLoader(name, sys.argv[1])
            return importlib.util.spec_from_file_location(name, sys.argv[1], loader=loader)
sys.meta_path.insert(0, Finder)

import threading, time
import vmm.kvm._kvm
from vmm.abi.ports import DELAY
from vmm.machine.machine import Machine
from vmm.machine.memory import layout
from vmm.machine.x86 import boot

assert vmm.kvm._kvm.__file__ == sys.argv[1]
COUNT = bytes.fromhex("31c0 e680 ffc0 83f864 75f7 ebfe")  # L: out DELAY, al; inc eax; to L, until it is 100; spin
RAISE = bytes.fromhex("b007 e680 f4")  # 7 to DELAY

class Seen(list):
    turns = 0
    def note(self, value):
        self.append(value)
        if value == 99:
            threading.Thread(target=self.take_turns).start()
    def take_turns(self):
        while self.turns < 50:
            time.sleep(0.001)
            self.turns += 1
        machine.stop()

def booted(machine, code):
    boot.write_tables(machine.memory, 1)
    base = layout.REGIONS["code"].base
    machine.memory.write(base, code)
    machine.start(0, base)

seen = Seen()
with Machine() as machine:
    booted(machine, COUNT)
    machine.on_port_write(DELAY, seen.note)
    why = machine.run(timeout=60).stop.why
assert (why.name, list(seen), seen.turns) == ("STOPPED", list(range(100)), 50), (why, seen, seen.turns)
with Machine() as machine:
    booted(machine, RAISE)
    machine.on_port_write(DELAY, {}.__getitem__)  # of a type in C, and it raises
    try:
        machine.run(timeout=60)
    except KeyError as error:
        print("raised", error)
"""


def without(lacking: list[str], path: Path) -> Path:
    code = Path(_kvm.__file__).read_bytes()
    for name in lacking:
        old = b"\0" + name.encode() + b"\0"
        assert code.count(old) == 1, name
        code = code.replace(old, b"\0x" + name.encode()[1:] + b"\0")
    path.write_bytes(code)
    return path


@pytest.mark.parametrize("lacking", [BESIDE, ["PyVectorcall_Function", "PyThreadState_Next"]], ids=["all", "two"])
def test_it_does_without(lacking: list[str], tmp_path: Path) -> None:
    extension = without(lacking, tmp_path / Path(_kvm.__file__).name)
    env = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(extension)],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "raised 7\n", "")
