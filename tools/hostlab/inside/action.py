# SPDX-License-Identifier: GPL-2.0-or-later
"""action.yml on a runner: its shell as it stands, by a user who may use sudo without being asked and cannot open
/dev/kvm, with udev. Few features: what each proves is the other steps' matter.

A host has no network, so pip is shown a folder of wheels. To put a pip of its own into the venv takes an emulated CPU
two minutes, so that the Python of the action's input makes one that has Debian's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

from tools import runner
from tools.hostlab.inside import host

USER = "runner"
TWO = "NOP_IO_DELAY POLL_CONTROL"
RULES = Path("/etc/udev/rules.d/99-kvm4all.rules")
# `venv DIR` as the action calls it; a wheel can be imported as it is.
PYTHON = """\
#!/bin/sh
python3 "$@" --without-pip && ls /usr/share/python-wheels/pip-*.whl >"$(echo "$3"/lib/python3.*/site-packages)/pip.pth"
"""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def rows_of(summary: str) -> list[str]:
    """The features that its table names."""
    return [name.replace("\\_", "_") for name in re.findall(r"^\| ([A-Z0-9_\\]+) \| \d+ \|", summary, re.M)]


class Job:
    """One use of the action: a workspace of its own, with the files that its steps write."""

    def __init__(self, home: Path, name: str, wheels: Path, inputs: Mapping[str, str], skip: Iterable[str]) -> None:
        self.folder = home / name
        self.folder.mkdir()
        shutil.chown(self.folder, USER, USER)
        self.environment = {
            "PATH": PATH, "HOME": str(home), "USER": USER, "LANG": "C.UTF-8", "CI": "true", "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(self.folder), "RUNNER_TEMP": str(home / "temp"),
            # To compile all that is installed takes an emulated CPU minutes.
            "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_COMPILE": "0",
        }  # fmt: skip
        self.done = runner.run(runner.load(), self._start, inputs, self.folder, skip=tuple(skip))

    def _start(self, step: str, command: list[str], environment: dict[str, str]) -> host.Done:
        print(f"-- {self.folder.name}: {step}", flush=True)
        done = host.call_as(USER, command, self.environment | environment, self.folder)
        print(done.stdout + done.stderr, flush=True)
        return done

    @property
    def output(self) -> str:
        """What its last step with an output wrote."""
        return " ".join(runner.lines(self.folder / "output")[-1:])

    @property
    def summary(self) -> str:
        return "\n".join(runner.lines(self.folder / "step_summary"))

    def with_path(self, *words: str) -> host.Done:
        """What a later step of the same job would run."""
        path = os.pathsep.join([*runner.lines(self.folder / "path"), PATH])
        return host.call_as(USER, ["env", *words], self.environment | {"PATH": path}, self.folder)


class Story:
    """The scenes. The first leaves the venv and the rule of udev that the others go on with."""

    def __init__(self, seen: host.Seen, home: Path, wheels: Path) -> None:
        self.seen, self._home, self._wheels, self._python = seen, home, wheels, home / "python"
        self._python.write_text(PYTHON, encoding="utf-8")
        self._python.chmod(0o755)
        (home / "temp").mkdir()
        shutil.chown(home / "temp", USER, USER)

    def job(self, name: str, inputs: Mapping[str, str], skip: Iterable[str] = ("install",), **statuses: int) -> Job:
        """Run it; `statuses` has the steps that are to run, in order, and how each is to end."""
        job = Job(self._home, name, self._wheels, inputs, skip)
        for step, status in statuses.items():
            done = job.done.get(step)
            told = done.text if done else "it was not started"
            self.seen(f"{name}: {step} ends with {status}", done is not None and done.returncode == status, told)
        ran = list(job.done)
        self.seen(f"{name}: {', '.join(statuses)} run, and nothing else", ran == list(statuses), f"{', '.join(ran)}")
        return job

    def a_new_runner(self) -> None:
        scene = "a new runner"
        (wheel,) = self._wheels.glob("pyvmm-*.whl")
        self.seen(f"{scene}: the device is the group's", host.node() == "root:kvm 0660", host.node())
        here = host.call_as(USER, ["test", "-r", str(host.KVM)], {}, self._home)
        self.seen(f"{scene}: and cannot be opened", here.returncode == 1, here.text)
        inputs = {"features": TWO, "require": TWO, "install": str(wheel), "python": str(self._python)}
        job = self.job(scene, inputs, (), device=0, install=0, doctor=0, probe=0, gate=0)
        self.seen(f"{scene}: the device is open to all", host.node() == "root:kvm 0666", host.node())
        self.seen(f"{scene}: the output says usable", job.output == "usable=true", job.output)
        found = job.with_path("pyvmm", "--version")
        of_venv = runner.lines(job.folder / "path") == [f"{self._home}/temp/pyvmm/bin"]
        self.seen(f"{scene}: pyvmm is on the PATH", found.returncode == 0 and of_venv, found.text)
        rows = json.loads((job.folder / "pyvmm.json").read_text(encoding="utf-8"))["features"]
        told = ", ".join(f"{row['name']} {row['verdict']}" for row in rows)
        self.seen(f"{scene}: the document", [row["name"] for row in rows] == TWO.split(), told)
        cases = [case.get("name") or "" for case in ElementTree.parse(job.folder / "pyvmm.xml").iter("testcase")]
        self.seen(f"{scene}: the JUnit file", len(cases) == len(TWO.split()), ", ".join(cases))
        self.seen(f"{scene}: the summary has the table", rows_of(job.summary)[:2] == TWO.split(), job.summary)
        self.seen(f"{scene}: the summary has the gate's verdict", job.summary.count("###") == 2, job.summary)

    def no_device(self) -> None:
        for scene, required, status, level in (
            ("no device", "false", 0, "warning"),
            ("no device, required", "true", 99, "error"),
        ):
            with host.without_node():
                job = self.job(scene, {"features": TWO, "require-kvm": required}, device=0, doctor=status)
            told = job.done["doctor"].stderr
            self.seen(f"{scene}: the output says so", job.output == "usable=false", job.output)
            self.seen(f"{scene}: {level}", told.startswith(f"::{level} title=KVM cannot be used here::"), told)
            summary = "nothing was probed" in job.summary
            self.seen(f"{scene}: the summary", summary == (status == 0), job.summary)


def main(out: Path, lab: Path) -> int:
    """`out` gets action.json; `lab` has the folder of wheels."""
    if not host.ours():
        print("action: not a host of the lab, and this changes users and devices: not run", file=sys.stderr)
        return 2
    home = host.add_user(USER, sudo=True)
    seen = host.Seen()

    def scenes() -> None:
        story = Story(seen, home, lab / "wheels")
        with host.Udev():
            story.a_new_runner()
            story.no_device()
            RULES.unlink()
            host.reload_rules()
            host.trigger()

    return seen.tell(scenes, out / "action.json")


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["OUT"]), Path(os.environ["LAB"])))
