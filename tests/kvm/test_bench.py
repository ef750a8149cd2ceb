# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm bench` measures every row that it promises. Nothing here says how fast anything is."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jsonschema
import pytest

import vmm.report
from tests.left_behind import files_before, open_files
from vmm import cli
from vmm.bench import compare, disk_guest, disks, ending, floor, guests, life, processes, sides, table, two_threads
from vmm.bench.image import SetUp, image
from vmm.errors import HostError, MissingCapability, UsageError
from vmm.machine.machine import Machine


@pytest.fixture(scope="module")
def compiler() -> None:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler, so no C floor")


@pytest.fixture(scope="module")
def document(compiler) -> dict:
    """The whole bench, quickly, as a reader gets it."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main(["bench", "--quick", "--json"]) == 0
    return json.loads(out.getvalue())


@pytest.mark.slow
def test_every_row_is_there_and_measured(document):
    schema = Path(vmm.report.__file__).parent / "schemas/bench.schema.json"
    jsonschema.validate(document, json.loads(schema.read_text(encoding="utf-8")))
    rows = {row["name"]: row for row in document["rows"]}
    assert list(rows) == [spec.row.name for spec in table.select([])]
    for name, row in rows.items():
        if row["why"]:  # what a host cannot show is said, and is no figure
            assert "floor" not in row["why"], name  # the C program can do what pyvmm can
            assert row["median"] is None or row["floor"] is None, name
            continue
        assert row["n"] > 0, name
        assert row["median"] > 0 or name == "sandbox", name  # a difference of two times, of which noise may be more
        if row["peer"]:
            assert row["floor"] > 0, name
            assert row["ratio"] > 0, name
        assert (row["met"] is None) == (row["goal"] is None), name
    assert {row["group"] for row in rows.values()} == {"goals", "exits", "growth"}
    assert all(len(row["points"]) > 3 for row in rows.values() if row["group"] == "growth")


@pytest.mark.slow
def test_the_goals_of_the_table_have_a_goal(document):
    assert all(row["goal"] is not None for row in document["rows"] if row["group"] == "goals" and not row["why"])
    assert all(row["goal"] is None for row in document["rows"] if row["group"] == "exits")


BY_NAME = (
    "pio_out mmio_read rdmsr_c wrmsr_python ioeventfd_mmio ioeventfd_python coalesced_python ipi self_ipi "
    "disk_read net_echo irqfd irqfd_c hlt_wake hlt_wake_c two_vcpus_c"
)


@pytest.mark.parametrize("name", BY_NAME.split())
def test_a_row_by_name(name, compiler, capsys):
    assert cli.main(["bench", "--quick", name]) == 0
    shown = capsys.readouterr().out
    assert f"\n{name} " in shown
    lines = [line for line in shown.splitlines() if line.startswith(name)]
    assert len(lines) == 1
    assert "floor" not in lines[0].removeprefix(name).replace("floor +", "")  # neither missing nor dead


def test_an_unknown_row_is_named(capsys):
    assert cli.main(["bench", "pio_uot"]) == 2
    assert "pio_out" in capsys.readouterr().err


def test_against_an_earlier_document(tmp_path, capsys):
    file = tmp_path / "before.json"
    assert cli.main(["bench", "--quick", "--json", "pio_out_c"]) == 0
    document = json.loads(capsys.readouterr().out)
    document["rows"][0]["ratio"] = 0.001  # nothing is a thousand times faster than itself
    file.write_text(json.dumps(document))
    assert cli.main(["bench", "--quick", "pio_out_c", "--against", str(file)]) == 1
    assert "worse" in capsys.readouterr().out
    for text in ("", "[]", '{"schema": 1}', '{"schema": 1, "rows": [1]}', '{"schema": 2, "rows": []}'):
        file.write_text(text)
        assert cli.main(["bench", "--quick", "pio_out_c", "--against", str(file)]) == 2
    assert cli.main(["bench", "--quick", "pio_out_c", "--against", str(tmp_path / "none")]) == 2


def test_without_the_floors_source_a_row_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(floor, "SOURCE", tmp_path / "floor.c")
    assert cli.main(["bench", "--quick", "pio_out"]) == 0
    assert "no C floor: bench/floor.c is not here" in capsys.readouterr().out


def test_without_a_compiler_a_row_says_so(monkeypatch, tmp_path):
    source = tmp_path / "floor.c"
    source.write_text("int main(void) { return 0; }\n")
    monkeypatch.setattr(floor, "SOURCE", source)
    monkeypatch.setattr(floor.shutil, "which", lambda name: None)
    with pytest.raises(floor.NoFloor, match="no C compiler"):
        floor.build()


def test_the_floor_is_built_when_it_is_missing_or_older(monkeypatch, tmp_path):
    source = tmp_path / "floor.c"
    source.write_text("int main(void) { return 3; }\n")
    monkeypatch.setattr(floor, "SOURCE", source)
    program = floor.build()
    first = program.stat().st_mtime_ns
    assert floor.build().stat().st_mtime_ns == first
    os.utime(program, (1, 1))
    assert floor.build().stat().st_mtime_ns > 10**9
    assert sorted(each.name for each in tmp_path.iterdir()) == ["floor", "floor.c"]
    source.write_text("int main(void) { return }\n")
    os.utime(program, (1, 1))
    with pytest.raises(floor.NoFloor, match="building bench/floor"):
        floor.build()


def test_the_floor_says_what_is_wrong_with_its_guest():
    with floor.Floor("batch", guest=b"no guest") as program, pytest.raises(HostError, match="the C floor ended: floor"):
        program.measure(1)


def test_the_floor_runs_the_same_bytes():
    """Both sides read their registers from one place: what the image holds is what each vCPU has."""
    for guest in (guests.port_out(3), guests.ipi(3)):
        side = sides.Batch(guest)
        try:
            data = side.image()
            states = [part for runner in side.machine.cpus for part in runner.vcpu.raw_state()]
            places = [data.index(part) for part in states]
            assert places == sorted(set(places))
            assert guest.code in data
        finally:
            side.close()


def test_a_second_vcpu_runs_in_the_floor_too(compiler):
    """The guest waits until its other vCPU has counted an interrupt: with one vCPU it would wait for good."""
    side = sides.Batch(guests.ipi(20))
    try:
        with floor.Floor("batch", guest=side.image()) as program:
            assert all(ns > 1000 for ns in program.measure(5))
            assert len(program.measure(1)) == 1
    finally:
        side.close()


def test_a_floor_whose_guest_hangs_is_an_error(compiler, monkeypatch):
    monkeypatch.setattr(floor, "PATIENCE", 0.2)
    side = sides.Batch(guests.Guest(b"\xeb\xfe", 1))  # jmp to itself
    try:
        with (
            floor.Floor("batch", guest=side.image()) as program,
            pytest.raises(HostError, match=r"not answered within 0\.2 s"),
        ):
            program.measure(1)
    finally:
        side.close()


def test_an_image_of_what_the_floor_does_not_know_is_refused():
    for options in ({"memory": "5G"}, {"cpus": 3}):
        with Machine(**options) as machine, pytest.raises(UsageError, match="C floor knows"):
            image(machine, SetUp())


def test_pinning_is_undone():
    before = os.sched_getaffinity(0)
    with compare.pinned(1) as enough:
        assert enough
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
    with compare.pinned(10_000) as enough:
        assert not enough
    with pytest.raises(ZeroDivisionError), compare.pinned(1):
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("make", "mode"),
    [
        (lambda disk: two_threads.Woken(irqfd=True, python=True), "irqfd"),
        (lambda disk: two_threads.Woken(irqfd=False, python=False), "kick"),
        (lambda disk: two_threads.Doorbell(guests.doorbell(2)), "batch"),
        (lambda disk: two_threads.Supplied(guests.touch()), "uffd"),
        (lambda disk: disks.DiskReads(disk, 1), "disk"),
    ],
    ids=["irqfd", "hlt_wake", "ioeventfd_python", "page_fault_uffd", "disk_read"],
)
def test_threads_that_wake_each_other_have_a_cpu_each(make, mode, compiler, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(disk_guest.DISK_SIZE))

    def places(pid: int, main: int) -> tuple[list[str], set[str]]:
        """The CPUs of the first thread and of the others; a worker of KVM's own has a name of its own."""
        found: dict[int, tuple[str, str]] = {}
        for task in Path(f"/proc/{pid}/task").iterdir():
            rows = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines() if ":" in line)
            found[int(task.name)] = rows["Name"].strip(), rows["Cpus_allowed_list"].strip()
        others = {cpus for number, (name, cpus) in found.items() if number != main and not name.startswith("kvm")}
        return [found[main][1]], others

    may = sorted(os.sched_getaffinity(0))
    before = {int(task.name) for task in Path("/proc/self/task").iterdir()}
    with compare.pinned(2):
        first, last = map(str, (sorted(os.sched_getaffinity(0))[0], may[-1]))
        ours = make(disk)
        try:
            more = (str(disk), hex(ours.disk.base)) if mode == "disk" else ()
            with floor.Floor(mode, *more, guest=ours.image()) as beside:
                ours.settle()
                assert ours.measure(2)
                assert beside.measure(2)
                assert places(beside._process.pid, beside._process.pid) == ([first], {last})
                mine = {int(task.name) for task in Path("/proc/self/task").iterdir()} - before
                names = {number: Path(f"/proc/self/task/{number}/comm").read_text() for number in mine}
                new = {number for number, name in names.items() if not name.startswith("kvm")}
                assert new
                assert {os.sched_getaffinity(number) == {int(last)} for number in new} == {True}
                assert os.sched_getaffinity(0) == {int(first)}
        finally:
            ours.close()
    assert sorted(os.sched_getaffinity(0)) == may


