# SPDX-License-Identifier: GPL-2.0-or-later
"""Real gdb, by batch scripts, against payloads that run with --gdb. Skips by name where there is no gdb."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vmm.host import userfaultfd

GDB = shutil.which("gdb")
needs_gdb = pytest.mark.skipif(GDB is None, reason="gdb is not installed")
LIMIT = 60

ENDLESS = """
; result: count u64   how often round
%include "results.inc"
start:
    mov   al, 0x0a
    out   0xe9, al                        ; a line: it runs
    xor   ebx, ebx
    mov   rdi, DATA_BASE
round:
    inc   ebx
    mov   dword ptr [rdi], ebx
    cmp   dword ptr [rdi + 8], 0x600d
    jne   round
    mov   rax, rbx
    RESULT count
    PASS
"""


class Served:
    """`pyvmm run ... --gdb SOCKET`, and clients of it."""

    def __init__(self, folder: Path, *arguments: str, wait: bool = True) -> None:
        self.socket = folder / "gdb.sock"
        command = [sys.executable, "-m", "vmm", "run", *arguments, "--gdb", str(self.socket)]
        self.run = subprocess.Popen(
            [*command, *(["--wait"] if wait else [])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        end = time.monotonic() + LIMIT
        while not self.socket.exists() and self.run.poll() is None and time.monotonic() < end:
            time.sleep(0.02)

    def script(self, *commands: str, target: str = "remote") -> list[str]:
        each = [word for command in commands for word in ("-ex", command)]
        assert GDB is not None
        return [GDB, "-nx", "-batch", "-ex", "set pagination off", "-ex", f"target {target} {self.socket}", *each]

    def gdb(self, *commands: str, target: str = "remote") -> str:
        """What gdb prints."""
        done = subprocess.run(
            self.script(*commands, target=target), capture_output=True, text=True, timeout=LIMIT, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.stdout + done.stderr

    def end(self) -> tuple[int, str]:
        """(exit status, what the run printed)."""
        out, error = self.run.communicate(timeout=LIMIT)
        return self.run.returncode, out + error


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def make(*arguments: str, wait: bool = True) -> Served:
        made.append(Served(tmp_path, *arguments, wait=wait))
        return made[-1]

    yield make
    for each in made:
        if each.run.poll() is None:
            each.run.kill()
        each.run.communicate()


@pytest.fixture
def endless(tmp_path: Path) -> str:
    file = tmp_path / "endless.asm"
    file.write_text(ENDLESS, encoding="utf-8")
    return str(file)


@needs_gdb
def test_breakpoints_lines_registers_and_the_way_to_the_end(served: Callable[..., Served]) -> None:
    run = served("hello")
    said = run.gdb(
        "break print_done", "continue", "info source", "p $rip", "p $al", "bt", "delete", "stepi", "info line *$rip",
        "p/x $cr3", "p/x $efer", "p $mxcsr", "continue",
    )  # fmt: skip
    assert "Breakpoint 1, print_done () at" in said
    assert "console.inc:" in said
    assert "#1  0x000000000002000c in start () at" in said
    assert 'hello.asm" starts at address 0x2000c' in said
    assert "$3 = 0xa000" in said
    assert "$4 = 0xd01" in said
    assert "[ IM DM ZM OM UM PM ]" in said
    assert "exited normally" in said
    status, out = run.end()
    assert status == 0
    assert "Hello from ring 0" in out


@needs_gdb
def test_every_kind_of_register_is_written_and_read_back(served: Callable[..., Served]) -> None:
    run = served("hello")
    values = {
        "$rbx": "0x1122334455667788", "$eflags": "0x46", "$xmm3.v4_int32[2]": "0x7", "$dr1": "0x1234",
        "$cr2": "0xabc000",
        "$fs_base": "0x5000", "$mxcsr": "0x1fa0", "$ds": "0x10", "$fctrl": "0x27f", "$ldt": "0x0", "$cr8": "0x3",
    }  # fmt: skip
    said = run.gdb(
        *(f"set {name} = {value}" for name, value in values.items()), "set $st3 = 1.5",
        "maintenance flush register-cache", *(f"p/x {name}" for name in values), "p $st3", "info registers ftag",
        "kill",
    )  # fmt: skip
    got = re.findall(r"^\$\d+ = (\S+)$", said, re.M)
    assert got == [*values.values(), "1.5"]


@needs_gdb
def test_two_vcpus_are_two_threads(served: Callable[..., Served]) -> None:
    run = served("smp", "--cpus", "2")
    said = run.gdb(
        "info threads", "break add_one if $rcx == 500", "continue", "p $rcx", "delete", "thread 1", "set $one = $rip",
        "thread 2", "set $two = $rip", "set scheduler-locking on", "stepi", "stepi", "p $rip != $two", "thread 1",
        "p $rip == $one", "set scheduler-locking off", "break wait", "continue", "info threads", "delete", "continue",
    )  # fmt: skip
    assert 'Thread 1 "vCPU 0"' in said
    assert 'Thread 2 "vCPU 1"' in said
    assert re.findall(r"^\$\d = (\d+)$", said, re.M) == ["500", "1", "1"]
    assert re.search(r"vCPU 0.*wait \(\)", said)
    assert "exited normally" in said
    status, out = run.end()
    assert status == 0
    assert "0x7d0 (2000)" in out


@needs_gdb
def test_an_endless_loop_is_interrupted_and_let_out_by_a_write(served: Callable[..., Served], endless: str) -> None:
    run = served(endless)
    script = run.script(
        "echo ready\\n", "continue", "p $rbx == *(int*)$rdi || $rbx == *(int*)$rdi + 1",
        "set *(int*)($rdi + 8) = 0x600d", "continue",
    )  # fmt: skip
    client = subprocess.Popen(
        script, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    )
    assert client.stdout is not None
    before = "".join(iter(client.stdout.readline, "ready\n"))
    time.sleep(1)  # `continue` was its next command
    os.kill(client.pid, signal.SIGINT)
    said = before + client.communicate(timeout=LIMIT)[0]
    assert "received signal SIGINT" in said
    assert "$1 = 1" in said
    assert "exited normally" in said
    assert run.end()[0] == 0


@needs_gdb
def test_detach_lets_it_go_on_and_another_client_finds_it(served: Callable[..., Served], endless: str) -> None:
    run = served(endless, "--timeout", "50")
    first = run.gdb("break round", "continue", "p $rbx", "continue", "p $rbx", "detach")
    assert "$1 = 0" in first
    assert "$2 = 1" in first
    second = run.gdb("p $rbx > 1", "set *(int*)($rdi + 8) = 0x600d", "continue")
    assert "$1 = 1" in second
    assert "exited normally" in second
    assert run.end()[0] == 0


@needs_gdb
def test_a_client_comes_while_the_guest_runs(served: Callable[..., Served], endless: str) -> None:
    run = served(endless, "--timeout", "50", wait=False)
    assert run.run.stdout is not None
    assert run.run.stdout.readline() == "\n"
    said = run.gdb("p $rbx > 0", "set *(int*)($rdi + 8) = 0x600d", "detach")
    assert "$1 = 1" in said
    assert run.end()[0] == 0


@needs_gdb
def test_without_a_client_the_time_limit_counts_and_with_one_it_does_not(
    served: Callable[..., Served], tmp_path: Path
) -> None:
    file = tmp_path / "endless.asm"
    file.write_text("; machine: timeout=0.5\n" + ENDLESS, encoding="utf-8")
    run = served(str(file), wait=True)
    said = run.gdb("stepi", "python import time; time.sleep(0.7)", "stepi", "p 6 * 7", "detach")
    assert "$1 = 42" in said
    status, out = run.end()
    assert status == 124
    assert "time limit" in out


@needs_gdb
def test_a_condition_is_looked_at_by_the_server(served: Callable[..., Served], endless: str) -> None:
    """No stop is told but the one that counts; of what gdb cannot compile, it looks itself."""
    run = served(endless)
    said = run.gdb(
        "break round if $rbx == 300", "set debug remote 1", "continue", "set debug remote 0", "p $rbx",
        "condition 1 *(int *)0xa0000 == 305 && $eax != 1", "continue", "p $rbx", "kill",
    )  # fmt: skip
    assert re.findall(r"^\$\d = (\d+)$", said, re.M) == ["300", "305"]
    assert len(re.findall(r"Packet received: T05", said)) <= 2


WATCHED = """
%include "results.inc"
start:
    mov   ecx, 3
