# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run --sandbox`: what a taken-over process can do (nothing), and that the modes of a run still work in it."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import vmm.cli
from guest_payloads.api import virtio_blk
from vmm.base.version import _installed
from vmm.bench.processes import multiboot
from vmm.cli import main
from vmm.kvm import confine
from vmm.payload import apart, images
from vmm.sandbox import enter
from vmm.sandbox.compiled import KILL
from vmm.sandbox.enter import NO_LANDLOCK, NO_SECCOMP

PROGRAM = Path(__file__).with_name("taken_over.py")
ROOT = Path(__file__).resolve().parents[2]
NAMES = re.findall(r'^    "([^"]+)": ', PROGRAM.read_text(), re.M)
BY_SIGNAL = re.findall(r'"([^"]+)"', PROGRAM.read_text().partition("FATAL = (")[2].partition(")  # fmt")[0])
REFUSED = {"EPERM", "EACCES", "ENOSYS", "SIGSYS"}
HARMLESS = (
    "nothing", "read a file", "list a folder", "write a file", "fork", "socket", "connect", "kill another", "memfd",
    "open /dev/kvm", "another VM", "memory that is written and executed", "make memory executable", "a larger limit",
)  # fmt: skip
WHOLE = pytest.mark.skipif(
    not (confine.landlock_abi() and confine.has_filters(KILL)), reason="this kernel lacks landlock or seccomp filters"
)

DEBUG_EXIT = 1  # the status of a multiboot guest that says 0, as QEMU's isa-debug-exit gives it

HALF = """
import os, taken_over
def setup(guest):
    taken_over.plant(guest.machine, os.environ["PYVMM_TRIES"], 200)
"""


