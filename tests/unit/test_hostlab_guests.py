# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's steps that start a Linux guest: what they ask of a host, how they talk to a console, what they conclude."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.hostlab import hosts, lab, mended_qemu, parcel, qemu, root
from tools.hostlab.emulator import Disks
from tools.hostlab.inside import host, linux, linux_speed
from tools.hostlab.inside.peer import ADDRESS, MAC, Peer, checksum
from tools.hostlab.inside.session import Session, Silent
from tools.hostlab.kernel import Kernel

GUEST_MAC = bytes.fromhex("020000000099")
OWN = socket.inet_aton("10.0.2.15")
STATS = """\
pass  vmlinuz  10 exits
  statistics of VM
    mmu_pte_write  +10,597
  statistics of vCPU 0
    halt_exits          +2
    hypercalls          +1,234
    MSR_KVM_STEAL_TIME  = 0xa0001
    steal               = 5,778 ns
  statistics of vCPU 1: nothing changed
"""


def test_a_step_says_that_it_starts_a_guest() -> None:
    assert parcel.guests(["doctor", "linux"])
    assert parcel.guests(["linux_speed"])
    assert not parcel.guests(["doctor", "probe", "images"])
    assert parcel.systems(["doctor", "images"])
    assert parcel.systems(["linux"])
    assert not parcel.systems(["doctor", "probe"])
    assert parcel.packages(["doctor", "linux_speed", "linux_speed"]) == ("qemu-system-x86",)
    assert parcel.packages(["linux"]) == ()


def test_an_svm_host_with_a_guest_has_a_mended_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mended_qemu, "can_be_made", lambda: True)
    for step in ("linux", "images"):
        host = hosts.parse("svm-6.12", only=(step,))
        assert lab.fitted(host) == replace(host, mended=True, xsave=False)
    both = hosts.parse("svm-6.12", extra=("linux",))
    assert lab.fitted(both) == replace(both, mended=True), "the table's verdicts are of a CPU with XSAVE"
    for other in (hosts.parse("svm-6.12"), hosts.parse("vmx-6.1", only=("linux",))):
        assert lab.fitted(other) == other


def test_or_one_cpu_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mended_qemu, "can_be_made", lambda: False)
    fitted = lab.fitted(hosts.parse("svm-6.12", only=("linux",)))
    assert (fitted.cpus, fitted.counted, fitted.name) == (1, True, "svm-6.12-1cpu")