again:
    mov   eax, dword ptr [counter]
    inc   eax
    mov   dword ptr [counter], eax
    dec   ecx
    jnz   again
    PASS
.balign 8
counter: .quad 5
"""


@needs_gdb
def test_a_variable_is_watched_for_reads_accesses_and_writes(served: Callable[..., Served], tmp_path: Path) -> None:
    """By debug registers, or where they never strike by steps, which gdb is told."""
    (tmp_path / "watched.asm").write_text(WATCHED, encoding="utf-8")
    run = served(str(tmp_path / "watched.asm"))
    each = "*(int*)&counter"
    said = run.gdb(
        f"rwatch {each}", "c", "c", "delete", f"awatch {each}", "c", "c", "delete", f"watch {each}", "c", "delete", "c"
    )
    values = re.findall(r"^(Value|Old value|New value) = (\d)$", said, re.M)
    assert values == [
        ("Value", "5"), ("Value", "6"), ("Old value", "6"), ("New value", "7"), ("Value", "7"), ("Old value", "7"),
        ("New value", "8"),
    ]  # fmt: skip
    assert run.end()[0] == 0


@needs_gdb
def test_a_gdb_that_is_killed_leaves_nothing_and_the_next_one_finds_the_guest(
    served: Callable[..., Served], endless: str
) -> None:
    """While its guest runs, and while it stands still with breakpoints set."""
    run = served(endless)
    files: list[int] = []
    for commands in (("continue",), ("break round", "watch *(int *)0xa0000"), ("break round if $rbx == 0", "continue")):
        gdb = subprocess.Popen(
            run.script("p 6 * 7", *commands, "python import time; time.sleep(60)"),
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert gdb.stdout is not None
        assert any("$1 = 42" in line for line in gdb.stdout)
        time.sleep(0.3)
        gdb.kill()
        gdb.communicate()
        said = run.gdb("x/i &round", "p $rbx > 0", "info breakpoints", "detach")
        assert "inc" in said
        assert "No breakpoints" in said
        files.append(sum(1 for _ in Path(f"/proc/{run.run.pid}/fd").iterdir()))
    assert files[0] >= files[-1]
    run.gdb("set *(int*)(0xa0000 + 8) = 0x600d", "detach")
    assert run.end()[0] == 0


@needs_gdb
def test_kill_ends_the_run_and_says_so(served: Callable[..., Served], endless: str) -> None:
    run = served(endless)
    run.gdb("stepi", "kill")
    _, out = run.end()
    assert "ended by the debugger" in out


@needs_gdb
def test_run_in_extended_remote_starts_the_payload_anew(served: Callable[..., Served]) -> None:
    """From a breakpoint, after the guest's end, after `kill`: its host half too, which would find 4000 in all else."""
    run = served("smp", "--cpus", "2")
    said = run.gdb(
        "break add_one", "continue", "p $rcx", "run", "p $rcx", "delete", "continue", "run", "starti", "p/x $rip",
        "kill", "info threads", "run with-an-argument", "p 7", "set args", "run",
        target="extended-remote",
    )  # fmt: skip
    assert said.count("Breakpoint 1, add_one") == 2
    assert re.findall(r"^\$\d = (\S+)$", said, re.M) == ["1000", "1000", "0x20000", "7"]
    assert "No threads" in said
    assert "Running the default executable on the remote target failed" in said
    assert said.count("exited normally") == 3
    for wrong in ("reset", "Remote", "closed", "Protocol"):
        assert wrong not in said.replace("(Remote target)", "").replace("Reading", "")
    status, out = run.end()
    assert status == 0
    assert "0x7d0 (2000)" in out
    assert out.count("gdb: the guest is started anew") == 4
    assert "gdb: it is killed" in out
    assert "takes no arguments" in out