def test_each_way_of_a_kind_goes_as_far_as_it_says():
    """What a row's name and cost promise is where its accesses end."""
    ways = {spec.row.name: spec.row.cost for spec in table.select(["goals", "exits"])}
    for kind in ("pio_out", "pio_in", "mmio_read", "mmio_write", "rdmsr", "wrmsr"):
        assert ways[f"{kind}_c"] == "C core"
        assert ways[kind if kind.startswith(("pio", "mmio")) else f"{kind}_python"] == "Python"
    taken = []
    with contextlib.ExitStack() as stack:
        for make, guest in ((sides.WordMsr, guests.rdmsr), (sides.PythonMsr, guests.rdmsr)):
            side = make(guest(10))
            stack.callback(side.close)
            hooks = side.machine.platform.msr_reads
            dict.__setitem__(hooks, guests.POLL_CONTROL, lambda: taken.append(1) or 1)  # so that the word is not told
            side.measure(1)
    assert len(taken) >= 10  # of the hook; the word's reads never came
    assert len(taken) <= 20


def test_a_python_with_a_gil_is_named_where_one_without_is_needed(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    row = table.measure(table.select(["pio_out_no_gil"])[0], table.QUICK)
    assert row.why.startswith("needs a free-threaded Python; CPython 3.")
    assert row.median is None


def test_lives_are_measured_in_a_process_of_the_machine_alone():
    loaded = "import sys, vmm.bench.life; print(*sorted(sys.modules))"
    alone = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # coverage loads much
    found = subprocess.run(
        [sys.executable, "-c", loaded], capture_output=True, text=True, check=True, env=alone
    ).stdout.split()
    assert "vmm.machine.machine" in found
    assert not {"statistics", "subprocess", "struct", "json", "vmm.bench.sides"} & set(found)


def test_lives_are_told_as_the_floor_tells_its_rounds(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["life", guests.HLT.hex()])
    monkeypatch.setattr(sys, "stdin", io.StringIO("2\n1\n"))
    life.main()
    lines = [[int(word) for word in line.split()] for line in capsys.readouterr().out.splitlines()]
    assert [len(line) for line in lines] == [2, 1]
    assert min(map(min, lines)) > 0


def test_a_program_of_rounds_that_ends_is_named():
    command = [sys.executable, "-c", "import sys; sys.stdin.readline(); sys.exit('no rounds today')"]
    with floor.Rounds(command, "the peer") as peer, pytest.raises(HostError, match="the peer ended: no rounds today"):
        peer.measure(1)


@pytest.mark.parametrize("name", ["hypercall", "hypercall_python"])
def test_where_no_hypercall_reaches_kvm_the_row_says_so(name, monkeypatch):
    class Nothing:
        transport = "none"

    monkeypatch.setattr("vmm.host.hypercall_insn.measure", lambda kvm: Nothing)
    row = table.measure(table.select([name])[0], table.QUICK)
    assert row.why == "no hypercall instruction of ring 0 reaches KVM on this host"
    assert row.median is None


def test_the_floor_lets_hypercalls_out(compiler):
    """Its guest writes a port, because on this host a hypercall may reach nobody: the set-up is what is tried."""
    try:
        side = sides.PythonHypercall(guests.port_out(3))
    except MissingCapability as error:
        pytest.skip(str(error))
    try:
        with floor.Floor("batch", guest=side.image()) as program:
            assert len(program.measure(2)) == 2
        side.set_up["exit_hypercalls"] = 1 << 63
        with (
            floor.Floor("batch", guest=side.image()) as program,
            pytest.raises(HostError, match="KVM_CAP_EXIT_HYPERCALL"),
        ):
            program.measure(1)
    finally:
        side.close()


def test_a_guest_that_ends_by_itself_is_an_error():
    side = sides.Batch(guests.Guest(b"\xf4", 1))
    try:
        with pytest.raises(HostError, match="ended by itself"):
            side.measure(1)
    finally:
        side.close()


def test_a_command_that_ends_otherwise_is_an_error():
    process = processes.Process(["false"], 0)
    try:
        with pytest.raises(HostError, match="ended with status 1"):
            process.measure(1)
    finally:
        process.close()


def test_without_qemu_the_row_says_so(monkeypatch):
    monkeypatch.setattr(processes, "QEMU", "no-such-qemu")
    row = table.measure(table.select(["hello"])[0], table.QUICK)
    assert row.why == "no-such-qemu is not installed"
    assert row.median is not None
    assert row.met is None


@pytest.mark.parametrize(
    ("script", "why"),
    [("echo other", "printed b'other\\n', and not b'Hello"),
     ("echo no machine >&2; exit 3", "status 3, and not 1: no machine"), ("kill -9 $$", "ended with status -9")],
)  # fmt: skip
def test_a_peer_that_fails_is_no_ratio(script, why, compiler, monkeypatch, tmp_path):
    peer = tmp_path / "qemu-fake"
    peer.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "QEMU emulator version 99.1" && exit\n{script}\nexit 1\n')
    peer.chmod(0o755)
    monkeypatch.setattr(processes, "QEMU", str(peer))
    row = table.measure(table.select(["hello"])[0], table.QUICK)
    assert why in row.why
    assert row.median is not None
    assert (row.ratio, row.floor, row.met) == (None, None, None)


def test_a_peer_is_named_with_its_version(compiler, monkeypatch, tmp_path):
    peer = tmp_path / "qemu-fake"
    line = processes.TEXT.decode().rstrip()
    peer.write_text(
        f"#!/bin/sh\n[ $1 = --version ] && echo QEMU emulator version 99.1 && exit\necho '{line}'\nexit 1\n"
    )
    peer.chmod(0o755)
    monkeypatch.setattr(processes, "QEMU", str(peer))
    row = table.measure(table.select(["hello"])[0], table.QUICK)
    assert (row.peer, row.why) == ("QEMU 99.1", "")
    assert row.ratio is not None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL], ids=lambda n: n.name)