def test_guests_of_other_kernels_lie_beside_the_hosts_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each has the folder of its series, and is looked for in the release that has it."""
    asked: list[str] = []

    def settle(host: hosts.Host, say: object) -> tuple[hosts.Host, str, str]:
        asked.append(host.suite)
        return hosts.settled(host, "7.2.13-1"), "archive", host.suite

    monkeypatch.setattr(lab, "settle", settle)
    monkeypatch.setattr(lab.guests, "linux", lambda archive, found, say: tmp_path / found)
    for maker in (lab.bochs.binary, lab.parcel.dependencies, lab.parcel.wheels, lab.root.image, lab.kernel.kernel):
        monkeypatch.setattr(sys.modules[maker.__module__], maker.__name__, lambda *args: tmp_path)
    host = hosts.parse("vmx-6.1", only=("linux",), guests=("6.12", "newest"))
    prepared = lab.prepare(host, lab.Archive("bookworm"), "bookworm", lambda line: None)  # type: ignore[arg-type]
    assert prepared.folders == {
        "linux": tmp_path / "bookworm", "linux-6.12": tmp_path / "trixie", "linux-7.2": tmp_path / "sid"
    }  # fmt: skip
    assert asked == ["trixie", "sid"]


def test_each_guest_is_started_and_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("linux", "linux-7.2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "release").write_text(f"{name}\n")
    booted: list[tuple[str, int]] = []

    def boot(story: linux.Story, cpus: int) -> None:
        booted.append((story.folder.name, cpus))
        story.cpus = cpus
        story.see("it is there", True, "yes")
        if story.name:
            raise Silent("no more")

    monkeypatch.setattr(linux.Story, "boot", boot)
    monkeypatch.setattr(linux.Story, "on_hvc0", lambda story: booted.append(("hvc0", 1)))
    assert linux.main(tmp_path / "linux", tmp_path) == 1
    assert booted == [("linux", 1), ("linux", 2), ("linux-7.2", 2), ("hvc0", 1)]
    checks = json.loads((tmp_path / "linux.json").read_text())["checks"]
    assert [each["what"] for each in checks][-2:] == [
        "linux-7.2, 2 CPUs: it is there", "linux-7.2, 2 CPUs: it comes to its end"
    ]  # fmt: skip


def test_its_emulator_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(qemu, "path_of", lambda name: Path("/usr/bin") / name)
    kernel, disks = Kernel(tmp_path, tmp_path, "", ""), Disks(tmp_path, tmp_path, 1)
    monkeypatch.setattr(mended_qemu, "can_be_made", lambda: False)
    usual = hosts.parse("svm-6.12")
    words = qemu.command(usual, kernel, disks, tmp_path)
    assert "-icount" not in words
    assert "noxsave" not in words[words.index("-append") + 1]
    words = qemu.command(lab.fitted(hosts.parse("svm-6.12", only=("linux",))), kernel, disks, tmp_path)
    assert words[words.index("-icount") + 1] == qemu.COUNTED[1]
    assert words[words.index("-smp") + 1] == "1"


def test_or_is_the_mended_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(mended_qemu, "can_be_made", lambda: True)
    monkeypatch.setattr(mended_qemu, "binary", lambda: tmp_path / "mended")
    words = qemu.command(
        lab.fitted(hosts.parse("svm-6.12", only=("linux",))), Kernel(tmp_path, tmp_path, "", ""),
        Disks(tmp_path, tmp_path, 1), tmp_path,
    )  # fmt: skip
    assert words[2] == str(tmp_path / "mended")
    assert "-icount" not in words
    assert words[words.index("-smp") + 1] == "2"
    assert words[words.index("-append") + 1].endswith(" noxsave")


# As a compiler left it: exception_index, exception_is_int, exception_next_eip, the log's flag, the last argument
VMRUN = bytes.fromhex(
    "4189c5 4489ab80330000 89b354efffff c7838433000000000000 48c78388330000ffffffff f605ba45b60002 0f856c010000 "
    "ba01000000 4889df e8a74f0500".replace(" ", "")
)
STORE = bytes.fromhex("89b354efffff")


def test_the_store_alone_is_taken_out() -> None:
    program = bytes(100) + VMRUN + STORE * 3  # others of its kind stay
    mended = mended_qemu.mend(program)
    assert mended == bytes(100) + VMRUN.replace(STORE, b"\x90" * 6) + STORE * 3


def test_what_is_not_there_once_is_not_mended() -> None:
    for program in (b"", STORE * 3, VMRUN + VMRUN, VMRUN.replace(b"\xba\x01", b"\xba\x00"), VMRUN[:-12]):
        assert mended_qemu.mend(program) is None


def test_the_copy_is_kept_and_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It finds the files of the one that it is a copy of, and is made once."""
    for name in ("bin", "share", "lib"):
        (tmp_path / "usr" / name).mkdir(parents=True)
    program = tmp_path / "usr/bin" / mended_qemu.QEMU
    program.write_bytes(b"#!/bin/sh\ncd $(dirname $0)/.. && test -d lib -a -d share && echo fine\nexit\n" + VMRUN)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mended_qemu, "path_of", lambda name: str(program))
    mended_qemu.can_be_made.cache_clear()
    try:
        assert mended_qemu.can_be_made()
    finally:
        mended_qemu.can_be_made.cache_clear()
    copy = mended_qemu.binary()
    assert STORE not in copy.read_bytes()
    assert subprocess.run([copy], capture_output=True, text=True, check=True).stdout == "fine\n"
    assert mended_qemu.binary() == copy


