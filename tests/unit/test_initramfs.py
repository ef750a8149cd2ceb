# SPDX-License-Identifier: GPL-2.0-or-later
"""The initial file system of a Linux guest: the archive's format, modules in order, what is refused, the command."""

from __future__ import annotations

import gzip
import lzma
import stat
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vmm.abi import bootparam
from vmm.abi.virtio import VIRTIO_ID_BLOCK
from vmm.cli import main
from vmm.errors import EXIT_USAGE, UsageError
from vmm.payload.linux import initramfs, sources
from vmm.payload.linux.cpio import Archive
from vmm.payload.linux.modules import Modules, depends, folders, module_name, unpacked

RELEASE = "6.12.1-test"


def entries(archive: bytes) -> dict[str, tuple[int, bytes, tuple[int, int]]]:
    """name -> (mode, contents, device), read by the format's description and in no other way."""
    found, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, major, minor, name_size = fields[1], fields[6], fields[9], fields[10], fields[11]
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        at += 110 + name_size
        at += -at % 4
        data = archive[at : at + size]
        at += size
        at += -at % 4
        if name == b"TRAILER!!!\0":
            assert at == len(archive)
            return found
        assert name[:-1].decode() not in found
        found[name[:-1].decode()] = mode, data, (major, minor)


def elf(*, interpreter: bool = False, machine: int = 62) -> bytes:
    """The least that looks like a program: one program header."""
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    return header + struct.pack("<I", 3 if interpreter else 1) + bytes(52)


