# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm run` as a stranger uses and misuses it, on the real device; as a process where pipes, signals and exit
statuses matter.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from vmm import report
from vmm.abi import caps, cpuid
from vmm.asm import cache
from vmm.cli import main
from vmm.errors import KvmCallError
from vmm.kvm.plain import NotPlain, PlainVm
from vmm.kvm.system import Kvm
from vmm.machine.memory.layout import REGIONS
from vmm.machine.x86.cpuid import CpuidModel

ROOT = Path(__file__).resolve().parents[2]
PYVMM = [sys.executable, "-m", "vmm"]
SCHEMA = json.loads((Path(report.__file__).parent / "schemas" / "run.schema.json").read_text(encoding="utf-8"))
PATIENCE = 90.0  # for a process on a loaded machine; nothing is measured by it
ESCAPE = "\x1b"

READY = """
start:
    lea   rsi, [rip + text]
    call  print
here:
    jmp   here
text:
    .asciz "ready\\n"
%include "console.inc"
"""
ENDLESS_OUTPUT = """
start:
    cld
    mov   edx, 0xe9
    lea   rsi, [rip + start]
    mov   rcx, 0x80000000                 ; 2 GiB
again:
    push  rsi
    push  rcx
    mov   ecx, 64
    rep   outsb
    pop   rcx
    pop   rsi
    sub   rcx, 64
    jnz   again
    hlt
"""


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def pyvmm(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PYVMM, *words], capture_output=True, text=True, timeout=PATIENCE, check=False, **options)