def test_a_kernel_of_backports_does_without_what_qemu_gets_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(qemu, "path_of", lambda name: Path("/usr/bin") / name)
    kernel, disks = Kernel(tmp_path, tmp_path, "", ""), Disks(tmp_path, tmp_path, 1)
    for name, without in (("svm-6.12-bookworm-backports", True), ("svm-6.12", False)):
        words = qemu.command(hosts.parse(name), kernel, disks, tmp_path)
        assert ("clearcpuid=cx16" in words[words.index("-append") + 1].split()) is without


def test_more_packages_are_another_image() -> None:
    assert root._digest(()) != root._digest(("qemu-system-x86",))


SHELL = """\
import sys
print("booting"); print("init: started")
count = 0
while True:
    print("/ # ", end="", flush=True)
    line = sys.stdin.readline().strip()
    print(line)
    if line == "poweroff":
        print("bye"); break
    command, _, mark = line.partition("; echo ")
    if command == "silence":
        import time; time.sleep(60)
    print(f"said {command}")
    print("end-" + str(eval(mark[len("end-$(("):-2])))
"""


def test_a_session_asks_and_reads(tmp_path: Path) -> None:
    with Session([sys.executable, "-uc", SHELL], tmp_path / "log") as session:
        before, _ = session.expect(b"init: started", 20)
        assert before.strip() == "booting"
        session.expect(linux.PROMPT, 20)
        assert session.ask("one", 20) == "said one"
        assert session.ask("two words", 20) == "said two words"
        session.send("poweroff")
        assert session.wait(20) == 0
        assert session.text.endswith("bye\n")
    assert (tmp_path / "log").read_text() == session.text


def test_a_session_that_says_nothing_ends_in_time() -> None:
    with Session([sys.executable, "-uc", SHELL]) as session:
        session.expect(linux.PROMPT, 20)
        with pytest.raises(Silent, match="time was over"):
            session.ask("silence", 0.5)
    assert session.process.returncode is not None


def test_a_session_of_a_program_that_ends_early() -> None:
    with Session([sys.executable, "-c", "print('oh')"]) as session, pytest.raises(Silent, match="ended before"):
        session.expect(b"init: started", 20)


def arp(target: str) -> bytes:
    request = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1) + GUEST_MAC + OWN + bytes(6) + socket.inet_aton(target)
    return b"\xff" * 6 + GUEST_MAC + b"\x08\x06" + request


def echo(data: bytes) -> bytes:
    body = struct.pack(">BBHHH", 8, 0, 0, 7, 1) + data
    body = body[:2] + struct.pack(">H", checksum(body)) + body[4:]
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 1, 0) + OWN + socket.inet_aton(ADDRESS)
    return MAC + GUEST_MAC + b"\x08\x00" + header + body


def test_the_peer_answers(tmp_path: Path) -> None:
    with Peer(tmp_path / "net") as peer, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as card:
        card.settimeout(20)
        card.connect(str(tmp_path / "net"))
        card.send(arp(ADDRESS))
        answer = card.recv(2000)
        assert answer[:6] == GUEST_MAC
        assert answer[20:32] == b"\0\2" + MAC + socket.inet_aton(ADDRESS)
        for data in (b"abcdefg", b"x" * 64):
            card.send(echo(data))
            answer = card.recv(2000)
            assert answer[26:34] == socket.inet_aton(ADDRESS) + OWN
            assert answer[34:36] == b"\0\0"
            assert answer[38:42] == struct.pack(">HH", 7, 1)
            assert answer[42:] == data
            assert checksum(answer[34:]) == 0
        card.send(arp("10.0.2.9"))
        card.send(b"short")
        card.send(echo(b"last"))
        assert card.recv(2000)[42:] == b"last"
    assert peer.counts["arp"] == 1
    assert peer.counts["echo"] == 3


def test_statistics_are_read_off_the_text() -> None:
    found = linux.statistics(STATS)
    assert found == {
        "VM": {"mmu_pte_write": 10597},
        "vCPU 0": {"halt_exits": 2, "hypercalls": 1234, "MSR_KVM_STEAL_TIME": 0xA0001, "steal": 5778},
        "vCPU 1": {},
    }