@needs_gdb
def test_ring3_and_back(served: Callable[..., Served]) -> None:
    run = served("ring3")
    said = run.gdb(
        "break report_privilege", "continue", "p/x $rsi", "p $cs & 3", "stepi 11", "info symbol $rip", "p $cs & 3",
        "stepi 4", "info symbol $rip", "break finish", "continue", "p/x $rdi", "c",
    )  # fmt: skip
    assert "Breakpoint 1, report_privilege" in said
    assert re.findall(r"^\$\d = (\S+)$", said, re.M) == ["0x1234", "0", "3", "0x600d"]
    assert "back in section" in said
    assert "general_protection in section" in said
    assert "Breakpoint 2, finish" in said
    status, out = run.end()
    assert status == 0, out


FAULTY = """
%include "results.inc"
%include "idt.inc"
start:
    mov   edi, 6
    lea   rsi, [rip + on_ud]
    call  set_gate
wrong:
    ud2
on_ud:
    nop
    nop
    PASS
"""


@needs_gdb
def test_gdb_is_told_of_a_step_that_was_more_than_one(served: Callable[..., Served], tmp_path: Path) -> None:
    (tmp_path / "faulty.asm").write_text(FAULTY, encoding="utf-8")
    run = served(str(tmp_path / "faulty.asm"))
    said = run.gdb("break wrong", "continue", "stepi", "p $rip == &on_ud", "continue")
    assert "$1 = 1" in said or "pyvmm: more than one instruction: it took an exception" in said
    assert run.end()[0] == 0


