# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/tour.md tells the way that is walked: the modules that `pyvmm run hello` enters are those that it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import vmm

pytestmark = pytest.mark.kvm
VMM = Path(vmm.__file__).parent
ROOT = Path(__file__).parents[2]
TOUR = (ROOT / "docs/tour.md").read_text(encoding="utf-8")
SHORTEST, LEAN, PLAIN = "The shortest way", "The lean way", "The plain way"

# Functions count that are called, not modules that are imported. Two sets, by the run of the machine and by all of it.
WALK = """
import gc, sys
from vmm.machine.run.all_cpus import AllCpus
from vmm.machine.machine import Machine
from vmm.kvm.plain import NotPlain
from vmm.machine.plain import Plain
gc.disable()
way = {way!r}
Machine.__init__.__kwdefaults__["fast"] = way != "The plain way"
runner = Plain if way == "The shortest way" else AllCpus
whole, running, run = set(), set(), runner.run
def note(frame, event, arg):
    if event == "call" and frame.f_code.co_name != "<module>":
        for each in now:
            each.add(frame.f_code.co_filename)
now = [whole]
def walk(self, *args):
    now.append(running)
    try:
        return run(self, *args)
    finally:
        now.pop()
runner.run = walk
if runner is AllCpus:
    def refuse(self, *args):
        raise NotPlain
    Plain.__init__ = refuse
from vmm.cli import main
sys.setprofile(note)
status = main(["run", "hello"])
sys.setprofile(None)
print("", *running, sep="\\nRUNNING ", file=sys.stderr)
print("", *whole, sep="\\nWHOLE ", file=sys.stderr)
sys.exit(status)
"""


def entered(way: str) -> tuple[set[str], set[str]]:
    """The modules entered while the guest ran, and in all."""
    code = WALK.format(way=way)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "Hello" in done.stdout

    def modules(what: str) -> set[str]:
        files = re.findall(rf"^{what} (.+\.py)$", done.stderr, re.M)
        return {f"vmm/{Path(file).relative_to(VMM)}" for file in files if Path(file).is_relative_to(VMM)}

    return modules("RUNNING"), modules("WHOLE")


def named(section: str) -> set[str]:
    """The Python modules that a section of the tour names."""
    return set(re.findall(r"vmm/[\w/]+\.py\b", TOUR.partition(f"## {section}\n")[2].partition("\n## ")[0]))


@pytest.mark.parametrize("section", [SHORTEST, LEAN, PLAIN])
def test_the_tour_names_the_modules_that_a_run_enters_and_no_others(section):
    running, whole = entered(section)
    walked = {each for each in running if each.startswith(("vmm/kvm/", "vmm/machine/"))}
    # Values are made without a call of their module's, and the machine hears that its run is over.
    assert named(section) - {"vmm/kvm/exits.py"} == walked - {"vmm/machine/machine.py"}
    if section != SHORTEST:
        assert named("Before the first exit") <= whole
    assert named("After the last") - {"vmm/machine/ends.py"} <= whole


def test_whatever_the_tour_names_is_there():
    paths = re.findall(r"\b(?:vmm|tests|guest_payloads)/[\w/]+\.\w+", TOUR)
    assert len(paths) > 30
    assert [each for each in paths if not (ROOT / each).is_file()] == []