@contextlib.contextmanager
def started(*words: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    # Not by coverage: ^C is what most of them are started for (tests/conftest.py, uncovered).
    environment = options.pop("env", os.environ)
    options["env"] = {name: value for name, value in environment.items() if not name.startswith("COV")}
    with subprocess.Popen([*PYVMM, *words], **options) as process:
        try:
            yield process
        finally:
            process.kill()


def document(text: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(text)
    jsonschema.validate(made, SCHEMA, cls=jsonschema.Draft202012Validator)
    return made


@pytest.fixture
def source(tmp_path: Path) -> Any:
    def write(text: str, name: str = "own.asm") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """`main(["run", ...])` in this process: (status, standard output, standard error)."""

    def call(*words: str) -> tuple[int, str, str]:
        status = main(["run", *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


# As it is meant ----------------------------------------------------------------------------------------------------


def test_hello() -> None:
    done = pyvmm("run", "hello")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        r"Hello from ring 0 of a virtual machine\.\npass  hello  \d+ exits \(.*\), [\d.]+ ms\n", done.stdout
    )


@pytest.mark.parametrize(
    ("words", "status", "last"),
    [
        (["hlt"], 0, "pass  hlt"),
        (["triple"], 1, "fail  triple"),
        (["spin", "--timeout", "0.2"], 124, "timeout  spin"),
        (["storm", "--output-limit", "1K"], 1, "fail  storm"),
        (["pio", "--exit-limit", "3"], 1, "fail  pio"),
        (["smp", "--cpus", "4", "--param", "rounds=100"], 0, "pass  smp"),
        (["hello", "--memory", "64M", "--strict", "--mask", "STEAL_TIME", "--expose", "avx2"], 0, "pass  hello"),
    ],
)
def test_status_and_last_line(words: list[str], status: int, last: str, run: Any) -> None:
    got, out, err = run(*words)
    assert (got, err) == (status, "")
    assert out.splitlines()[-1].startswith(last)
    assert ESCAPE not in out


def test_own_assembly_with_shared_files(source: Any) -> None:
    path = source('%include "results.inc"\nstart:\n lea rsi, [rip+t]\n call print\n PASS\nt: .asciz "mine"\n'
                  '%include "console.inc"\n')  # fmt: skip
    done = pyvmm("run", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("mine\npass  own  "), "the closing line starts on a line of its own"


def test_own_assembly_from_its_own_folder(source: Any) -> None:
    path = Path(source("start: hlt\n"))
    assert pyvmm("run", path.name, cwd=path.parent).returncode == 0


def test_own_binary(tmp_path: Path, uncovered: dict[str, str]) -> None:
    path = tmp_path / "code.bin"
    path.write_bytes(b"\xb0\x41\xe6\xe9\x31\xc0\xe6\xf4")  # mov al,'A'; out 0xe9,al; xor eax,eax; out 0xf4,al
    done = pyvmm("run", str(path), env=uncovered)  # which writes no file: it is in a sandbox
    assert (done.returncode, done.stdout.partition("\n")[0], done.stderr) == (0, "A", "")


# JSON --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "outcome", "status"),
    [
        (["pio"], "pass", 0),
        (["cpuid"], "pass", 0),
        (["triple"], "fail", 1),
        (["spin", "--timeout", "0.2"], "timeout", 124),
        (["spin", "--timeout", "0.2", "--cpus", "3"], "timeout", 124),
        (["storm", "--output-limit", "100"], "fail", 1),
        (["mmio", "--strict"], "fail", 1),
        (["pio", "--exit-limit", "3"], "fail", 1),
        (["ring3", "--exit-limit", "1"], "fail", 1),
    ],
)
def test_json_of_every_outcome(words: list[str], outcome: str, status: int, run: Any) -> None:
    got, out, err = run(*words, "--json")
    made = document(out)
    assert (made["outcome"], made["exit_code"], got, err) == (outcome, status, status, "")
    assert (made["postmortem"] is None) == (outcome == "pass")
    assert made["payload"] == words[0]
    assert ESCAPE not in out


def test_json_is_all_of_the_output() -> None:
    done = pyvmm("run", "hello", "--json")
    made = document(done.stdout)
    assert made["console"] == "Hello from ring 0 of a virtual machine.\n"
    assert made["exits"]["PortOut"] >= 1


def test_json_and_bad_usage() -> None:
    done = pyvmm("run", "helo", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("pyvmm: no payload is called 'helo'; did you mean hello")


def absent_capability() -> str:
    with Kvm.open() as kvm:
        return next((row.name for row in caps.CAPS if not kvm.check_extension(row.name)), "")


def absent_feature() -> str:
    with Kvm.open() as kvm:
        offered = CpuidModel(kvm.get_supported_cpuid())
    return next((name for name in cpuid.features() if not offered.has(name)), "")


@pytest.mark.parametrize("kind", ["capability", "feature", "cpus"])
def test_what_the_host_lacks_is_a_skip_with_its_name(kind: str, source: Any, run: Any) -> None:
    capability, feature = absent_capability(), absent_feature()
    need, said = {
        "capability": (f"KVM_CAP_{capability}", rf"lacks KVM_CAP_{capability} \(\d+\), which payload own needs"),
        "feature": (feature, f"does not offer {feature}, which payload own needs"),
        "cpus": ("cpus>=9999", r"needs 9999 host CPUs, and \d+ can be used"),
    }[kind]  # fmt: skip
    path = source(f"; needs: {need}\nstart: hlt\n")
    status, out, err = run(path)
    assert (status, err) == (77, "")
    assert re.search(said, out)
    assert len(out.splitlines()) == 1
    status, out, err = run(path, "--json")
    made = document(out)
    assert (status, made["outcome"], made["exit_code"]) == (77, "skip", 77)
    assert re.search(said, made["reason"])


# Bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hello", "--memory", "0"], "memory of 0 is too small"),
        (["hello", "--memory", "4097"], "memory of 4097 is too small"),
        (["hello", "--memory", "2097153"], "not a whole number of 4 KiB pages"),
        (["hello", "--memory", "1T"], "memory of 1T is too large"),
        (["hello", "--memory", "abc"], "'abc' is not a size"),
        (["hello", "--memory", "-1"], "expected one argument|'-1' is not a size"),
        (["hello", "--memory", ""], "'' is not a size"),
        (["cpuid", "--memory", "2M"], "payload cpuid needs 4M of memory, and --memory gives it 2M"),
        (["hello", "--cpus", "5000"], "5000 vCPUs: a machine has 1 to"),
        (["hello", "--mask", "STEAL_TME"], "no CPUID feature is called .*did you mean STEAL_TIME"),
        (["hello", "--expose", "nonsense"], "no CPUID feature is called 'nonsense'"),
        (["hello", "--param", "a=1"], "hello takes no parameters"),
        (["smp", "--param", "round=1"], "did you mean rounds"),
        (["smp", "--param", "rounds=0x100000000"], r"smp.asm:\d+:\d+: mov would come out as"),
        (["pio", "--param", "port=0xf4"], "overlaps exit port"),
        (["pio", "--param", "port=-1"], "addresses go from 0x0 to 0xffff"),
    ],
)
def test_bad_options(words: list[str], said: str, run: Any) -> None:
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert re.search(said, err)
    assert err.startswith("pyvmm: ")
    assert "Traceback" not in err
    assert all(line.startswith("  ") for line in err.splitlines()[1:]), (
        "one line, and perhaps what to try or the source below it"
    )


def test_more_vcpus_than_this_kvm_has(run: Any) -> None:
    """Up to a thousand is a question to KVM: it starts them, or the message says which one it refused."""
    status, _, err = run("hello", "--cpus", "1020", "--memory", "64M")
    assert status in (0, 99)
    assert (status == 0) == (err == "")
    assert "Traceback" not in err


def test_syntax_error_has_file_line_column_and_text(source: Any) -> None:
    path = source("; summary: wrong\nstart:\n    mov   eax, [rip\n")
    done = pyvmm("run", path)
    assert (done.returncode, done.stdout) == (2, "")
    head, text, caret = done.stderr.splitlines()
    assert re.match(rf"pyvmm: {re.escape(path)}:3:\d+: ", head)
    assert text == "      mov   eax, [rip"
    column = int(head.split(":")[3])
    assert caret == "  " + " " * (column - 1) + "^"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("; user: a b\nstart: hlt\n", "user: no label 'a' in the source"),
        ("; user: a b\n.p2align 12\na: hlt\nb: nop\n", "page|4096|aligned"),
        ("; needs: KVM_CAP_NO\n hlt\n", ":1: needs: no capability is called 'NO'"),
        ("; machine: cpus=0\n hlt\n", ":1: 0 vCPUs"),
        ("; summary: nothing else\n", "no instruction in it"),
        ("start: jmp nowhere\n", r":1:\d+: .*nowhere"),
        ('%include "nothing"\n', "include file 'nothing' not found"),
        ("start: .skip 0x70000\n hlt\n", "do not fit|too large|too long"),
    ],
)
def test_wrong_source(text: str, said: str, source: Any, run: Any) -> None:
    status, out, err = run(source(text))
    assert (status, out) == (2, "")
    assert re.search(said, err), err