def test_nothing_is_left_behind_on_a_signal(number, compiler, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    program = "import sys; from vmm.cli import main; sys.exit(main(['bench', 'hello', 'idle_vm', '--json']))"
    bench = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (mine := family(bench.pid)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert mine
    bench.send_signal(number)
    assert bench.wait(60) == (130 if number is signal.SIGINT else -number)
    deadline = time.monotonic() + 10  # the kernel ends the children of who was killed
    while any(map(alive, mine)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, mine))
    if number is signal.SIGKILL:
        ending.sweep()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        ending.sweep()
    assert not list(tmp_path.iterdir())


def family(pid: int) -> list[int]:
    """Its children, if they are a floor and the program that it has started."""
    try:
        children = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        return children + [
            int(each) for child in children for each in Path(f"/proc/{child}/task/{child}/children").read_text().split()
        ]
    except OSError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_what_has_no_end_is_no_earlier_document(capsys):
    assert cli.main(["bench", "--quick", "pio_out_c", "--against", "/dev/zero"]) == 2
    assert "too large for a document" in capsys.readouterr().err


def test_the_multiboot_guest_is_one():
    image_bytes = processes.multiboot()
    magic, flags, checksum = (int.from_bytes(image_bytes[i : i + 4], "little") for i in (0, 4, 8))
    assert magic == 0x1BADB002
    assert (magic + flags + checksum) & 0xFFFFFFFF == 0
    assert processes.TEXT in image_bytes


def test_the_text_is_that_of_hello():
    from vmm.payload.catalog import find

    text = find("hello").text
    assert text is not None
    assert processes.TEXT.decode().strip() in text


def test_the_bench_leaves_no_descriptor():
    table.measure(table.select(["pio_out"])[0], table.QUICK)
    before = files_before()
    for name in ("pio_out", "irqfd", "ioeventfd_python", "page_fault_uffd", "lifecycle"):
        table.measure(table.select([name])[0], table.QUICK)
    assert open_files() == before
