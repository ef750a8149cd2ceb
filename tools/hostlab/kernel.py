# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian kernel and its initramfs: busybox, the modules that find the root disk, and KVM's own, in the order in which
they can be loaded. Nothing is installed: packages are unpacked, and depmod reads their modules.
"""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import store
from .errors import LabError, NotToBeHad
from .hosts import Host
from .packages import Archive
from .tools import call, need, path_of

# What finds the root: QEMU's virtio disk, Bochs's ATA disk. A module that a kernel does not have is built into it.
DISK = ("virtio_pci", "virtio_blk", "ata_piix", "sd_mod", "ext4", "crc32c_generic")
KVM = {"svm": ("kvm_amd",), "vmx": ("kvm_intel",)}
INIT = Path(__file__).parent / "guest" / "initramfs-init"


@dataclass(frozen=True)
class Kernel:
    """`vmlinuz` and `initramfs` are files; `version` is Debian's of the package, `release` what uname says."""

    vmlinuz: Path
    initramfs: Path
    version: str
    release: str


@dataclass(frozen=True)
class Source:
    """What a host's kernel is made of, settled before anything is fetched."""

    packages: tuple[str, ...]
    version: str
    release: str


def source(host: Host, archive: Archive) -> Source:
    """The packages of the newest kernel of this flavour that the release has.

    Raises:
        NotToBeHad: the release has none, or one of another series than was asked for.
    """
    meta = f"linux-image-{host.flavour}"
    version = archive.version(meta)
    if host.kernel != "newest" and not version.startswith(f"{host.kernel}."):
        raise NotToBeHad(f"Debian's {host.suite} has Linux {version} today, and none of {host.kernel}")
    image = next((each for each in archive.depends(meta) if each.startswith("linux-image-")), None)
    if image is None:
        raise NotToBeHad(f"{meta} of Debian's {host.suite} names no image")
    release = image.removeprefix("linux-image-")
    split = [f"linux-{part}-{release}" for part in ("binary", "modules", "base")]
    # Since 7.x an image is a package without files, and these three are the kernel.
    packages = split if all(map(archive.has, split)) else [image]
    return Source(tuple(packages), version, release)


def kernel(host: Host, archive: Archive, found: Source) -> Kernel:
    """The kernel, fetched and packed once for each version."""
    digest = store.key(found, DISK, KVM[host.kind], INIT)
    folder = store.get(f"kernel-{host.kind}", digest, lambda work: _make(work, host, archive, found))
    return Kernel(folder / "vmlinuz", folder / "initramfs", found.version, found.release)


def _make(work: Path, host: Host, archive: Archive, found: Source) -> None:
    need("depmod", "cpio", "busybox", "dpkg-deb")
    tree = work / "tree"
    for package in found.packages:
        deb = archive.download(package, work)
        call(["dpkg-deb", "-x", deb, tree], limit=300, what=f"unpacking {package}")
        deb.unlink()
    modules = next((path for path in (tree / "usr/lib/modules", tree / "lib/modules") if path.is_dir()), None)
    vmlinuz = next(iter(sorted(tree.rglob("vmlinuz*"))), None)
    if modules is None or vmlinuz is None:
        raise LabError(f"the packages {', '.join(found.packages)} hold no kernel with modules")
    _depmod(tree, found.release)
    shutil.copy(vmlinuz, work / "vmlinuz")
    _initramfs(work, modules / found.release, (*DISK, *KVM[host.kind]))
    shutil.rmtree(tree)


def _depmod(base: Path, release: str) -> None:
    """modules.dep of an unpacked package; depmod looks in lib/modules below its base."""
    if not (base / "lib").exists():
        (base / "lib").symlink_to("usr/lib")
    call(["depmod", "-b", base, release], limit=120, what="reading the kernel's modules")


def load_order(dependencies: dict[str, list[str]], wanted: Iterable[str]) -> list[str]:
    """Files of modules in an order in which each finds what it needs. `dependencies` is modules.dep: file -> files, the
    direct ones first. A wanted module that is no file is taken to be built in.
    """
    by_name = {module_name(file): file for file in dependencies}
    order: dict[str, None] = {}

    def add(file: str) -> None:
        for needed in reversed(dependencies.get(file, [])):
            add(needed)
        order[file] = None

    for name in wanted:
        if name in by_name:
            add(by_name[name])
    return list(order)


def module_name(file: str) -> str:
    """`kernel/drivers/ata/ata_piix.ko.xz` -> `ata_piix`; the kernel does not tell - from _ in a name."""
    return file.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def parse_dependencies(text: str) -> dict[str, list[str]]:
    """The text of modules.dep."""
    pairs = (line.partition(":") for line in text.splitlines() if line.strip())
    return {file.strip(): rest.split() for file, _, rest in pairs}


def _initramfs(work: Path, modules: Path, wanted: Iterable[str]) -> None:
    order = load_order(parse_dependencies((modules / "modules.dep").read_text()), wanted)
    room = work / "initramfs.d"
    for name in ("bin", "modules", "proc", "sys", "dev", "new"):
        (room / name).mkdir(parents=True)
    busybox = path_of("busybox")
    assert busybox is not None
    shutil.copy(busybox, room / "bin/busybox")
    for file in order:
        (room / "modules" / f"{module_name(file)}.ko").write_bytes(_unpacked(modules / file))
    (room / "modules/order").write_text("".join(f"{module_name(file)}\n" for file in order))
    shutil.copy(INIT, room / "init")
    (room / "init").chmod(0o755)
    names = "\n".join(sorted(str(path.relative_to(room)) for path in room.rglob("*")))
    made = subprocess.run(
        [path_of("cpio") or "cpio", "-o", "-H", "newc", "--quiet", "--owner=0:0"],
        cwd=room, input=names.encode(), capture_output=True, timeout=60, check=True, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    (work / "initramfs").write_bytes(gzip.compress(made.stdout, compresslevel=1, mtime=0))
    shutil.rmtree(room)


def _unpacked(file: Path) -> bytes:
    data = file.read_bytes()
    match file.suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".gz":
            return gzip.decompress(data)
        case ".zst":
            raise LabError(f"{file.name}: a module packed by zstd; the lab reads xz and gz")
        case _:
            return data
