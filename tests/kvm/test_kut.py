# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm kut` with images: small ones made here, and real ones of kvm-unit-tests where PYVMM_KUT names their folder."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests import kut_images
from tests.left_behind import children
from vmm import cli
from vmm.errors import HostError
from vmm.machine.machine import Machine
from vmm.payload.kut.one import Ended, run_one
from vmm.payload.kut.settings import settings_of
from vmm.payload.kut.verdict import State

EXPECTED = {
    "passes": "pass", "fails": "fail", "skips": "skip", "aborts": "fail", "devices": "pass", "two_cpus": "pass",
    "three_cpus": "pass", "lines": "pass", "lines_split": "pass", "sleeps": "pass", "sleeps_late": "pass",
    "for_i386": "skip", "for_tcg": "skip", "by_hand": "skip", "needs_a_file": "skip", "hyperv": "cannot run",
    "not_built": "cannot run", "hangs": "timeout", "dies": "crash", "resets": "cannot run",
}  # fmt: skip
REAL = os.environ.get("PYVMM_KUT", "")

pytestmark = pytest.mark.every_host  # what such an image needs of a machine is needed on each kind

READS_ENVIRONMENT = f"""
main:                       # one module, which begins with NR_C
    cmp dword ptr [ebp + 20], 1
    jne fail
    mov esi, [ebp + 24]
    mov esi, [esi]
    cmp dword ptr [esi], {int.from_bytes(b"NR_C", "little"):#x}
    jne fail
    jmp pass
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kut_images.write(tmp_path_factory.mktemp("kut"))


def run(image: str, *params: str, timeout: float = 20, tmp: Path) -> Ended:
    file = tmp / "x.flat"
    file.write_bytes(kut_images.image(image))
    return run_one(settings_of(params), file, timeout)


@pytest.mark.on_demand
def test_a_whole_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kut", str(folder), *EXPECTED, "--json", "--jobs", "2", "--junit", str(folder / "j.xml")]) == 1
    found = json.loads(capsys.readouterr().out)
    by_name = {each["name"]: each for each in found["tests"]}
    wrong = {name: by_name[name]["verdict"] for name in EXPECTED if by_name[name]["verdict"] != EXPECTED[name]}
    # `by_hand` is named here, so it runs
    assert wrong == {"by_hand": "pass"}, {name: by_name[name]["reason"] for name in wrong}
    assert (by_name["passes"]["status"], by_name["skips"]["status"], by_name["aborts"]["status"]) == (1, 77, 255)
    assert 'pass "two words"' in by_name["passes"]["console"]
    assert by_name["fails"]["reason"] == "FAIL: it is not so"
    assert by_name["skips"]["reason"] == "it says: not today"
    assert "it printed last: it will not end" in by_name["hangs"]["reason"]
    assert "jmp" in by_name["hangs"]["where"][0]
    assert "triple fault" in by_name["dies"]["reason"]
    assert "8042" in by_name["resets"]["reason"]
    assert (folder / "j.xml").read_text().count("<testcase") == len(EXPECTED)


@pytest.mark.on_demand
def test_a_table_and_its_logs(folder: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert cli.main(["kut", str(folder), "passes", "skips", "--logs", str(tmp_path / "logs"), "-v"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["test", "verdict", "time", "what", "it", "said"]
    assert lines[1].split()[:2] == ["passes", "pass"]
    assert lines[-1].startswith("2 tests: 1 pass, 1 skip (")
    assert "PASS: it is so" in (tmp_path / "logs" / "passes.log").read_text()


@pytest.mark.on_demand
def test_tap(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["kut", str(folder), "passes", "fails", "skips", "--tap"]) == 1
    text = capsys.readouterr().out
    assert text.startswith(
        "TAP version 14\n1..3\n    # Subtest: passes\n    ok 1 - it is so\n    1..1\nok 1 - passes\n"
    )
    assert "\nnot ok 2 - fails\n" in text
    assert text.endswith("ok 3 - skips # SKIP it says: not today\n")


@pytest.mark.parametrize(("args", "status"), [("pass", 1), ("fail", 3), ("skip", 77), ("abort", 255)])
def test_one_image_by_run(args: str, status: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its status is that of QEMU: value << 1 | 1, as for every run that ends by isa-debug-exit."""
    image = str(folder / "report.flat")
    assert cli.main(["run", image, "--board", "testdev", "--cpus", "2", "--kernel-args", args]) == status
    assert f"report.flat {args}" in capsys.readouterr().out


def test_nothing_to_show_is_77(folder: Path) -> None:
    assert cli.main(["kut", str(folder), "skips", "for_i386"]) == 77


def test_the_environment_is_an_initrd(folder: Path, tmp_path: Path) -> None:
    env = tmp_path / "env"
    env.write_text("NR_CPUS=1\n")
    settings = settings_of(["-initrd", str(env)])
    file = tmp_path / "x.flat"
    file.write_bytes(kut_images.image(READS_ENVIRONMENT))
    assert run_one(settings, file, 20).state is State.PASS


