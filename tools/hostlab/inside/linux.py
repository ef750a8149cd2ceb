# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux to a shell under pyvmm, looked at from both sides: what the guest sees and says, what its devices did, what KVM
counted, and how it ended. With one CPU, then with two; then with a virtio console as its only one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tools.hostlab.inside import host
from tools.hostlab.inside.peer import ADDRESS, Peer
from tools.hostlab.inside.session import PROMPT, Session, Silent

COME_UP = 1500.0  # seconds: an emulated host is ten to fifty times slower than a real one
COMMAND = 300.0
SECTORS = 16384
SECTOR = 512
OWN_ADDRESS = "10.0.2.15"
# A kernel that panics before its console speaks would be silent for good: so it says that, and ends the run.
PANICS = "earlyprintk=ttyS0 panic=-1"
MARK = b"written by the guest, read by the host"
# What the guest's kernel says of the hypervisor, by the feature that it means; its words differ from kernel to kernel.
SAID = {
    "KVM": r"Hypervisor detected: KVM",
    "kvm-clock": r"kvm-clock: (Using msrs|cpu 0, msr)",
}
SAID_OF_MORE = {  # with more than one CPU
    "PV TLB flush": r"(?i)(KVM setup pv remote TLB flush|setup pv tlb flush)",
    "PV IPIs": r"setup PV IPIs",
    "PV sched yield": r"setup PV sched yield",
}
SWITCHED = ("MSR_KVM_SYSTEM_TIME_NEW", "MSR_KVM_STEAL_TIME", "MSR_KVM_PV_EOI_EN")
STATISTIC = re.compile(r"^ +(\w+) +(?:\+|= )(0x[0-9a-f]+|[\d,]+)", re.M)


def statistics(text: str) -> dict[str, dict[str, int]]:
    """`--stats` as pyvmm prints it: of the VM and of each vCPU, by name."""
    found: dict[str, dict[str, int]] = {}
    for part in re.split(r"^ +statistics of ", text, flags=re.M)[1:]:
        head, _, rest = part.partition("\n")
        found[head.partition(":")[0]] = {
            name: int(value.replace(",", ""), 0) for name, value in STATISTIC.findall(rest)
        }
    return found


def facts(text: str) -> dict[str, list[str]]:
    """What the guest's `facts` says: the values of each name."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        found.setdefault(name, []).append(value)
    return found


@contextmanager
def hog() -> Iterator[None]:
    """A process that wants every CPU of the host: what it takes, the guest's CPUs lose."""
    code = "while True: pass"
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in os.sched_getaffinity(0)]
    try:
        yield
    finally:
        for each in running:
            each.kill()
            each.wait()


