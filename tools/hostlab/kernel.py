# SPDX-License-Identifier: GPL-2.0-or-later
"""A Debian kernel and its initramfs: busybox, the modules that find the root disk, and KVM's own. Nothing is installed:
packages are unpacked, and depmod reads their modules. One initramfs does for both emulators.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vmm.errors import UsageError
from vmm.payload.linux.modules import unpacked

from . import store
from .errors import LabError, NotToBeHad
from .hosts import ROOT_RELEASE, Host
from .packages import Archive
from .progress import Say, silent
from .tools import call, need

# What finds the root: QEMU's virtio disk, Bochs's ATA disk. Then KVM. Each is a module, or built in.
MODULES = ("virtio_pci", "virtio_blk", "ata_piix", "sd_mod", "ext4", "kvm_amd", "kvm_intel")
IF_THERE = ("crc32c_generic",)  # ext4 asks for it by the name of an algorithm; newer kernels have it elsewhere
BUSYBOX = "busybox-static"
RECIPE = 1  # counted up when the code below makes something else of the same inputs
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
    # Since 7.x an image is a package without files, and those that it depends on are the kernel.
    split = [each for each in archive.depends(image) if each.startswith("linux-") and each.endswith(f"-{release}")]
    packages = split or [image]
    return Source(tuple(packages), version, release)


def kernel(host: Host, archive: Archive, found: Source, say: Say = silent, extra: Sequence[str] = ()) -> Kernel:
    """The kernel, fetched and packed once for each version; `extra` are modules that are there beside the usual ones.

    Raises:
        NotToBeHad: the archive lost a package.
    """
    tools_of = Archive(ROOT_RELEASE)
    tools_of.refresh(say)
    digest = store.key(RECIPE, found, tools_of.version(BUSYBOX), (*MODULES, *extra), IF_THERE, INIT)

    def make(work: Path) -> None:
        _make(work, archive, tools_of, found, (*MODULES, *extra))

    what = f"a kernel with its initramfs, Linux {found.version}" + (f", and {', '.join(extra)}" if extra else "")
    folder = store.get("kernel", digest, make, say, what)
    return Kernel(folder / "vmlinuz", folder / "initramfs", found.version, found.release)


def _make(work: Path, archive: Archive, tools_of: Archive, found: Source, modules_of: Sequence[str]) -> None:
    need("depmod", "cpio", "dpkg-deb")
    tree, room = work / "tree", work / "initramfs.d"
    for package in found.packages:
        unpack(archive, package, tree)
    unpack(tools_of, BUSYBOX, work / "busybox")
    modules = next((path for path in (tree / "usr/lib/modules", tree / "lib/modules") if path.is_dir()), None)
    vmlinuz = next(iter(sorted(tree.rglob("vmlinuz*"))), None)
    if modules is None or vmlinuz is None:
        raise LabError(f"the packages {', '.join(found.packages)} hold no kernel with modules")
    shutil.copy(vmlinuz, work / "vmlinuz")
    for name in ("bin", "proc", "sys", "dev", "new"):
        (room / name).mkdir(parents=True)
    shutil.copy(next(iter((work / "busybox").rglob("bin/busybox"))), room / "bin/busybox")
    shutil.copy(INIT, room / "init")
    (room / "init").chmod(0o755)
    _few_modules(modules / found.release, room, found.release, work, modules_of)
    pack = 'cd "$0" && find . | LC_ALL=C sort | cpio -o -H newc --quiet --owner=0:0 --reproducible | gzip -1 >"$1"'
    call(["sh", "-c", pack, room, work / "initramfs"], limit=300, what="packing the initramfs")
    for rest in (tree, room, work / "busybox"):
        shutil.rmtree(rest)


def unpack(archive: Archive, package: str, into: Path) -> None:
    """Fetch a package and unpack its files."""
    with store.scratch("deb") as work:
        deb = archive.download(package, work)
        call(["dpkg-deb", "-x", deb, into], limit=300, what=f"unpacking {package}")


def _few_modules(whole: Path, room: Path, release: str, work: Path, wanted: Sequence[str]) -> None:
    """Of all modules of a kernel those that a host needs, unpacked, with tables of their own: modprobe works there."""
    _depmod(whole, release, work)
    builtin = [module_name(line) for line in (whole / "modules.builtin").read_text().split()]
    needed = load_order(parse_dependencies((whole / "modules.dep").read_text()), wanted, IF_THERE, builtin)
    few = room / "lib/modules" / release
    for file in needed:
        target = few / file.partition(".ko")[0]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_name(f"{target.name}.ko").write_bytes(_unpacked(whole / file))
    for table in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        if (whole / table).exists():
            shutil.copy(whole / table, few / table)
    call(["depmod", "-b", room, release], limit=120, what="listing the modules of the initramfs")


def _depmod(modules: Path, release: str, work: Path) -> None:
    """modules.dep of an unpacked package. depmod looks in lib/modules below a base, wherever the package has them."""
    base = work / "base"
    (base / "lib/modules").mkdir(parents=True)
    (base / "lib/modules" / release).symlink_to(modules)
    call(["depmod", "-b", base, release], limit=300, what="reading the kernel's modules")
    shutil.rmtree(base)


def load_order(
    dependencies: Mapping[str, list[str]], wanted: Iterable[str], optional: Iterable[str], builtin: Iterable[str]
) -> list[str]:
    """Files of modules in an order in which each finds what it needs. `dependencies` is modules.dep: file -> files, the
    direct ones first; `builtin` are names.

    Raises:
        LabError: a wanted module is neither a file nor built in.
    """
    by_name = {module_name(file): file for file in dependencies}
    wanted, inside = tuple(wanted), set(builtin)
    order: dict[str, None] = {}

    def add(file: str) -> None:
        for needed in reversed(dependencies.get(file, [])):
            add(needed)
        order[file] = None

    for name in (*optional, *wanted):
        if name in by_name:
            add(by_name[name])
        elif name in wanted and name not in inside:
            raise LabError(f"this kernel has no module {name}, neither as a file nor built in")
    return list(order)


def module_name(file: str) -> str:
    """`kernel/drivers/ata/ata_piix.ko.xz` -> `ata_piix`; the kernel does not tell - from _ in a name."""
    return file.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def parse_dependencies(text: str) -> dict[str, list[str]]:
    """The text of modules.dep."""
    pairs = (line.partition(":") for line in text.splitlines() if line.strip())
    return {file.strip(): rest.split() for file, _, rest in pairs}


def _unpacked(file: Path) -> bytes:
    """Raises: LabError, in the words of vmm.payload.linux.modules."""
    try:
        return unpacked(file)
    except UsageError as error:
        raise LabError(error.text, hint=error.hint) from error