def module(*needs: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + ",".join(needs).encode() + b"\0name=x\0"


TREE = {
    "virtio/virtio_ring.ko": module(),
    "virtio/virtio.ko.gz": gzip.compress(module("virtio_ring")),
    "virtio/virtio_mmio.ko.xz": lzma.compress(module("virtio", "virtio_ring")),
    "net/failover.ko": module(),
    "net/net_failover.ko": module("failover"),
    "net/virtio_net.ko": module("net_failover", "virtio_ring", "virtio"),
    "block/virtio_blk.ko": module("virtio_ring", "virtio"),
    "char/virtio-rng.ko": module("virtio"),
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder in which a kernel's package and a busybox were unpacked; the console's driver is built in."""
    base = tmp_path / "usr/lib/modules" / RELEASE
    for name, data in TREE.items():
        (base / "kernel" / name).parent.mkdir(parents=True, exist_ok=True)
        (base / "kernel" / name).write_bytes(data)
    (base / "modules.builtin").write_text("kernel/drivers/char/virtio_console.ko\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/busybox").write_bytes(elf())
    return tmp_path


def modules(root: Path) -> Modules:
    return Modules(root / "usr/lib/modules" / RELEASE)


def test_the_archive_has_what_was_put_in() -> None:
    made = Archive()
    made.file("bin/sh", b"12345", 0o755)
    made.link("bin/ash", "sh")
    made.device("dev/console", 5, 1)
    made.folder("bin")
    found = entries(made.finish())
    assert list(found) == ["bin", "bin/sh", "bin/ash", "dev", "dev/console"]
    assert found["bin/sh"] == (stat.S_IFREG | 0o755, b"12345", (0, 0))
    assert found["bin/ash"] == (stat.S_IFLNK | 0o777, b"sh", (0, 0))
    assert found["dev/console"] == (stat.S_IFCHR | 0o600, b"", (5, 1))
    assert found["bin"][0] == stat.S_IFDIR | 0o755


def test_cpio_reads_it(tmp_path: Path) -> None:
    made = Archive()
    made.file("a/b", b"x" * 4097)
    try:
        done = subprocess.run(["cpio", "-t", "--quiet"], input=made.finish(), capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no cpio on this machine")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"a\na/b\n", b"")


def test_a_path_twice_is_refused() -> None:
    made = Archive()
    made.file("init", b"1")
    for again in ("init", "/init"):
        with pytest.raises(UsageError, match="/init is there already"):
            made.file(again, b"2")


def test_equal_files_make_an_equal_archive(root: Path) -> None:
    assert initramfs.make(modules(root), elf()) == initramfs.make(modules(root), elf())


def test_each_module_comes_after_what_it_needs(root: Path) -> None:
    order = modules(root).load_order("virtio_net", "virtio_mmio")
    assert sorted(order) == ["failover", "net_failover", "virtio", "virtio_mmio", "virtio_net", "virtio_ring"]
    for name in order:
        assert all(order.index(need) < order.index(name) for need in depends(modules(root).data(name)))


def test_what_is_built_in_is_no_file_and_no_error(root: Path) -> None:
    assert modules(root).load_order("virtio_console") == []


def test_a_module_that_is_nowhere_is_refused(root: Path) -> None:
    (root / "usr/lib/modules" / RELEASE / "kernel/block/virtio_blk.ko").unlink()
    with pytest.raises(UsageError, match="no module virtio_blk"):
        initramfs.make(modules(root), elf())


def test_without_a_list_of_what_is_built_in_it_is_said(root: Path) -> None:
    (root / "usr/lib/modules" / RELEASE / "modules.builtin").unlink()
    found = modules(root)
    initramfs.make(found, elf())
    assert found.unknown == ["virtio_console"]


def test_modules_that_need_each_other_end(root: Path) -> None:
    (root / "usr/lib/modules" / RELEASE / "kernel/net/failover.ko").write_bytes(module("net_failover"))
    assert "failover" in modules(root).load_order("virtio_net")


def test_the_guest_finds_its_drivers(root: Path) -> None:
    found = entries(initramfs.make(modules(root), elf(), script=b"echo hi\n", extra={"etc/x": (b"y", 0o600)}))
    assert found["init"][0] == stat.S_IFREG | 0o755
    assert found["init"][1].startswith(b"#!/bin/busybox sh\n")
    assert found["bin/busybox"][1] == elf()
    assert found["run.sh"][1] == b"echo hi\n"
    assert found["etc/x"] == (stat.S_IFREG | 0o600, b"y", (0, 0))
    assert found["dev/console"][2] == (5, 1)
    assert found["lib/modules/bus"][1].split() == [b"virtio_ring", b"virtio", b"virtio_mmio"]
    assert found[f"lib/modules/virtio-{VIRTIO_ID_BLOCK:#06x}"][1].split()[-1] == b"virtio_blk"
    for name in ("virtio_mmio", "virtio", "virtio_rng"):
        assert found[f"lib/modules/{name}.ko"][1].startswith(b"\x7fELF")
    assert found["lib/modules/virtio-0x0003"][1] == b""


def test_scripts_are_shell() -> None:
    for script in sorted(Path(initramfs.__file__).parent.glob("*.sh")):
        done = subprocess.run(["sh", "-n", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), script.name


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (elf(interpreter=True), "needs a loader"),
        (elf(machine=183), "not a program for x86-64"),
        (elf()[:60], "cut off"),
        (b"#!/bin/sh\n", "not a program for x86-64"),
    ],
)
def test_a_busybox_that_would_not_run_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        initramfs.check_static(data, "busybox")
    assert initramfs.check_static(elf(), "busybox") == elf()


def test_a_damaged_or_foreign_module_is_one_line(tmp_path: Path) -> None:
    for name, data, why in (
        ("a.ko.xz", b"no", "damaged module"),
        ("a.ko.gz", b"\x1f\x8b", "damaged module"),
        ("a.ko.zst", b"\x28\xb5\x2f\xfd", "packed as .zst"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UsageError, match=why):
            unpacked(tmp_path / name)


def test_names_of_modules() -> None:
    assert module_name("kernel/drivers/char/hw_random/virtio-rng.ko.xz") == "virtio_rng"


def test_a_kernel_is_chosen(root: Path) -> None:
    assert sources.find_modules(root, None).release == RELEASE
    (root / "usr/lib/modules/7.0.0").mkdir()
    assert [path.name for path in folders(root)] == [RELEASE, "7.0.0"]
    with pytest.raises(UsageError, match=rf"below {root}: {RELEASE}, 7\.0\.0"):
        sources.find_modules(root, None)
    assert sources.find_modules(root, "7.0.0").release == "7.0.0"


def bzimage(release: bytes) -> bytes:
    data = bytearray(0x1000)
    data[0x1FE:0x200], data[0x202:0x206] = b"\x55\xaa", b"HdrS"
    at = bootparam.SETUP_HEADER_OFFSET + bootparam.SETUP_HEADER.field("kernel_version").offset
    data[at : at + 2] = struct.pack("<H", 0x600)
    text = release + b" (somebody) #1\0"
    data[0x800 : 0x800 + len(text)] = text
    return bytes(data)


def test_the_release_is_read_off_the_kernel() -> None:
    assert sources.release_of(bzimage(b"6.12.1-test"), "vmlinuz") == RELEASE
    with pytest.raises(UsageError, match="no bzImage"):
        sources.release_of(b"\x7fELF" + bytes(1024), "vmlinux")


def test_the_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made, script = tmp_path / "initrd.img", tmp_path / "job"
    script.write_text("echo hi\n")
    assert main(["initrd", str(root), "-o", str(made), "--run", str(script), "--add", f"{script}=etc/job"]) == 0
    found = entries(made.read_bytes())
    assert found["run.sh"][1] == found["etc/job"][1] == b"echo hi\n"
    said = capsys.readouterr().out
    assert f"for Linux {RELEASE}, with {root}/bin/busybox" in said
    assert "pyvmm run VMLINUZ --initrd" in said


def test_what_was_made_as_a_document(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], follows: Callable[[str, Any], Any]
) -> None:
    made = tmp_path / "initrd.img"
    assert main(["initrd", str(root), "-o", str(made), "--json"]) == 0
    doc = follows("initrd", capsys.readouterr().out)
    assert doc["size"] == made.stat().st_size
    assert (doc["file"], doc["release"], doc["busybox"]) == (str(made), RELEASE, f"{root}/bin/busybox")
    assert Path(doc["modules"]).name == RELEASE


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--busybox", "{root}/no"], "reading"),
        (["--add", "{root}/no"], "reading"),
        (["--release", "1.0"], "no modules of Linux 1.0"),
        (["--run", "{root}/bin/busybox", "-o", "{root}/bin/busybox"], "would be overwritten"),
    ],
)
def test_bad_input_is_one_line_and_no_file(
    root: Path, words: list[str], why: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert main(["initrd", str(root), *(word.format(root=root) for word in words)]) == EXIT_USAGE
    assert why in capsys.readouterr().err
    assert not (root / "initrd.img").exists()
    assert (root / "bin/busybox").read_bytes() == elf()


def test_a_folder_without_a_kernel(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["initrd", str(tmp_path), "--busybox", "/dev/null"]) == EXIT_USAGE
    assert "no modules of a kernel below" in capsys.readouterr().err


def test_a_root_that_is_none_is_told_before_what_is_not_in_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"looking below .*gone: No such file or directory \(ENOENT\)") as refused:
        sources.find_busybox(tmp_path / "gone")
    assert "where nothing is called gone" in refused.value.hint
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"looking below .*file: Not a directory \(ENOTDIR\)"):
        sources.find_busybox(tmp_path / "file")