def story(tmp_path: Path) -> linux.Story:
    (tmp_path / "release").write_text("6.12\n")
    told = linux.Story(host.Seen(), tmp_path, tmp_path)
    told.cpus = 2
    return told


def bad(of: linux.Story) -> list[str]:
    return [str(each["what"]).removeprefix("2 CPUs: ") for each in of.seen.checks if not each["ok"]]


def test_a_vcpu_without_paravirtual_features_is_noticed(tmp_path: Path) -> None:
    told = story(tmp_path)
    on = dict.fromkeys(linux.SWITCHED, 0x1001) | {"steal": 5, "hypercalls": 3, "halt_exits": 9}
    told.counted({"VM": {}, "vCPU 0": on, "vCPU 1": on})
    assert bad(told) == []
    told.counted({"VM": {}, "vCPU 0": on, "vCPU 1": on | {"MSR_KVM_PV_EOI_EN": 0x1000}})
    assert bad(told) == ["MSR_KVM_PV_EOI_EN switched on, on each vCPU"]


FACTS = """\
kernel 6.12
cpus 2
clocksource kvm-clock
clocksources kvm-clock acpi_pm
clockevent lapic-deadline
disk vda 16384 sectors, read-only 0
net eth0 02:00:00:00:00:01 virtio_net
rng virtio_rng.0
steal 12
dmesg Hypervisor detected: KVM
dmesg kvm-clock: Using msrs 4b564d01 and 4b564d00
dmesg kvm-guest: KVM setup pv remote TLB flush
dmesg kvm-guest: setup PV sched yield
dmesg kvm-guest: setup PV IPIs
"""


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("kernel 6.12", "the kernel"),
        ("cpus 2", "nproc"),
        ("clocksource kvm-clock", "the clock source is KVM's, or a TSC that KVM vouches for"),
        ("clockevent lapic-deadline", "timer events by the LAPIC, with a TSC deadline"),
        ("disk vda 16384 sectors, read-only 0", "its disk"),
        ("net eth0 02:00:00:00:00:01 virtio_net", "its network card"),
        ("rng virtio_rng.0", "its source of random bytes"),
        ("dmesg kvm-guest: setup PV IPIs", "dmesg says: PV IPIs"),
        ("dmesg kvm-guest: KVM setup pv remote TLB flush", "dmesg says: PV TLB flush"),
    ],
)
def test_each_fact_that_is_missing_is_noticed(tmp_path: Path, line: str, what: str) -> None:
    assert line in FACTS
    told = story(tmp_path)
    told.as_it_should_be(linux.facts(FACTS))
    assert bad(told) == []
    told.as_it_should_be(linux.facts(FACTS.replace(f"{line}\n", "")))
    assert bad(told) == [what]


SMAPS = """\
55d0c0000000-55d0c0100000 r-xp 00000000 fe:00 1 /usr/bin/x
Size:               1024 kB
KernelPageSize:        4 kB
Rss:                 800 kB
Pss:                 400 kB
7f0000000000-7f0010000000 rw-p 00000000 00:00 0
Size:             262144 kB
Rss:               90000 kB
7f0020000000-7f0020100000 rw-p 00000000 00:00 0
Size:               1024 kB
Rss:                 200 kB
"""


def test_memory_is_told_apart() -> None:
    assert linux_speed.resident(SMAPS) == (1000, 90000)


def begun(seconds: float = 1.0, own: int = 1000, reads: float = 100.0) -> linux_speed.Start:
    rates = dict.fromkeys(linux_speed.WORK, 50.0) | {"disk": reads}
    return linux_speed.Start(seconds, own, 90000, rates, dict.fromkeys(linux_speed.WORK, 7.0))


def compared(tmp_path: Path, *ours: linux_speed.Start) -> dict[str, dict[str, object]]:
    """The checks that came of it, by what they are."""
    turns = linux_speed.Turns({}, tmp_path, lambda: None)
    turns.pairs = [{"pyvmm": each, "qemu": begun()} for each in ours]
    seen = host.Seen()
    linux_speed.compare(seen, 2, turns)
    return {str(each["what"]).removeprefix("2 CPUs: "): each for each in seen.checks}