def test_flat_binary_larger_than_its_region(tmp_path: Path, run: Any) -> None:
    path = tmp_path / "big.bin"
    path.write_bytes(bytes(REGIONS["code"].size + 1))
    status, out, err = run(str(path))
    assert (status, out) == (2, "")
    assert f"a raw payload has at most {REGIONS['code'].size} bytes" in err


def closed_kvm(monkeypatch: pytest.MonkeyPatch, **errors: Any) -> None:
    real = Kvm.open.__func__  # type: ignore[attr-defined]
    path = errors.get("path", "/dev/kvm")

    def open_(cls: type[Kvm], ignored: str = "") -> Kvm:
        if "errno" in errors:
            raise KvmCallError("open", errors["errno"], "opening /dev/kvm")
        made: Kvm = real(cls, str(path))
        return made

    monkeypatch.setattr(Kvm, "open", classmethod(open_))
    not_in_one_call(monkeypatch)


def not_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """C cannot make a plain machine here; whoever wants one hears why from the other way."""

    def refuse(*_: object) -> None:
        raise NotPlain

    monkeypatch.setattr(PlainVm, "__init__", refuse)


def test_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    closed_kvm(monkeypatch, path=tmp_path / "kvm")
    status, out, err = run("hello", "--json")
    assert (status, out) == (99, "")
    assert err.startswith(f"pyvmm: opening {tmp_path}/kvm: open: No such file or directory (ENOENT)\n  try: ")


