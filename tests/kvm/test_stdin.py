# SPDX-License-Identifier: GPL-2.0-or-later
"""Standard input at COM1: a pipe, a file, none at all, and a terminal with its escape key, given back at every end."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kvm.pc_guest import HEAD, PICS, TAIL, out
from tests.kvm.test_pc_board import COM1_ECHO
from vmm.abi import pc

COMMAND = [sys.executable, "-m", "vmm", "run"]
LIMIT = 60


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A guest that says `ready`, echoes what it gets on COM1, and powers off at ^D."""
    path = tmp_path_factory.mktemp("guest") / "echo.asm"
    path.write_text("; summary: echoes\n" + HEAD + PICS + COM1_ECHO + TAIL)
    return str(path)


def run(echo: str, *options: str, **how) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*COMMAND, echo, "--board", "pc", *options], capture_output=True, timeout=LIMIT, check=False, **how
    )


def test_a_pipe_reaches_the_guest(echo: str) -> None:
    done = run(echo, input=b"ls -l\x04")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"ls -l\n"), done.stdout


HVC_ECHO = f"""
%include "results.inc"
%include "apic.inc"
RECEIVE  = DATA_BASE
TRANSMIT = DATA_BASE + 0x1000
INPUT    = DATA_BASE + 0x2000
start:
    mov   r12d, VIRTIO_MMIO_BASE
    mov   eax, 1
    shl   rax, 32                          # VIRTIO_F_VERSION_1
    call  virtio_init
    mov   ebx, TRANSMIT
    mov   eax, 1
    call  virtio_queue
    call  vq_disable
    mov   ebx, RECEIVE
    xor   eax, eax
    call  virtio_queue
    call  vq_disable
    call  virtio_ready
next:
    mov   ebx, RECEIVE
    lea   rsi, [rip + input]
    call  served
    mov   dword ptr [rip + output + 8], ecx
    mov   r13d, ecx
    mov   ebx, TRANSMIT
    lea   rsi, [rip + output]
    call  served
    cmp   byte ptr [r13 + INPUT - 1], 4
    jne   next
    {out(pc.PM1_CONTROL, pc.PM1_SLP_EN, 2)}
    hlt
served:                                    # one buffer, by looking: ECX = what the device wrote
    mov   ecx, 1
    call  vq_add
    call  vq_kick
1:  call  vq_get
    cmp   eax, -1
    je    1b
    ret
.p2align 3
input:
    .quad INPUT
    .long 256, VRING_DESC_F_WRITE
output:
    .quad INPUT
    .long 0, 0
%include "virtio.inc"
"""


def test_a_virtio_console_has_the_input_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "hvc.asm"
    path.write_text("; summary: echoes on a virtio console\n" + HVC_ECHO + TAIL)
    text = b"".join(b"%06d," % i for i in range(300))
    done = run(str(path), "--virtio-console", "--timeout", "50", input=text + b"\x04")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(text)


def test_what_watches_the_run_too_leaves_the_input_alone(echo: str) -> None:
    said = run(echo, "--stats", input=b"ls -l\x04").stdout
    assert said.startswith(b"ls -l\n")
    assert b"statistics of vCPU 0" in said


def test_a_large_paste_is_not_lost(echo: str) -> None:
    text = b"".join(b"%06d," % i for i in range(3000))
    done = run(echo, "--timeout", "50", input=text + b"\x04")
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.startswith(text)


def test_a_file_reaches_the_guest(echo: str, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"from a file\x04")
    with (tmp_path / "in").open("rb") as file:
        assert run(echo, stdin=file).stdout.startswith(b"from a file\n")


@pytest.mark.parametrize("how", ["null", "closed", "empty"])
def test_without_input_the_guest_waits(echo: str, how: str) -> None:
    if how == "closed":
        done = subprocess.run(
            ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, echo, "--board", "pc", "--timeout", "1"],
            capture_output=True, timeout=LIMIT, check=False,
        )  # fmt: skip
    else:
        done = run(echo, "--timeout", "1", **({"stdin": subprocess.DEVNULL} if how == "null" else {"input": b""}))
    assert done.returncode == 124, done.stderr


@pytest.mark.parametrize("kind", ["payload", "code"])
def test_what_runs_on_the_own_board_reads_nothing(kind: str, tmp_path: Path) -> None:
    (tmp_path / "code.bin").write_bytes(b"\xb9\0\0\x02\0\xe2\xfe\xf4")  # mov ecx, 0x20000; loop; hlt
    what = "hello" if kind == "payload" else str(tmp_path / "code.bin")
    ours, theirs = os.pipe()
    os.write(theirs, b"for somebody else")
    os.close(theirs)
    try:
        done = subprocess.run([*COMMAND, what], stdin=ours, capture_output=True, timeout=LIMIT, check=False)
        assert (done.returncode, os.read(ours, 100)) == (0, b"for somebody else")
    finally:
        os.close(ours)