def test_a_damaged_image_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "x.flat"
    file.write_bytes(b"\x7fELF" + bytes(20))
    ended = run_one(settings_of([]), file, 5)
    assert ended.state is State.FAIL
    assert ended.reason.startswith(f"the image cannot be run: {file}")


def test_memory_that_the_host_does_not_give_is_told(tmp_path: Path) -> None:
    ended = run(kut_images.REPORT, "-m", "999999999g", tmp=tmp_path)
    assert ended.state in (State.CANNOT, State.ERROR)
    assert ended.reason


def test_the_end_of_a_run_without_a_status(tmp_path: Path) -> None:
    ended = run("main:\n    cli\n    mov dx, 0x8900\n" + "".join(
        f"    mov al, '{char}'\n    out dx, al\n" for char in "Shutdown") + "8:  jmp 8b\n", tmp=tmp_path)  # fmt: skip
    assert ended.state is State.FAIL
    assert ended.reason.startswith("it ended without a status")


def test_cpuid_follows_cpu(tmp_path: Path) -> None:
    """Ring 0 asks for the vendor, which no host hides from it."""
    text = "main:\n    xor eax, eax\n    cpuid\n    cmp ebx, 0x{:x}\n    jne fail\n    jmp pass\n"
    for vendor in ("GenuineIntel", "AuthenticAMD"):
        first = int.from_bytes(vendor[:4].encode(), "little")
        assert run(text.format(first), "-cpu", f"max,vendor={vendor}", tmp=tmp_path).state is State.PASS


@pytest.mark.parametrize(
    ("image", "params"),
    [
        (kut_images.DEVICES, ("-m", "64")),
        (kut_images.LINES, ()),
        (kut_images.LINES, ("-machine", "kernel_irqchip=split")),
        (kut_images.CPUS, ("-smp", "2")),
    ],
    ids=["devices", "lines", "lines, split", "CPUs"],
)
def test_what_images_find(image: str, params: tuple[str, ...], tmp_path: Path) -> None:
    """Each is in `test_a_whole_file` too, which takes long where the CPU is emulated."""
    ended = run(image, *params, tmp=tmp_path)
    assert ended.state is State.PASS, ended.reason


def test_a_page_that_is_taken_away_keeps_its_bytes() -> None:
    with Machine("2M") as machine:
        (slot, *_) = machine.memory.slots
        machine.memory.write(0x5000, b"still here")
        slot.mapping.refault(0x5000, 0x1000)
        assert machine.memory.read(0x5000, 10) == b"still here"
        with pytest.raises(HostError, match="mprotect"):  # it is the kernel that is asked
            slot.mapping.refault(1 << 47, 0x1000)


def test_the_board_has_no_own_devices() -> None:
    with Machine("64M", 2, board="testdev") as machine:
        assert machine.board.name == "testdev"
        assert machine.irqchip == "kernel"


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """`pyvmm kut` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "vmm", "kut", str(folder), *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def runs_a_guest(pid: int) -> bool:
    """Whether it has a vCPU."""
    with contextlib.suppress(OSError):
        return any("kvm-vcpu" in str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir())
    return False


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.on_demand
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_nothing_is_left_when_it_ends_early(number: int, status: int, folder: Path) -> None:
    child = started(folder, "hangs", "dies", "--timeout", "90", "--no-color")
    below: list[int] = []
    deadline = time.monotonic() + 60
    while not any(map(runs_a_guest, below)) and time.monotonic() < deadline:
        below = children(child.pid)
        time.sleep(0.1)
    assert any(map(runs_a_guest, below))
    child.send_signal(number)
    out, err = child.communicate(timeout=60)
    assert child.returncode == status, err
    if number == signal.SIGINT:
        assert "0 tests: none; 2 not run" in out
        assert "pyvmm: interrupted" in err
        assert "Traceback" not in err
    deadline = time.monotonic() + 30
    while not all(map(gone, below)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert all(map(gone, below))


# Images that nobody here made


@pytest.mark.skipif(not REAL, reason="PYVMM_KUT names no folder with images of kvm-unit-tests")
def test_real_images(capsys: pytest.CaptureFixture[str]) -> None:
    """What passes in QEMU here passes here, and no test ends by an error of ours or without a reason."""
    beside = ["--qemu"] if shutil.which("qemu-system-x86_64") else []
    status = cli.main(["kut", REAL, "--json", *beside, *os.environ.get("PYVMM_KUT_ARGS", "").split()])
    found = json.loads(capsys.readouterr().out)
    assert status in (0, 1)
    assert found["counts"].get("pass")
    assert not [each for each in found["tests"] if each["verdict"] != "pass" and not each["reason"]]
    behind = [
        f"{each['name']}: {each['verdict']}: {each['reason']}"
        for each in found["tests"]
        if each.get("qemu", {}).get("verdict") == "pass" and each["verdict"] != "pass"
    ]
    assert not behind
