# SPDX-License-Identifier: GPL-2.0-or-later
"""A user who is not root: what pyvmm says where /dev/kvm cannot be opened, whether its advice is true when it is done
word by word, and the whole table once the device opens.

The advice is that of `pyvmm doctor --json`. Its command, out of the back quotes, is run by an administrator with sudo;
then the user logs in anew.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools.hostlab.inside import host

USER, ADMIN, STRANGER = "jo", "admin", 4321
COMMANDS = ("run hello", "probe STEAL_TIME", "cpuid")
ROOTS_ALONE = Path("/etc/udev/rules.d/98-roots-alone.rules")
RULE = 'KERNEL=="kvm", OWNER="root", GROUP="root", MODE="0600"\n'
PERMISSION = re.compile(r"\b(EPERM|EACCES|CAP_[A-Z_]+|permission|permitted)\b", re.IGNORECASE)
RANK = {"broken": 0, "unproven": 1, "absent": 1, "inert": 2, "advertised": 3, "serviced": 4, "works": 5}


def command_of(hint: str) -> str:
    """The first command of an advice, as a reader would copy it. Raises: ValueError, where there is none."""
    found = re.search(r"`(sudo [^`]+)`", hint)
    if found is None:
        raise ValueError(f"no command in: {hint}")
    return found[1]


def rows(table: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*table["features"], *table.get("topics", [])]


def worse(root: Mapping[str, Any], user: Mapping[str, Any]) -> Iterator[tuple[str, bool, str]]:
    """(row, whether it is as it should be, evidence) of each row that the user's table has worse than root's.

    Worse is right only as `unproven` with a reason that names the permission: that is not the feature's fault.
    """
    mine = {row["name"]: row for row in rows(user)}
    for before in rows(root):
        row = mine.get(before["name"])
        if row is None:
            yield before["name"], False, "not in the user's table"
            continue
        told = row["reason"] or row["summary"] or ""
        if row["outcome"] == "error" or RANK[row["verdict"]] < RANK[before["verdict"]]:
            said = row["outcome"] != "error" and row["verdict"] == "unproven" and bool(PERMISSION.search(told))
            yield row["name"], said, f"{row['verdict']} ({row['outcome']}), root's {before['verdict']}: {told}"


def roots_table(file: Path) -> Mapping[str, Any]:
    """What the step before this one left, or made here."""
    if not file.exists():
        host.call(["pyvmm", "probe", "--api", "--save", str(file)])
    table: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return table


class Story:
    """The scenes. Each leaves the host as it found it, but for what it says."""

    def __init__(self, seen: host.Seen) -> None:
        self.seen = seen

    def runs(self, what: str) -> None:
        """A new login of the user runs a guest."""
        done = host.login(USER, "pyvmm run hello")
        self.seen(f"{what}: a guest runs", done.returncode == 0, done.text)

    def opens(self, what: str, *, should: bool) -> None:
        """A new login of the user opens the device, or is refused; by the shell, since pyvmm takes seconds here."""
        done = host.login(USER, f": <>{host.KVM}")
        self.seen(f"{what}: it {'opens' if should else 'is refused'}", (done.returncode == 0) == should, done.text)

    def told(self, scene: str, commands: Sequence[str] = COMMANDS[:1]) -> list[str]:
        """Each of these commands says why and what to do, and says the same as doctor; the hints."""
        document = json.loads(host.login(USER, "pyvmm doctor --json").stdout)
        words = "\n  try: ".join([document["reason"], *document["hints"]])
        for command in commands:
            done = host.login(USER, f"pyvmm {command}")
            same = done.returncode == 99 and done.stderr == f"pyvmm: {words}\n" and document["hints"]
            self.seen(f"{scene}: `pyvmm {command}` gives doctor's advice", bool(same), done.text)
        return [str(hint) for hint in document["hints"]]

    def do(self, scene: str, hint: str) -> None:
        """What an administrator would copy."""
        command = command_of(hint)
        done = host.login(ADMIN, command)
        self.seen(f"{scene}: an administrator runs: {command}", done.returncode == 0, done.text)

    def outside_the_group(self) -> None:
        scene = "outside the group"
        self.seen(f"{scene}: the node is the group's", host.node() == "root:kvm 0660", host.node())
        join, allow = self.told(scene, COMMANDS)
        self.do(scene, join)
        self.runs(f"{scene}, joined")
        host.leave_group(USER, "kvm")
        self.opens(f"{scene}, left again", should=False)
        self.do(scene, allow)
        self.opens(f"{scene}, by an ACL", should=True)
        host.trigger()
        self.opens(f"{scene}, by an ACL, after udev was triggered", should=True)
        host.make_anew()
        host.trigger()
        self.opens(f"{scene}, by an ACL, the node made anew", should=False)

    def roots_alone(self) -> None:
        scene = "root's alone"
        ROOTS_ALONE.write_text(RULE, encoding="utf-8")
        host.reload_rules()
        host.trigger()
        self.seen(f"{scene}: a rule of udev made it so", host.node() == "root:root 0600", host.node())
        rule, allow = self.told(scene)
        self.do(scene, allow)
        self.opens(f"{scene}, by an ACL", should=True)
        host.trigger()
        self.opens(f"{scene}, by an ACL, after udev was triggered", should=False)
        self.do(scene, rule)
        self.opens(f"{scene}, by the rule", should=True)
        host.make_anew()
        host.trigger()
        self.opens(f"{scene}, by the rule, the node made anew", should=True)
        host.leave_group(USER, "kvm")
        for file in re.findall(r"/etc/udev/rules\.d/\S+", command_of(rule)):
            Path(file).unlink()
        ROOTS_ALONE.unlink()
        host.reload_rules()
        host.trigger()

    def without_udev(self) -> None:
        scene = "no udev"
        host.make_anew()
        (allow,) = self.told(scene)
        self.do(scene, allow)
        self.opens(f"{scene}, by an ACL", should=True)

    def without_an_account(self) -> None:
        scene = "no account"
        host.make_anew()
        os.chown(host.KVM, 0, int(host.must("getent", "group", "kvm").split(":")[2]))
        host.KVM.chmod(0o660)
        as_stranger = ["setpriv", f"--reuid={STRANGER}", f"--regid={STRANGER}", "--clear-groups"]
        bare = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nonexistent"}
        done = host.call([*as_stranger, "pyvmm", "doctor", "--json"], bare, "/")
        (allow,) = json.loads(done.stdout)["hints"]
        self.do(scene, allow)
        done = host.call([*as_stranger, "pyvmm", "run", "hello"], bare, "/")
        self.seen(f"{scene}, by an ACL: a guest runs", done.returncode == 0, done.text)

    def the_table(self, home: Path, root: Mapping[str, Any], out: Path) -> None:
        scene = "in the group"
        host.must("usermod", "-aG", "kvm", USER)
        self.seen(f"{scene}: the node is the group's", host.node() == "root:kvm 0660", host.node())
        done = host.login(USER, "pyvmm probe --api --save probe.json")
        print(done.stdout)
        self.seen(f"{scene}: the whole table", done.returncode in (0, 1), done.text[-400:])
        text = (home / "probe.json").read_text(encoding="utf-8")
        out.write_text(text, encoding="utf-8")
        found = list(worse(root, json.loads(text)))
        for name, ok, evidence in found:
            self.seen(f"{scene}: {name}, worse than root's, names the permission that it lacks", ok, evidence)
        self.seen(f"{scene}: no other row is worse than root's", all(ok for _, ok, _ in found), f"worse: {len(found)}")


def main(out: Path) -> int:
    """`out` has root's probe.json, or gets it; and gets user.json and user-probe.json."""
    if not host.ours():
        print("user: not a host of the lab, and this changes users and devices: not run", file=sys.stderr)
        return 2
    home = host.add_user(USER)
    host.add_user(ADMIN, sudo=True)
    seen = host.Seen()

    def scenes() -> None:
        root = roots_table(out / "probe.json")  # first: what root's pyvmm compiles, users need not at each start
        story = Story(seen)
        with host.Udev():
            story.outside_the_group()
            story.roots_alone()
        story.without_udev()
        story.without_an_account()
        with host.Udev():
            story.the_table(home, root, out / "user-probe.json")

    return seen.tell(scenes, out / "user.json")


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["OUT"])))