class Terminal:
    """pyvmm with a pty as its terminal, which is its controlling one."""

    def __init__(self, *command: str, child: str = "") -> None:
        self.fd, self.tty = pty.openpty()
        self.before = termios.tcgetattr(self.tty)
        self.text = b""
        self.process = subprocess.Popen(
            [sys.executable, "-c", child or CHILD, *command], stdin=self.tty, stdout=self.tty, stderr=self.tty,
            start_new_session=True,
        )  # fmt: skip

    def until(self, what: bytes) -> None:
        end = time.monotonic() + LIMIT
        while what not in self.text:
            assert time.monotonic() < end, self.text
            assert self.process.poll() is None or select.select([self.fd], [], [], 0)[0], self.text
            if select.select([self.fd], [], [], 0.1)[0]:
                self.text += os.read(self.fd, 4096)

    def type(self, data: bytes) -> None:
        os.write(self.fd, data)

    @property
    def raw(self) -> bool:
        return not termios.tcgetattr(self.tty)[3] & termios.ICANON

    def end(self) -> int:
        """Its status; the terminal must be as it was."""
        end = time.monotonic() + LIMIT
        while self.process.poll() is None:
            assert time.monotonic() < end, self.text
            if select.select([self.fd], [], [], 0.05)[0]:
                self.text += os.read(self.fd, 4096)
        assert termios.tcgetattr(self.tty) == self.before
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.fd)
        os.close(self.tty)


# The terminal becomes the controlling one of the new session, as a shell has it.
CHILD = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, "-m", "vmm", "run", *sys.argv[1:]])
"""

# A job of a shell: in a process group of its own, which has the terminal. Its pid comes first.
JOB = """
import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    print("pid", os.getpid(), "!", flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "vmm", "run", *sys.argv[1:]])
sys.exit(os.waitstatus_to_exitcode(os.waitpid(job, 0)[1]))
"""


@pytest.fixture
def terminal(echo: str) -> Iterator[Terminal]:
    made = Terminal(echo, "--board", "pc")
    made.until(b"C-a x quits")
    yield made
    made.close()


def test_what_is_typed_is_the_guests_and_the_terminal_comes_back(terminal: Terminal) -> None:
    terminal.type(b"date\r\x03")
    terminal.until(b"date\r\x03")
    assert terminal.raw
    terminal.type(b"\x04")
    assert terminal.end() == 0


def test_the_escape_key(terminal: Terminal) -> None:
    terminal.type(b"a\x01hb")
    terminal.until(b"this help")
    terminal.type(b"\x01\x01c\x01q\x01a")
    terminal.until(b"b\x01c\x01")
    terminal.type(b"\x01x")
    assert terminal.end() == 0
    assert b"C-a x" in terminal.text


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT], ids=lambda number: number.name
)
def test_a_signal_ends_it_and_the_terminal_comes_back(terminal: Terminal, number: signal.Signals) -> None:
    terminal.type(b"here")
    terminal.until(b"here")
    terminal.process.send_signal(number)
    assert terminal.end() == (130 if number is signal.SIGINT else -number)


def wait_for(condition) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_stopped_and_continued(echo: str) -> None:
    terminal = Terminal(echo, "--board", "pc", child=JOB)
    try:
        terminal.until(b"!")
        job = int(terminal.text.split()[1])
        terminal.until(b"C-a x quits")
        terminal.type(b"one")
        terminal.until(b"one")
        os.kill(job, signal.SIGTSTP)
        wait_for(lambda: Path(f"/proc/{job}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        assert not terminal.raw
        os.kill(job, signal.SIGCONT)
        wait_for(lambda: terminal.raw)
        terminal.type(b"two\x04")
        assert terminal.end() == 0
        assert b"two" in terminal.text
    finally:
        terminal.close()


def test_a_vcpu_thread_that_fails_gives_the_terminal_back(tmp_path: Path) -> None:
    """Two vCPUs; the second one's callback raises, on its own thread."""
    script = tmp_path / "fails.py"
    script.write_text(
        "import sys\n"
        "from types import SimpleNamespace\n"
        "from vmm.cli.run import Console\n"
        "from vmm.cli.stdin import Stdin\n"
        "from vmm.machine.machine import Machine\n"
        "from vmm.payload.options import Options\n"
        "def fail(value): raise RuntimeError('a callback on the second vCPU')\n"
        "with Stdin(Console(sys.stdout), Options(), shown=True) as stdin, Machine(board='pc', cpus=2) as m:\n"
        "    m.on_port_write(0x8e0, fail)\n"
        "    m.load('start: hlt; jmp start; second: mov dx, 0x8e0; out dx, al')\n"
        "    m.start(1, 'second')\n"
        "    guest = SimpleNamespace(machine=m, on_close=[])\n"
        "    stdin.watch(guest)\n"
        "    try: m.run()\n"
        "    finally: guest.on_close.pop()()\n"
    )
    terminal = Terminal(str(script), child=CHILD.replace('"-m", "vmm", "run", ', ""))
    try:
        assert terminal.end() == 1
        assert b"a callback on the second vCPU" in terminal.text
        assert b"C-a x quits" in terminal.text
    finally:
        terminal.close()