def test_no_permission(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    closed_kvm(monkeypatch, errno=13)  # root is refused nothing, so the refusal is made up
    status, out, err = run("hello")
    assert (status, out) == (99, "")
    assert "Permission denied (EACCES)\n  try: " in err  # the advice is of the node here: tests of vmm.host.unusable


@pytest.mark.parametrize("kind", ["file", "null"])
def test_a_device_that_is_not_kvm(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    path = tmp_path / "kvm" if kind == "file" else Path("/dev/null")
    if kind == "file":
        path.write_text("")
    closed_kvm(monkeypatch, path=path)
    status, out, err = run("hello")
    assert (status, out) == (99, "")
    assert f"{path} is not KVM" in err


def test_wrong_api_version(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    monkeypatch.setattr(Kvm, "get_api_version", lambda self: 11)
    not_in_one_call(monkeypatch)
    status, out, err = run("hello")
    assert (status, out) == (99, "")
    assert "speaks KVM API version 11, and pyvmm needs 12" in err


# Outside RAM -------------------------------------------------------------------------------------------------------

OUTSIDE = "start:\n mov ebx, 0x10000000\n {}\n hlt\n"


@pytest.mark.parametrize(
    "access", ["mov eax, dword ptr [rbx]", "mov dword ptr [rbx], eax", "in al, 0x70", "out 0x70, al"]
)
def test_access_that_nobody_claims(access: str, source: Any, run: Any) -> None:
    path = source(OUTSIDE.format(access))
    status, out, _ = run(path)
    assert status == 0
    assert "  1 access that no device claims" in out
    status, out, _ = run(path, "--strict")
    assert status == 1
    assert "post-mortem: " in out
    assert "start+" in out
    assert "RIP is behind the access" in out
    before, here = re.findall(r"^.*0x2000[57]  .*$", out, re.M)[:2]
    assert access.partition(" ")[0] in before
    assert here.lstrip().startswith("->")


def test_jump_outside_ram_ends_with_a_postmortem(source: Any, run: Any) -> None:
    status, out, err = run(source("start:\n mov eax, 0x10000000\n jmp rax\n"), "--timeout", "2")
    assert (status in (1, 124), err) == (True, "")
    assert "post-mortem: " in out


@pytest.mark.parametrize("address", ["0x0", "0xff000", "0x8000000000000000", "0xffffffff80000000"])
def test_wild_pointers_end_with_a_postmortem(address: str, source: Any, run: Any) -> None:
    status, out, err = run(source(f"start:\n mov rbx, {address}\n mov al, byte ptr [rbx]\n hlt\n"))
    assert (status, err) == (1, "")
    assert re.search(r"exception +#(PF|GP)", out)
    assert "at 0x" in out


# Hostile guests ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_garbage_ends_with_a_postmortem(seed: int, tmp_path: Path, run: Any) -> None:
    path = tmp_path / "garbage.bin"
    path.write_bytes(random.Random(seed).randbytes(4096))
    begin = time.monotonic()
    status, out, err = run(str(path), "--timeout", "0.3", "--json")
    took = time.monotonic() - begin
    made = document(out)
    assert (status, err) == (made["exit_code"], "")
    assert made["outcome"] in ("fail", "timeout")
    assert made["postmortem"]["vcpus"][0]["registers"]
    assert took < 30
    status, out, err = run(str(path), "--timeout", "0.3")
    assert "post-mortem: " in out


@pytest.mark.parametrize("code", [b"\x0f\x01\xc1\xf4", b"\x0f\x01\xd9\xf4"], ids=["vmcall", "vmmcall"])
def test_a_bare_hypercall_ends(code: bytes, tmp_path: Path, run: Any) -> None:
    path = tmp_path / "call.bin"
    path.write_bytes(code)
    status, out, err = run(str(path), "--timeout", "0.4")
    assert (status in (0, 1, 124), err) == (True, "")  # answered, #UD, or re-executed inside KVM for ever
    if status == 124:
        assert "RIP is at a hypercall instruction" in out


def memory_high_water(pid: int) -> int:
    """Bytes; of this program, not of the one that started it."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10
    return 0


@pytest.mark.parametrize("json_too", [False, True])
def test_two_gib_of_output_stay_bounded(json_too: bool, source: Any) -> None:
    words = ["run", source(ENDLESS_OUTPUT), "--output-limit", "128K", "--timeout", "60", *["--json"] * json_too]
    highest = 0
    with started(*words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        begin = time.monotonic()
        while process.poll() is None and time.monotonic() - begin < PATIENCE:
            highest = max(highest, memory_high_water(process.pid))
            time.sleep(0.01)
        assert process.stderr
        assert (process.returncode, process.stderr.read()) == (1, b"")
    assert 0 < highest < 200 << 20


def test_two_gib_of_output_meet_the_time_limit_too(source: Any, run: Any) -> None:
    status, out, _ = run(source(ENDLESS_OUTPUT), "--output-limit", "1G", "--timeout", "0.3")
    assert status == 124
    assert out.splitlines()[-1].startswith("timeout  own")


# Pipes, files and terminals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [("run", "storm"), ("run", "spin", "--json"), ("list",), ("disasm", "faults")])
def test_a_reader_that_goes_away_is_no_news(words: tuple[str, ...]) -> None:
    with started(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout
        assert process.stderr
        if words == ("run", "storm"):
            assert process.stdout.read(1) == b"A"
        process.stdout.close()
        assert process.wait(PATIENCE) in (0, 141), "0: all was written before it went away"
        assert process.stderr.read() == b""


@pytest.mark.parametrize("words", [("run", "hello"), ("run", "hello", "--json"), ("list",), ("disasm", "hello")])
def test_output_that_is_full(words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PYVMM, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 99
    assert done.stderr == "pyvmm: writing the output: No space left on device (ENOSPC)\n"


@pytest.mark.parametrize("words", ["run hello", "run hello --json", "list", "--help"])
def test_output_that_is_closed(words: str) -> None:
    command = f"exec {sys.executable} -m vmm {words} >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[0]) == (99, "pyvmm: standard output is closed")
    assert len(done.stderr.splitlines()) == 2


def test_standard_error_that_is_closed() -> None:
    command = f"exec {sys.executable} -m vmm run helo 2>&-"
    done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    command = f"exec {sys.executable} -m vmm run hello 2>&-"
    done = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 0
    assert "pass  hello" in done.stdout


def test_an_encoding_that_lacks_the_guests_characters(source: Any) -> None:
    path = source("start:\n mov al, 0xc3\n out 0xe9, al\n mov al, 0xa9\n out 0xe9, al\n hlt\n", "é.asm")
    done = pyvmm("run", path, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("\\xe9\npass  \\xe9  ")


def on_a_terminal(*words: str, **environment: str) -> str:
    """What the command writes to a terminal."""
    here, there = pty.openpty()
    with started(*words, stdout=there, stderr=there, env=os.environ | {"TERM": "xterm"} | environment) as process:
        os.close(there)
        text = b""
        with contextlib.suppress(OSError):  # EIO: the last writer has gone
            while data := os.read(here, 4096):
                text += data
        process.wait(PATIENCE)
    os.close(here)
    return text.decode()


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[32mpass\x1b[0m" in on_a_terminal("run", "hlt")
    assert ESCAPE not in on_a_terminal("run", "hlt", "--no-color")
    assert ESCAPE not in on_a_terminal("run", "hlt", NO_COLOR="1")


def test_a_guest_cannot_move_the_cursor_of_a_terminal(source: Any) -> None:
    path = source('start:\n lea rsi, [rip+t]\n call print\n hlt\nt: .byte 0x1b\n .asciz "[2Jcleared?"\n'
                  '%include "console.inc"\n')  # fmt: skip
    assert "\\x1b[2Jcleared?" in on_a_terminal("run", path, "--no-color")
    assert pyvmm("run", path).stdout.startswith("\x1b[2Jcleared?"), "a file gets what the guest wrote"


# Signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpus", ["1", "3"])
def test_interrupt(cpus: str, source: Any) -> None:
    words = ("run", source(READY), "--timeout", "60", "--cpus", cpus)
    with started(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"ready\n"
        begin = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 130
        assert time.monotonic() - begin < 20, "not the time limit of the guest"
        assert process.stderr.read() == b"pyvmm: interrupted\n"


def test_terminate_ends_it_at_once(source: Any) -> None:
    words = ("run", source(READY), "--timeout", "60")
    with started(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM
        assert process.stderr.read() == b""


# The cache ---------------------------------------------------------------------------------------------------------


def test_a_cache_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = pyvmm("run", "hello", env=os.environ | {"PYVMM_CACHE": str(tmp_path / "file" / "below")})
    assert done.returncode == 0
    assert done.stdout.startswith("Hello")
    said = r"pyvmm: the assembler's cache cannot be written \(.*Not a directory.*\); set PYVMM_CACHE .*\n"
    assert re.fullmatch(said, done.stderr)


def test_a_full_disk_under_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    def full(temporary: str, _name: str) -> None:
        raise OSError(28, "No space left on device", temporary)

    monkeypatch.setenv("PYVMM_CACHE", str(tmp_path))
    monkeypatch.setattr(cache, "notice", None)
    monkeypatch.setattr(os, "replace", full)
    status, out, err = run("hlt")
    assert (status, out.startswith("  reached  1")) == (0, True)
    assert err.startswith("pyvmm: the assembler's cache cannot be written ([Errno 28] No space left on device")
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
    assert run("hlt")[2] == "", "it is said once"


def test_a_cache_that_was_damaged(tmp_path: Path) -> None:
    environment = os.environ | {"PYVMM_CACHE": str(tmp_path)}
    assert pyvmm("run", "hello", env=environment).returncode == 0
    (entry,) = tmp_path.glob("*.asm")
    entry.write_bytes(entry.read_bytes()[:-7] + b"garbage")
    done = pyvmm("run", "hello", env=environment)
    assert (done.returncode, done.stderr) == (0, "")


# Start-up ----------------------------------------------------------------------------------------------------------

HEAVY = ("keystone", "capstone", "rich", "matplotlib", "asyncio", "importlib.metadata", "json", "logging", "subprocess")
# vmm/base/light.py stands in for some of these; a run without options has no use for the others.
OF_THE_LIBRARY = (
    "typing", "enum", "re", "collections", "functools", "threading", "queue", "contextlib", "dataclasses", "pathlib",
    "argparse", "warnings", "importlib",
)  # fmt: skip


def test_a_cached_payload_needs_none_of_the_heavy_modules(tmp_path: Path) -> None:
    program = (
        "import sys\nbefore = set(sys.modules)\nfrom vmm.cli import main\nmain(['run', 'hello'])\n"
        "print(*(set(sys.modules) - before), file=sys.stderr)"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment["PYVMM_CACHE"] = str(tmp_path)
    first, second = (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
        for _ in range(2)
    )
    assert {"keystone", "vmm.cli.run"} <= set(first.stderr.split()), "the first run assembled: the test can tell"
    imported = second.stderr.split()
    assert "vmm.cli.run" in imported
    assert [name for name in imported if name in HEAVY + OF_THE_LIBRARY] == []


def test_the_process_ends_early_only_where_nobody_waits_for_its_end() -> None:
    """`command` leaves by os._exit, which skips what is registered for the interpreter's own end."""
    start = (
        "import os, sys\nfrom vmm.cli import command\nsys.argv = ['pyvmm', 'run', 'hello']\nleave = os._exit\n"
        "os._exit = lambda status: (print('early', flush=True), leave(status))\n"
    )

    def ran(program: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
        done = subprocess.run(
            [sys.executable, "-c", start + program], capture_output=True, text=True, check=True, env=environment
        )
        assert done.stdout.startswith("Hello")
        return done.stdout

    ran("command()")  # the first assembles, and so imports what others do not
    assert "early" in ran("command()")
    assert "early" not in ran("sys.setprofile(lambda *_: None); command()")
    assert "early" not in ran("import threading; command()")
    assert "at exit" in ran("import atexit; atexit.register(print, 'at exit'); command()")
    assert "function calls" in ran("import cProfile; cProfile.run('command()')")


def test_a_panic_is_no_pass(source: Any, run: Any) -> None:
    text = '%include "results.inc"\nstart: {}\n  cli\n  hlt\nok: PASS\n'
    status, out, _ = run(source(text.format("jmp panic\npanic:")))
    assert status == 1
    assert "the guest halted, and it was to end by PASS, FAIL or SKIP" in out
    assert run(source(text.format("jmp ok")))[0] == 0
    assert run(source("; ends: halt\n" + text.format("")))[0] == 0


def test_a_request_without_effect_is_said(source: Any, run: Any) -> None:
    path = source("; reslut: a u64 x\nstart: mov al, 7\n out 0x99, al\n in al, 0x98\n in al, 0x98\n hlt\n")
    status, out, _ = run(path)
    assert status == 0
    assert ":1: `; reslut: a u64 x` is a comment: did you mean `result`?" in out
    assert "wrote 0x7 to port 0x99 (1 byte), once" in out
    document = json.loads(run(path, "--json")[1])
    assert [each.partition(": ")[2] for each in document["notes"]] == [
        "`; reslut: a u64 x` is a comment: did you mean `result`?"
    ]
    assert document["unclaimed"] == 3
    assert document["missed"] == [
        {"space": "port", "address": 0x98, "direction": "read", "size": 1, "value": None, "count": 2},
        {"space": "port", "address": 0x99, "direction": "write", "size": 1, "value": 7, "count": 1},
    ]


def test_console_bytes_that_are_no_text(source: Any, run: Any) -> None:
    path = source("start: mov al, 0xff\n out 0xe9, al\n mov al, 'x'\n out 0xe9, al\n hlt\n")
    document = json.loads(run(path, "--json")[1])
    assert (document["console"], document["console_bytes"]) == ("\ufffdx", "/3g=")
    assert json.loads(run("hello", "--json")[1])["console_bytes"] is None


def test_a_trace_too_small_for_its_head_is_refused(tmp_path: Path, run: Any) -> None:
    status, _, err = run("hello", "--trace", str(tmp_path / "t.jsonl"), "--trace-limit", "100")
    assert status == 2
    assert "its head, which has the source, takes" in err
    assert not list(tmp_path.iterdir())


OWN = """
; machine: irqchip=split
; devices: ioapic, virtio_rng, virtio_blk=disk.img
; result: magic u64 of virtio-mmio
; result: poll u64 a hypercall's answer
%include "results.inc"
start:
    call  hypercall_init
    mov   eax, KVM_HC_VAPIC_POLL_IRQ
    call  hypercall
    RESULT poll
    in    al, 0x80
    PASS
%include "hypercall.inc"
%include "idt.inc"
"""


def test_ones_own_payload_can_do_what_a_shipped_one_can(source: Any, run: Any, tmp_path: Path) -> None:
    path = source(OWN.replace("; result: magic u64 of virtio-mmio\n", ""))
    (tmp_path / "disk.img").write_bytes(bytes(512))
    (tmp_path / "own.py").write_text(
        "def setup(guest):\n    guest.machine.on_port_read(0x80, lambda: 42)\n"
        "def check(guest):\n    guest.equal('poll', guest['poll'], guest.params.get('want', 0))\n"
        "    guest.evidence['devices'] = sorted(guest.devices)\n"
    )
    trace = str(tmp_path / "t.jsonl")
    status, out, err = run(path, "--trace", trace)
    assert (status, err) == (0, "")
    assert "['hypercalls', 'ioapic', 'virtio_blk', 'virtio_rng']" in out
    assert main(["replay", trace, "--quiet"]) == 0
    (tmp_path / "own.py").write_text("def check(guest):\n    guest.expect(False, 'never')\n")
    assert "fail  own" in run(path)[1]
    (tmp_path / "own.py").write_text("def check(guest):\n    return 1 / 0\n")
    status, _, err = run(path)
    assert status == 2
    assert "own.py:2: check(): ZeroDivisionError: division by zero" in err


@pytest.mark.parametrize(
    ("line", "said"),
    [("quirks: NO_SUCH", "no quirk is called"), ("enable: KVM_CAP_NO_SUCH", "no capability is called"),
     ("enable: KVM_CAP_NR_VCPUS", "is nothing to enable"), ("enable: SPLIT_IRQCHIP=x", "is not a number"),
     ("devices: toaster", "is none of ioapic, hypercalls"), ("devices: virtio_blk", "write virtio_blk=FILE"),
     ("devices: virtio_rng virtio_rng", "is there already"), ("devices: ioapic", "goes with irqchip=split"),
     ("devices: virtio_blk=no.img", "no.img"), ("devices: virtio_net=", "write tap:NAME"),
     ("devices: virtio_net=bridge:br0", "write tap:NAME"), ("devices: virtio_net=tap:nosuchtap0", "no such interface")],
)  # fmt: skip
def test_equipment_that_cannot_be(line: str, said: str, source: Any, run: Any) -> None:
    status, _, err = run(source(f"; {line}\nstart: hlt\n"))
    assert status == 2
    assert said in err


@pytest.mark.parametrize("option", ["--trace", "--timeline", "--html", "--console"])
def test_no_output_overwrites_a_source(option: str, source: Any, run: Any, tmp_path: Path) -> None:
    path = Path(source("start: hlt\n"))
    code = tmp_path / "code.bin"
    code.write_bytes(b"\xf4")
    other = tmp_path / "other.asm"
    other.write_text("; mine\n")
    link = tmp_path / "link.jsonl"
    link.symlink_to(path)
    before = {each: each.read_bytes() for each in (path, code, other)}
    for input_, output in ((path, path), (code, code), (path, other), (path, link)):
        status, _, err = run(str(input_), option, str(output))
        assert status == 2
        assert f"{option} {output}: " in err
        assert "would be overwritten" in err
    assert {each: each.read_bytes() for each in before} == before


def test_two_outputs_are_two_files(source: Any, run: Any, tmp_path: Path) -> None:
    both = str(tmp_path / "both.svg")
    status, _, err = run(source("start: hlt"), "--timeline", both, "--console", f"{tmp_path}/./both.svg")
    assert status == 2
    assert "that is the file of --timeline, too" in err
    status, _, err = run("hello", "--timeline", str(tmp_path / "x.png"))
    assert status == 2
    assert "the drawing is SVG, and not .png" in err


@pytest.mark.parametrize("more", [[], ["--json"], ["--trace"], ["--timeout", "2", "--stats"]])
def test_console_to_a_file_byte_for_byte(more: list[str], source: Any, run: Any, tmp_path: Path) -> None:
    path, kept = source("start: mov al, 0xff\n out 0xe9, al\n mov al, 'x'\n out 0xe9, al\n hlt\n"), tmp_path / "console"
    assert run(path, "--console", str(kept), *more)[0] == 0
    assert kept.read_bytes() == b"\xffx"
    limit = [] if "--timeout" in more else ["--timeout", "0.2"]
    endless = source("x: mov al, 'y'\n out 0xe9, al\n y: jmp y")
    assert run(endless, "--console", str(kept), *more, *limit)[0] == 124
    assert kept.read_bytes() == b"y"
    assert run(source("no such thing"), "--console", str(kept))[0] == 2
    assert kept.read_bytes() == b"y"  # what could not run has no console


def test_an_option_without_effect_is_said(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run("hello", "--trace-limit", "1M")
    assert (status, err) == (
        0,
        "pyvmm: --trace-limit has no effect: nothing is recorded without `--trace FILE.jsonl`\n",
    )
    assert main(["disasm", "hello", "--bits", "16"]) == 0
    assert "--bits has no effect" in capsys.readouterr().err


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    for words in (["run", "hello"], ["run", "x.asm"], ["list"], ["run", "hello", "--console", "c"]):
        gone = tmp_path / "gone"
        gone.mkdir()
        code = f"import os, sys; from vmm.cli import main; os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); "
        code += f"sys.exit(main({words!r}))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        if done.returncode:
            assert "current folder is gone" in done.stderr or "No such file or directory" in done.stderr
            assert done.returncode == 2
            assert done.stderr.count("\n") <= 2


# What a host half may do wrong, and words that were meant otherwise ---------------------------------------------------

ENDS = "start: in al, 0x60\nmov al, 0\nout 0xf4, al\nhlt\n"
SETUP = "import sys\ndef setup(guest): guest.machine.on_port_read(0x60, {})\n"


@pytest.mark.parametrize("call", ["lambda: sys.exit(0)", "lambda: 1 / 0", "iter([]).__next__"])
def test_what_a_callback_of_ones_own_raises_has_its_file_and_is_no_pass(call: str, source: Any, run: Any) -> None:
    file = Path(source(ENDS))
    file.with_suffix(".py").write_text(SETUP.format(call))
    status, out, err = run(str(file))
    assert (status, out) == (2, "")
    assert file.with_suffix(".py").name in err
    assert "a callback, in the run" in err


@pytest.mark.parametrize(
    ("half", "name"),
    [
        ("check = lambda guest: None\n", "check"),
        ("class check: ...\n", "check"),
        ("if True:\n    def chek(guest): ...\n", "chek"),
        ("from os import path as Check\n", "Check"),
    ],
)
def test_a_module_that_is_no_host_half_and_looks_like_one_is_named(half: str, name: str, source: Any, run: Any) -> None:
    file = Path(source(ENDS))
    file.with_suffix(".py").write_text(half)
    status, out, _ = run(str(file))
    assert status == 0
    assert f"`{name}` is no host half: write `def check(guest)`" in out


def test_a_module_of_something_else_is_left_alone(source: Any, run: Any) -> None:
    file = Path(source(ENDS))
    file.with_suffix(".py").write_text("import os\nX = 1\ndef helper(y): return y\n")
    assert "note" not in run(str(file))[1]


@pytest.mark.parametrize("half", ["def check(guest): print('x')\n", "def setup(guest): print('x')\n"])
@pytest.mark.parametrize("more", [(), ("--step",), ("--trace", "t.jsonl"), ("--timeline", "t.svg")])
def test_what_a_host_half_prints_is_no_part_of_the_document(
    half: str, more: tuple[str, ...], source: Any, run: Any, monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    file = Path(source(ENDS))
    file.with_suffix(".py").write_text(half)
    status, out, err = run(str(file), "--json", *more)
    assert (status, json.loads(out)["outcome"]) == (0, "pass")
    assert "x\n" in err


@pytest.mark.parametrize("value", ["10 ** 5000", "guest.evidence"])
def test_evidence_that_is_no_json_is_an_error_and_no_traceback(value: str, source: Any, run: Any) -> None:
    file = Path(source(ENDS))
    file.with_suffix(".py").write_text(f"def check(guest): guest.evidence['a'] = {value}\n")
    status, out, err = run(str(file), "--json")
    assert (status, out) == (2, "")
    assert "cannot be written as JSON" in err


def test_a_result_that_is_wider_than_its_type_is_said(source: Any, run: Any) -> None:
    text = '; result: x {}\n%include "results.inc"\nstart: mov eax, 0x1ff\n RESULT x\n PASS\n'
    _, out, _ = run(source(text.format("u8")))
    assert "result x: the guest stored 0x1ff, and a u8 shows 0xff" in out
    assert "note" not in run(source(text.format("u16")))[1]


def test_a_header_line_of_another_kind_of_comment_is_said(source: Any, run: Any) -> None:
    _, out, _ = run(source("# result: x u64\n; machine: cpus=1\nstart: hlt\n"))
    assert "`# result: x u64` is a comment: a header line begins with `;`" in out


def test_help_that_cannot_be_written_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        words = [*PYVMM, "run", "--help"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 99
    assert "ENOSPC" in done.stderr
