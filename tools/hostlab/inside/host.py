# SPDX-License-Identifier: GPL-2.0-or-later
"""A host from inside, as its administrator has it: users, logins, udev, the device node, and a list of what was seen.

It knows nothing of pyvmm. Whatever it does is undone by the host's end: its disk is written to a copy.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

KVM = Path("/dev/kvm")
UDEVD = "/lib/systemd/systemd-udevd"
CONTROL = Path("/run/udev/control")
INIT = b"/lab/init"  # what the lab's hosts have as their first process
LONG = 1800.0  # seconds; nothing here takes a tenth of it, and the lab has a limit of its own


def ours() -> bool:
    """Whether this is a host of the lab, and we its root."""
    words = Path("/proc/1/cmdline").read_bytes().split(b"\0")
    return os.geteuid() == 0 and any(word.endswith(INIT) for word in words)


@dataclass
class Seen:
    """What was looked at, in order. Each is printed at once, for the console."""

    checks: list[dict[str, object]] = field(default_factory=list)

    def __call__(self, what: str, ok: bool, seen: str) -> None:
        """`seen` is the evidence: it is kept for good and bad alike."""
        self.checks.append({"what": what, "ok": ok, "seen": seen})
        print(f"{'ok' if ok else 'NOT OK'}  {what}" + ("" if ok else f"\n    seen: {seen}"), flush=True)

    def write(self, file: Path) -> None:
        """As far as it came: for the end, and for a run that may be ended before it."""
        file.write_text(json.dumps({"checks": self.checks}, indent=1) + "\n", encoding="utf-8")

    def tell(self, story: Callable[[], object], file: Path) -> int:
        """Let it look, and write down what was seen, also when it did not come to its end, which is a check then; the
        exit status: 0 if there is at least one, and all are as they should be.
        """
        try:
            story()
        except Exception as error:
            traceback.print_exc()
            self("it comes to its end", False, f"{type(error).__name__}: {error}")
        self.write(file)
        bad = sum(not check["ok"] for check in self.checks)
        print(f"{len(self.checks) - bad} of {len(self.checks)} as they should be")
        return 1 if bad or not self.checks else 0


def hand_back() -> None:
    """Give the lab what is in $OUT by now: it keeps that if it ends the host before the step is over."""
    if command := os.environ.get("HAND_BACK"):
        subprocess.run([command], check=True, timeout=LONG)


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """For evidence: status and all that it said, in one line."""
        said = [line for line in (*self.stdout.splitlines(), *self.stderr.splitlines()) if line.strip()]
        return f"status {self.returncode}: {' / '.join(said)}"


def call(words: Sequence[str], env: Mapping[str, str] | None = None, cwd: str | None = None) -> Done:
    done = subprocess.run(
        words, env=env, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=LONG
    )
    return Done(done.returncode, done.stdout, done.stderr)


def must(*words: str) -> str:
    """Standard output of an administrator's command. Raises: CalledProcessError; what it said is on standard error."""
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, timeout=LONG).stdout


def login(user: str, command: str) -> Done:
    """A new session of a user, in its home, with nothing of this process's environment, that runs one shell command."""
    return call(["su", "--login", user, "--command", command])


def call_as(user: str, words: Sequence[str], env: Mapping[str, str], cwd: Path) -> Done:
    """A command of a user with its groups and this environment alone, as a service would start it."""
    return call(["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", *words], env, str(cwd))


def add_user(name: str, *, sudo: bool = False) -> Path:
    """Its home. It has no password; `sudo` lets it run anything without being asked."""
    must("useradd", "--create-home", "--shell", "/bin/bash", name)
    if sudo:
        rule = Path("/etc/sudoers.d") / name
        rule.write_text(f"{name} ALL=(ALL) NOPASSWD:ALL\n", encoding="utf-8")
        rule.chmod(0o440)
    return Path("/home") / name


def leave_group(user: str, group: str) -> None:
    must("gpasswd", "--delete", user, group)


class Udev:
    """A udevd of our own: nothing has started one here."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Udev:
        CONTROL.parent.mkdir(exist_ok=True)
        self._process = subprocess.Popen([UDEVD], stdin=subprocess.DEVNULL, stdout=sys.stderr)
        until = time.monotonic() + LONG
        while not CONTROL.exists():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"udevd did not start: status {self._process.returncode}")
            time.sleep(0.05)
        # KVM's own class: with every device of the host it takes a quarter of a minute.
        must("udevadm", "trigger", "--action=add", "--subsystem-match=misc", "--settle")
        return self

    def __exit__(self, *error: object) -> None:
        assert self._process is not None
        self._process.terminate()
        self._process.wait(60)
        CONTROL.unlink(missing_ok=True)  # as after a boot without it


def trigger() -> None:
    """Let udev set the node again, as any update of a package may."""
    must("udevadm", "trigger", "--settle", "--name-match=kvm")


def reload_rules() -> None:
    must("udevadm", "control", "--reload")


def make_anew() -> None:
    """The node as the kernel makes it when KVM is loaded: root's alone, without an ACL."""
    with without_node():
        pass


@contextmanager
def without_node() -> Iterator[None]:
    """No device, though KVM is loaded; afterwards it is as after make_anew."""
    device = KVM.stat().st_rdev
    KVM.unlink()
    try:
        yield
    finally:
        os.mknod(KVM, stat.S_IFCHR | 0o600, device)


def node() -> str:
    """`root:kvm 0660`; under an ACL the middle digit is its mask."""
    return must("stat", "--format=%U:%G 0%a", str(KVM)).strip()