class Story:
    """`folder` has vmlinuz and initrd.img; what the guest said is kept in `out`."""

    def __init__(self, seen: host.Seen, folder: Path, out: Path) -> None:
        self.seen, self.folder, self.out = seen, folder, out
        self.release = (folder / "release").read_text().strip()
        self.cpus = 0
        self.name = ""  # of a guest that is not the host's own kernel

    def see(self, what: str, ok: bool, seen: str) -> None:
        """A check of this boot."""
        self.seen(f"{self.name}{self.cpus} CPU{'s' * (self.cpus > 1)}: {what}", ok, seen)

    def session(self, name: str, *more: str, args: str = "console=ttyS0 quiet") -> Session:
        words = [
            "pyvmm", "run", str(self.folder / "vmlinuz"), "--initrd", str(self.folder / "initrd.img"),
            "--kernel-args", f"{args} {PANICS}", "--memory", "256M", "--cpus", str(self.cpus), *more,
        ]  # fmt: skip
        print(" ".join(words), flush=True)
        return Session(words, self.out / f"{name}.txt")

    def on_hvc0(self) -> None:
        """A virtio console is Linux's console: its driver takes what is typed, and writes what is said."""
        self.cpus, numbers = 1, "\n".join(map(str, range(1, 1001)))
        with self.session(f"{self.folder.name}-hvc0", "--virtio-console", args="console=hvc0 quiet") as session:
            session.expect(PROMPT, COME_UP)
            said = session.ask("cat /sys/class/tty/console/active; tty", COMMAND)
            self.see("a prompt on hvc0, the virtio console", said.split() == ["hvc0", "/dev/hvc0"], said)
            said = session.ask("seq 1 1000", COMMAND)
            self.see("hvc0: 1000 lines, each in its place", said == numbers, said[-60:])
            self.powers_off(session)

    def comes_up(self, session: Session) -> None:
        _, first = session.expect(b"init: started", COME_UP)
        _, prompt = session.expect(PROMPT, COME_UP)
        self.see("a prompt on COM1", True, f"init after {first:.1f} s, the prompt after {prompt:.1f} s")

    def powers_off(self, session: Session) -> dict[str, dict[str, int]]:
        """Types poweroff; the statistics that pyvmm shows at its end."""
        session.send("poweroff")
        status = session.wait(COMMAND)
        last = session.text.splitlines()[-60:]
        self.see("poweroff ends pyvmm with status 0", status == 0, f"status {status}: {' / '.join(last)}")
        return statistics(session.text)

    def boot(self, cpus: int) -> None:
        """With so many CPUs: everything that is to be seen with them."""
        disk, socket = Path("/tmp/linux.disk"), Path("/tmp/linux.net")
        content = os.urandom(SECTORS * SECTOR)
        disk.write_bytes(content)
        socket.unlink(missing_ok=True)
        self.cpus, name = cpus, f"{self.folder.name}-{cpus}cpu"
        devices = ("--disk", str(disk), "--rng", "--net", f"seqpacket:{socket}", "--stats")
        with Peer(socket) as peer, self.session(name, *devices) as session:
            self.comes_up(session)
            text = session.ask("facts", COMMAND)
            (self.out / f"{name}-facts.txt").write_text(text + "\n")
            self.as_it_should_be(facts(text))
            self.disk(session, disk, content)
            self.net(session, peer)
            self.rng(session)
            self.busy(session)
            after = self.powers_off(session)
        self.written(disk)
        self.counted(after)
        (self.out / f"{name}-statistics.json").write_text(json.dumps(after, indent=1) + "\n")

    def as_it_should_be(self, found: dict[str, list[str]]) -> None:
        def value(name: str) -> str:
            return found.get(name, ["nothing"])[0]

        self.see("the kernel", value("kernel") == self.release, value("kernel"))
        self.see("nproc", value("cpus") == str(self.cpus), value("cpus"))
        clock, clocks, event = value("clocksource"), value("clocksources"), value("clockevent")
        good = clock in ("kvm-clock", "tsc") and "kvm-clock" in clocks
        self.see("the clock source is KVM's, or a TSC that KVM vouches for", good, f"{clock}, of {clocks}")
        self.see("timer events by the LAPIC, with a TSC deadline", event.startswith("lapic-deadline"), event)
        self.see("its disk", any(f"{SECTORS} sectors" in each for each in found.get("disk", [])), value("disk"))
        self.see("its network card", "virtio_net" in value("net"), value("net"))
        self.see("its source of random bytes", value("rng").startswith("virtio_rng"), value("rng"))
        said = "\n".join(found.get("dmesg", []))
        for what, pattern in (SAID | (SAID_OF_MORE if self.cpus > 1 else {})).items():
            match = re.search(pattern, said)
            self.see(f"dmesg says: {what}", match is not None, match[0] if match else said[-600:])

    def disk(self, session: Session, disk: Path, content: bytes) -> None:
        digest = hashlib.sha256(content).hexdigest()
        said = session.ask("sha256sum </dev/vda", COMMAND)
        self.see("the whole disk as the host wrote it", digest in said, said)
        said = session.ask(f"echo {MARK.decode()} | dd of=/dev/vda bs=512 seek=7 conv=sync 2>&1; sync", COMMAND)
        self.see("a sector is written", "1+0 records out" in said or "0+1 records in" in said, said)

    def written(self, disk: Path) -> None:
        found = disk.read_bytes()[7 * SECTOR : 8 * SECTOR]
        self.see("the host finds what the guest wrote", found.startswith(MARK), repr(found[:60]))

    def net(self, session: Session, peer: Peer) -> None:
        said = session.ask(
            f"ip addr add {OWN_ADDRESS}/24 dev eth0; ip link set eth0 up; ping -c 3 -W 20 {ADDRESS}", COMMAND
        )
        self.see("three pings, three answers", "3 packets received" in said, said)
        self.see("the other end saw them", peer.counts["echo"] >= 3 and peer.counts["arp"] >= 1, str(dict(peer.counts)))

    def rng(self, session: Session) -> None:
        said = [session.ask("dd if=/dev/hwrng bs=16 count=1 2>/dev/null | md5sum", COMMAND) for _ in range(2)]
        nothing = hashlib.md5(b"").hexdigest()
        good = said[0] != said[1] and all(nothing not in each and len(each) > 32 for each in said)
        self.see("random bytes, each time others", good, " / ".join(said))

    def busy(self, session: Session) -> None:
        """The host's CPUs are wanted by others too while the guest computes; then IPIs to all CPUs at once."""
        before = _steal(session.ask("facts", COMMAND))
        with hog():
            session.ask("for n in 1 2; do ( i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done ) & done; wait", COMMAND)
        after = _steal(session.ask("facts", COMMAND))
        self.see("/proc/stat: stolen time grows while others compute", after > before, f"{before} to {after} ticks")
        said = session.ask("echo l >/proc/sysrq-trigger; dmesg | grep -c 'NMI backtrace for cpu'", COMMAND)
        self.see("sysrq l: every CPU tells where it is", said.splitlines()[-1:] == [str(self.cpus)], said[-400:])

    def counted(self, after: dict[str, dict[str, int]]) -> None:
        cpus = [values for name, values in after.items() if name.startswith("vCPU")]
        self.see("statistics of each vCPU", len(cpus) == self.cpus, str(sorted(after)))
        for name in SWITCHED:
            values = [each.get(name, 0) for each in cpus]
            on = bool(values) and all(value & 1 for value in values)
            self.see(f"{name} switched on, on each vCPU", on, " ".join(map(hex, values)))
        steal = [each.get("steal", 0) for each in cpus]
        self.see("KVM wrote stolen time into the guest's pages", any(steal), f"{steal} ns")
        if self.cpus > 1:
            calls = [each.get("hypercalls", 0) for each in cpus]
            self.see("hypercalls (IPIs, yields, kicks)", any(calls), str(calls))
        halts = [each.get("halt_exits", 0) for each in cpus]
        self.see("idle CPUs halt", all(halts) and bool(halts), str(halts))


def _steal(text: str) -> int:
    return int(facts(text).get("steal", ["0"])[0] or 0)


def _as_far_as_it_comes(story: Story, scene: Callable[[], object]) -> None:
    """The next boot may do better than one that falls silent, and that one is not as it should be."""
    try:
        scene()
    except Silent as error:
        story.see("it comes to its end", False, str(error))


def main(folder: Path, out: Path) -> int:
    """`folder` is the parcel's, with other kernels in folders of its name beside it; linux.json is left in `out`."""
    seen = host.Seen()

    def scenes() -> None:
        own = Story(seen, folder, out)
        boots = [(own, 1), (own, 2)]
        for other in sorted(folder.parent.glob(f"{folder.name}-*")):
            story = Story(seen, other, out)
            story.name = f"{story.release}, "
            boots.append((story, 2))
        for story, cpus in boots:
            _as_far_as_it_comes(story, partial(story.boot, cpus))
            seen.write(out / "linux.json")
            host.hand_back()
        _as_far_as_it_comes(own, own.on_hvc0)

    return seen.tell(scenes, out / "linux.json")


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["LAB"]) / "linux", Path(os.environ["OUT"])))