@needs_gdb
def test_monitor_commands(served: Callable[..., Served]) -> None:
    run = served("pio")
    said = run.gdb(
        "monitor help", "monitor map", "monitor translate $rip", "monitor phys 0x20000 16", "monitor phys $pc 7",
        "monitor msr EFER",
        "monitor msr 0xc0000080", "monitor devices", "monitor vcpus", "monitor can", "monitor nonsense", "monitor phys",
        "monitor catch exit PortOut", "continue", "monitor exits", "monitor breaks", "monitor delete 1",
        "set $r15 = 99",
        "monitor reset", "maintenance flush register-cache", "p $r15", "p/x $rip", "continue",
    )  # fmt: skip
    assert "translate   ADDRESS" in said
    assert len(re.findall(r"0x0000020000  [0-9a-f]{2} ", said)) == 2
    assert "memslot 0: 0x0" in said
    assert "PTE" in said
    assert "(0xc0000080) = 0xd01" in said
    assert "debug console" in said
    assert "no monitor command is called 'nonsense'" in said
    assert "phys ADDRESS [BYTES]" in said
    assert "caught exit PortOut" in said or "catch 1 at exit PortOut" in said
    assert "$1 = 0" in said
    assert "$2 = 0x20000" in said
    assert run.end()[0] == 0