def test_ratios_are_judged(tmp_path: Path) -> None:
    good = compared(tmp_path, *(begun(seconds, 400, 71.0) for seconds in (1.0, 1.1, 9.0)))
    assert all(each["ok"] for each in good.values())
    assert "1.10: [1.0, 1.1, 9.0] s, QEMU [1.0, 1.0, 1.0] s" in str(good)
    bad = compared(tmp_path, *[begun(1.2, 501, 69.0)] * 3)
    wrong = [what for what, each in bad.items() if not each["ok"]]
    assert [what.split(",")[0].split(" ")[0] for what in wrong] == ["first", "memory", "reads"]
    assert "1.20" in str(bad[wrong[0]]["seen"])
    none = compared(tmp_path)
    assert [(what, each["ok"]) for what, each in none.items()] == [("pairs of starts", False)]


GUEST = """\
import sys
print("init: started"); print("/ # ", end="", flush=True)
for line in sys.stdin:
    print(line.strip())
    words, _, mark = line.partition("; echo end-")
    if words.startswith("measure ") and sys.argv[1] != "mute":
        _, kind, _, count = words.split()
        print("measured", kind, count, int(count) * 1000000, 2000)
    print("end-" + str(eval(mark.strip()[3:-2])))
    print("/ # ", end="", flush=True)
"""


def test_starts_take_turns_and_all_is_kept(tmp_path: Path) -> None:
    kept: list[int] = []
    both = {name: [sys.executable, "-uc", GUEST, name] for name in ("qemu", "pyvmm")}
    turns = linux_speed.Turns(both, tmp_path, lambda: kept.append(len(turns.pairs)))
    turns.take(2)
    assert kept == [1, 2]
    assert [list(pair) for pair in turns.pairs] == [["qemu", "pyvmm"], ["pyvmm", "qemu"]]
    assert turns.pairs[0]["qemu"].rates == dict.fromkeys(linux_speed.WORK, 1000.0)
    assert turns.pairs[0]["qemu"].medians["disk"] == 2.0


def test_starts_that_come_to_nothing_are_counted_and_bounded(tmp_path: Path) -> None:
    both = {name: [sys.executable, "-uc", GUEST, name] for name in ("qemu", "mute")}
    turns = linux_speed.Turns(both, tmp_path, lambda: None)
    turns.take(2)
    assert turns.pairs == []
    assert len(turns.silent) == linux_speed.SPARE + 1
    assert all(each.startswith("mute: measure disk said") for each in turns.silent)
    kept = sorted(file.name for file in tmp_path.glob("*-silent-*"))
    assert kept == [f"linux_speed-mute-silent-{n}.txt" for n in range(1, linux_speed.SPARE + 2)]


def test_what_was_seen_is_there_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, file = host.Seen(), tmp_path / "checks.json"
    seen("a first thing", True, "so it was")
    seen.write(file)
    assert json.loads(file.read_text())["checks"][0]["seen"] == "so it was"
    monkeypatch.delenv("HAND_BACK", raising=False)
    host.hand_back()  # nobody to give it to
    command = tmp_path / "hand-back"
    command.write_text(f"#!/bin/sh\ntouch {tmp_path}/given\n")
    command.chmod(0o755)
    monkeypatch.setenv("HAND_BACK", str(command))
    host.hand_back()
    assert (tmp_path / "given").exists()


def test_what_a_terminal_is_told_is_no_text() -> None:
    parts = ("a\x1b", "[6", "n\r\n/ # \x1b[", "6n")
    code = f"import sys, time\nfor part in {parts}:\n    print(part, end='', flush=True)\n    time.sleep(0.05)"
    with Session([sys.executable, "-c", code]) as session:
        assert session.expect(linux.PROMPT, 20)[0] == "a\n"
        assert session.wait(20) == 0
        assert session.text == "a\n/ # "