def tries(folder: Path, names: str, *options: str) -> dict[str, str]:
    """By name, what came of each try of a process with these options of `pyvmm run`."""
    (folder / "taken.asm").write_text("; summary: writes to a port\nstart:\n mov al, 1\n out 0x99, al\n hlt\n")
    (folder / "taken.py").write_text(HALF)
    (folder / "secret").write_text("x")
    (folder / "open").mkdir(exist_ok=True)
    command = [
        sys.executable,
        str(PROGRAM),
        *(str(folder / each) for each in ("secret", "open", "taken.asm")),
        *options,
    ]
    done = subprocess.run(
        command, input=names, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    rows = [line.rpartition(": ") for line in done.stdout.splitlines() if ": " in line]
    assert {row[0] for row in rows} == set(names.split("|")), done.stdout + done.stderr
    return {name: came for name, _, came in rows}


@WHOLE
def test_a_process_that_is_taken_over_can_do_nothing(tmp_path: Path):
    assert len(NAMES) > 60
    assert set(BY_SIGNAL) < set(NAMES)
    came = tries(tmp_path, "|".join(NAMES), "--sandbox")
    assert came.pop("nothing") == "did it"
    in_32_bits = came.pop("32-bit code")
    assert in_32_bits in ("SIGSYS", "SIGSEGV"), "the latter where the kernel has no calls of 32-bit code"
    assert {name: how for name, how in came.items() if how not in REFUSED} == {}
    assert {name for name, how in came.items() if how == "SIGSYS"} == set(BY_SIGNAL) - {"32-bit code"}
    assert (tmp_path / "secret").read_text() == "x"
    assert not list((tmp_path / "open").iterdir())


def test_without_it_the_same_process_can(tmp_path: Path):
    """Else the test above would show nothing."""
    came = tries(tmp_path, "|".join(HARMLESS))
    assert {name for name, how in came.items() if how == "did it"} >= set(HARMLESS) - {"a larger limit"}


# Modes --------------------------------------------------------------------------------------------------------------


class Ran(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ran]:
    """`pyvmm` in a process of its own, a fork: what it gives up stays with it. `first` is called in it before."""

    def start(*words: str, first: Callable[[], object] = lambda: None) -> Ran:
        out, err = tmp_path / "stdout", tmp_path / "stderr"
        sys.stdout.flush()
        child = os.fork()
        if not child:
            status = 99
            signal.alarm(60)
            try:
                for number, path in ((1, out), (2, err)):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
                sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
                vmm.cli.own_process = True
                first()
                status = main(words)
                sys.stdout.flush()
                assert sandboxed() == ("--sandbox" in words or not ({"--no-sandbox", "hello"} & {*words}))
            except BaseException:
                traceback.print_exc(file=sys.stderr)
                status = 98
            finally:
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return Ran(status, out.read_text(), err.read_text())

    return start


def sandboxed() -> bool:
    """Has this process given anything up? An unlikely call says so."""
    try:
        os.getxattr("/", "user.x")
    except OSError as error:
        return error.errno == errno.EPERM
    return False


@pytest.fixture
def image(tmp_path: Path) -> str:
    path = tmp_path / "guest"
    path.write_bytes(multiboot())
    return str(path)


def test_an_image_is_run_so_by_default(run: Callable[..., Ran], image: str):
    for words in ((image,), (image, "--no-sandbox"), ("hello", "--sandbox"), ("hello",)):
        ran = run("run", *words)
        assert (ran.status, ran.err) == (DEBUG_EXIT if words[0] == image else 0, ""), words
        assert ran.out.startswith("Hello from ring 0")


def no_metadata_inside() -> None:
    """As where importlib_metadata is loaded: a process that has given up its files is refused."""
    real = metadata.version

    def version(name: str) -> str:
        if sandboxed():
            raise PermissionError(errno.EACCES, name)
        return real(name)

    metadata.version = version
    _installed.cache_clear()


def test_every_output_is_written(run: Callable[..., Ran], image: str, tmp_path: Path):
    files = {option: tmp_path / f"x{suffix}" for option, suffix in
             (("--trace", ".jsonl"), ("--html", ".html"), ("--timeline", ".svg"), ("--console", ".txt"))}  # fmt: skip
    files["--console"].write_text("longer than what comes, by far: it goes" * 9)
    words = [word for option, path in files.items() for word in (option, str(path))]
    ran = run("run", image, *words, "--json", "--stats", first=no_metadata_inside)
    assert (ran.status, ran.err) == (DEBUG_EXIT, "")
    assert json.loads(ran.out)["outcome"] == "pass"
    assert files["--console"].read_text() == "Hello from ring 0 of a virtual machine.\n"
    assert "</html>" in files["--html"].read_text()
    assert f"pyvmm {metadata.version('pyvmm')}" in files["--html"].read_text()
    assert "</svg>" in files["--timeline"].read_text()
    assert main(["replay", str(files["--trace"]), "--quiet"]) == DEBUG_EXIT


def test_a_crash_is_told_whole(run: Callable[..., Ran], tmp_path: Path):
    (tmp_path / "crash.bin").write_bytes(b"\x0f\x0b")
    ran = run("run", str(tmp_path / "crash.bin"), "-v")
    assert (ran.status, ran.err) == (1, "")
    assert "ud2" in ran.out
    assert "#UD" in ran.out


def test_vcpus_with_threads_and_a_time_limit(run: Callable[..., Ran], tmp_path: Path):
    ran = run("run", "smp", "--sandbox")
    assert (ran.status, ran.err) == (0, "")
    (tmp_path / "loop.bin").write_bytes(b"\xeb\xfe")
    ran = run("run", str(tmp_path / "loop.bin"), "--timeout", "0.2")
    assert (ran.status, ran.err) == (124, "")


def test_a_disk_is_read_written_and_cleared(run: Callable[..., Ran], tmp_path: Path):
    text = Path(virtio_blk.__file__).with_suffix(".asm").read_text()
    text = text.replace("; proves:  virtio_blk\n", "")
    (tmp_path / "own.asm").write_text(text)
    (tmp_path / "disk").write_bytes(virtio_blk.BEFORE)
    ran = run("run", str(tmp_path / "own.asm"), "--sandbox", "--disk", str(tmp_path / "disk"))
    assert (ran.status, ran.err) == (0, ""), ran.out
    assert (tmp_path / "disk").read_bytes() in (virtio_blk.AFTER, virtio_blk.KEPT)


def test_a_folder_is_served_to_be_read(run: Callable[..., Ran], tmp_path: Path):
    ran = run("run", "hello", "--sandbox", "--folder", str(tmp_path))
    assert (ran.status, ran.err) == (0, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("hello", "--gdb"), "--sandbox and --gdb: a debugger may read"),
        (("hello", "--watch"), "--sandbox and --watch: to run it again"),
        (("hello", "--folder-rw", "."), "--sandbox and --folder-rw: files are opened"),
        (("kvmclock",), "--sandbox and kvmclock: its host half makes the machines"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
):
    assert main(["run", *words, "--sandbox"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert "pyvmm docs sandbox#runs" in err


def test_an_image_that_cannot_have_it_says_so(run: Callable[..., Ran], image: str, tmp_path: Path):
    ran = run("run", image, "--folder-rw", str(tmp_path), "--no-sandbox")
    assert (ran.status, ran.err) == (DEBUG_EXIT, "")

    def plain() -> None:
        globals()["sandboxed"] = lambda: True  # the other process's own look is not what is tested here

    ran = run("run", image, "--folder-rw", str(tmp_path), first=plain)
    assert ran.status == DEBUG_EXIT
    assert ran.err == "pyvmm: not sandboxed, for --folder-rw: files are opened and created while the guest runs\n"


def test_a_kernel_without_landlock_is_told_and_the_rest_is_given_up(run: Callable[..., Ran], image: str):
    def without() -> None:
        confine.landlock_abi = lambda: 0

    ran = run("run", image, first=without)
    assert ran.status == DEBUG_EXIT
    assert ran.err.splitlines() == [f"pyvmm: the sandbox is not whole: {NO_LANDLOCK}"]


def test_a_kernel_without_filters_is_told(run: Callable[..., Ran], image: str):
    def without() -> None:
        confine.has_filters = lambda _: False
        globals()["sandboxed"] = lambda: True

    ran = run("run", image, first=without)
    assert ran.status == DEBUG_EXIT
    assert ran.err.splitlines() == [f"pyvmm: the sandbox is not whole: {NO_SECCOMP}"]


@WHOLE
def test_a_devices_thread_has_no_files_either(run: Callable[..., Ran], tmp_path: Path):
    """It was there before the process gave them up, and landlock holds for a thread and what it makes."""
    (tmp_path / "disk").write_bytes(bytes(512))
    told = tmp_path / "told"

    def spy() -> None:
        writer = os.open(told, os.O_WRONLY | os.O_CREAT)
        start = threading.Thread.start

        def started(thread: threading.Thread) -> None:
            inner, asked = thread.run, threading.Event()

            def look() -> None:
                asked.wait()
                try:
                    os.close(os.open("/etc/passwd", os.O_RDONLY))
                except OSError as error:
                    os.write(writer, f"{thread.name} {error.errno}\n".encode())
                else:
                    os.write(writer, b"read\n")

            def run() -> None:
                start(threading.Thread(target=look))  # which has what its maker has
                inner()

            thread.run = run  # type: ignore[method-assign]
            start(thread)
            waiting.append(asked)

        waiting: list[threading.Event] = []
        threading.Thread.start = started  # type: ignore[method-assign]
        inside = enter.enter

        def then(*args: Any) -> tuple[str, ...]:
            missing = inside(*args)
            for each in waiting:
                each.set()
            time.sleep(0.05)
            return missing

        enter.enter = then

    ran = run("run", "hello", "--sandbox", "--disk", str(tmp_path / "disk"), "--rng", first=spy)
    assert (ran.status, ran.err) == (0, "")
    lines = told.read_text().splitlines()
    assert len(lines) == 2
    assert {line.rpartition(" ")[2] for line in lines} == {str(errno.EACCES)}


def test_an_image_that_takes_too_long_to_read_ends_by_the_limit(
    run: Callable[..., Ran], image: str, monkeypatch: pytest.MonkeyPatch
):
    def endless(*_: object, **__: object) -> None:
        while True:
            pass

    monkeypatch.setattr(apart, "READING", 1)
    monkeypatch.setattr(images, "read_image", endless)
    ran = run("run", image, first=lambda: globals().update(sandboxed=lambda: True))
    assert ran.status == 2
    assert "reading it as an image: not done after 1 s of CPU time, and ended" in ran.err


def test_who_calls_main_keeps_what_it_has(image: str, tmp_path: Path):
    assert main(["run", image]) == DEBUG_EXIT
    (tmp_path / "new").write_bytes(b"")


def test_a_plain_run_loads_nothing_of_it():
    code = "import sys\nfrom vmm.cli import main\nmain(['run', 'hello'])\n"
    code += "print(*(name for name in sys.modules if 'sandbox' in name))"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)  # fills the cache
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.splitlines()[-1] == ""