@needs_gdb
def test_what_a_monitor_command_has_set_stops_a_client_that_knows_nothing_of_it(served: Callable[..., Served]) -> None:
    """gdb goes on, without a word, from a breakpoint or watchpoint that is reported as one of its own and is none."""
    run = served("smp", "--cpus", "1")
    said = run.gdb(
        "monitor break add_one if rcx == 998", "continue", "p $rcx", "monitor delete 1",
        "monitor watch 0xa0040", "continue", "p *(long *)0xa0040", "watch *(long *)0xa0000", "monitor delete 2",
        "continue",
    )  # fmt: skip
    assert "pyvmm: breakpoint 1 at add_one if rcx == 998" in said
    assert "pyvmm: watchpoint 2 at 0xa0040, 8 bytes" in said
    assert said.count("SIGTRAP") == 2
    assert "$1 = 998" in said
    assert "$2 = 3" in said
    assert "Hardware watchpoint 1: *(long *)0xa0000" in said
    assert "pyvmm: watchpoint 3" not in said, "gdb has its own numbers"
    assert "New value = 1" in said


@needs_gdb
def test_memory_that_is_not_there_is_an_error_and_no_end(served: Callable[..., Served]) -> None:
    run = served("hello")
    said = run.gdb("x/4x 0x7fff00000000", "x/2x -8", "break *0x7fff00000000", "continue")
    assert said.count("Cannot access memory at address 0x7fff00000000") >= 1
    run.gdb("detach")


@needs_gdb
def test_a_page_that_the_host_has_not_supplied_yet_is_an_error_and_no_end(served: Callable[..., Served]) -> None:
    if not userfaultfd.probe().kernel_faults:
        pytest.skip("no userfaultfd for faults of the kernel")
    run = served("demand_paging")
    said = run.gdb("x/4x 0x40005000", "monitor phys 0x40005000", "set *(int *)0x40005000 = 7", "continue")
    assert said.count("Cannot access memory at address 0x40005000") == 2
    assert "the page at 0x40005000 is supplied on demand" in said
    assert "exited normally" in said
    assert run.end()[0] == 0


@needs_gdb
def test_more_breakpoints_than_debug_registers(served: Callable[..., Served]) -> None:
    run = served("smp", "--cpus", "1")
    said = run.gdb(
        *(f"break *0x20000 + {offset}" for offset in (0x2, 0x8, 0xe, 0x17, 0x19, 0x1b)), "continue", "x/2i 0x2000e",
        "continue", "delete", "continue",
    )  # fmt: skip
    assert "hit" in said or "Breakpoint" in said
    assert "int3" not in said
    assert "exited normally" in said
    assert run.end()[0] == 0


@needs_gdb
def test_a_crash_is_looked_at_before_the_run_ends(served: Callable[..., Served]) -> None:
    run = served("triple")
    said = run.gdb("continue", "p/x $rip", "x/i $rip", "continue")
    assert "SIGSEGV" in said
    assert "triple fault" in said
    assert "$1 = 0x" in said
    run.end()


@needs_gdb
def test_a_payload_that_runs_its_guests_many_times_is_held_each_time(served: Callable[..., Served]) -> None:
    run = served("memslots")
    said = run.gdb("stepi", "continue")
    assert "the run has ended" in said
    assert "exited normally" in said
    assert run.end()[0] == 0


@needs_gdb
@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_guest_in_c_with_its_symbols(served: Callable[..., Served], tmp_path: Path) -> None:
    file = tmp_path / "sum.c"
    file.write_text(
        '#include "pyvmm.h"\n'
        "static volatile int total;\n"
        "__attribute__((noinline)) int add(int a, int b) { return a + b; }\n"
        "int main(void) {\n"
        "    for (int i = 1; i <= 4; i++)\n"
        "        total = add(total, i);\n"
        "    return total == 10 ? 0 : 1;\n"
        "}\n",
        encoding="utf-8",
    )
    run = served(str(file))
    said = run.gdb("break add", "continue", "info args", "bt", "finish", "p total", "delete", "break sum.c:7",
                   "continue",
                   "p total", "delete", "continue")  # fmt: skip
    assert re.search(r"Breakpoint 1, add \(a=.*, b=(b@entry=)?1\) at .*sum.c:3", said), said
    assert re.search(r"#1 .* main .*sum.c:6", said), said
    assert "$3 = 10" in said or "$2 = 10" in said
    assert run.end()[0] == 0
