# SPDX-License-Identifier: GPL-2.0-or-later
"""Intel VMX by Bochs. No package of it has VMX compiled in, so its source is built, once, in some minutes.

What must be as it is here: a TSC whose kHz is the instructions per second / 1000, told to the kernel; no deep idle
states and no tickless idle (stalls of a minute); no APICv (Bochs 3.0 refuses entry with it); MENDS.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from . import store
from .emulator import Disks
from .errors import LabError
from .hosts import Host
from .kernel import Kernel
from .packages import Archive
from .progress import Say, silent
from .tools import call, need

RELEASE = "trixie"
PACKAGE = "bochs"
TARBALL = "bochs_3.0+dfsg.orig.tar.xz"
SHA256 = "78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b"
VERSION = "Bochs 3.0"
CONFIGURE = (
    "--enable-x86-64", "--enable-cpu-level=6", "--enable-vmx=2", "--enable-svm", "--enable-smp", "--enable-avx",
    "--enable-evex", "--enable-pci", "--enable-all-optimizations", "--with-nogui", "--disable-debugger",
    "--disable-plugins", "--disable-show-ips", "--disable-docbook",
)  # fmt: skip
# Where its source is wrong, and a host would stop, or its guest: (file, line, what follows it).
# - Bochs masks interrupts when IF changes; it enters a guest with IF clear from a host with IF clear, sees no change,
#   and leaves that guest for no interrupt, though VMX says that IF does not matter there (SDM vol. 3C, 26.2,
#   "external-interrupt exiting"). A guest that spins with IF clear then holds its CPU for good.
# - A VM exit puts RIP back to where the last instruction began. Bochs' loop for one CPU takes the handler's address for
#   that when an exception was delivered, its loop for several does not: an interrupt of the host before the handler's
#   first instruction leaves a guest with its handler's CS and stack, at the RIP of what the exception interrupted.
MENDS = (
    ("cpu/vmx.cc", "  BX_CPU_THIS_PTR in_vmx_guest = true;\n", "  handleInterruptMaskChange();\n"),
    (
        "cpu/exception.cc",
        "  BX_CPU_THIS_PTR last_exception_type = 0; // error resolved\n",
        "  BX_CPU_THIS_PTR prev_rip = RIP;\n",
    ),
)
COMMANDS = ("g++", "make", "strip", "grub-mkrescue", "xorriso", "mformat")
MODEL = "corei7_skylake_x"
IPS = 500_000_000
BIOS = Path("/usr/share/bochs/BIOS-bochs-latest")
VGABIOS = Path("/usr/share/vgabios/vgabios.bin")
GRUB = Path("/usr/lib/grub/i386-pc")
APPEND = (
    "console=ttyS0,115200 quiet loglevel=4 mitigations=off nokaslr random.trust_cpu=on nowatchdog audit=0 "
    f"tsc=reliable tsc_early_khz={IPS // 1000} idle=nomwait nohz=off rcupdate.rcu_cpu_stall_suppress=1 panic=-1 "
    "kvm_intel.enable_apicv=0"
)
RC = """\
display_library: nogui
cpu: model={model}, count={cpus}, ips={ips}, reset_on_triple_fault=0, ignore_bad_msrs=1
clock: sync=none
megs: 1024
pci: enabled=1, chipset=i440fx
romimage: file={bios}
vgaromimage: file={vgabios}
boot: cdrom
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata1: enabled=1, ioaddr1=0x170, ioaddr2=0x370, irq=15
ata0-master: type=disk, path={root}, mode=volatile, journal={journal}
ata0-slave: type=disk, path={parcel}, mode=flat
ata1-master: type=cdrom, path={iso}, status=inserted
com1: enabled=1, mode=file, dev=/dev/stdout
log: {log}
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
"""
GRUB_CFG = "set timeout=0\nlinux /boot/vmlinuz {append}\ninitrd /boot/initramfs\nboot\n"


def check() -> None:
    """Raises: LabError, with what is missing on this machine and its package."""
    need(*map(str, (BIOS, VGABIOS, GRUB)))


def binary(say: Say = silent) -> Path:
    """The emulator, built when it is not there yet.

    Raises:
        NotToBeHad: the source is not in the registry today.
    """
    digest = store.key(SHA256, CONFIGURE, MENDS)
    return store.get("bochs", digest, _build, say, f"{VERSION} with VMX, of its source") / "bochs"


def _build(work: Path) -> None:
    archive = Archive(RELEASE)
    archive.refresh()
    tarball = archive.source_file(PACKAGE, TARBALL, SHA256, work)
    tree = work / "tree"
    tree.mkdir()
    call(["tar", "-xf", tarball, "-C", tree, "--strip-components=1"], limit=120, what="unpacking Bochs")
    mend(tree)
    flags = {"CFLAGS": "-O3", "CXXFLAGS": "-O3"}
    call(["./configure", *CONFIGURE], limit=300, what="configuring Bochs", cwd=tree, env=flags)
    call(["make", f"-j{os.cpu_count() or 1}"], limit=3600, what="building Bochs", cwd=tree)
    call(["strip", tree / "bochs"], limit=60, what="building Bochs")
    shutil.copy(tree / "bochs", work / "bochs")
    shutil.rmtree(tree)
    for rest in (*work.glob("*.tar.xz"), *work.glob("*.dsc")):
        rest.unlink()


def mend(tree: Path) -> None:
    """MENDS. Raises: LabError, where the source is not what they were written for."""
    for name, line, more in MENDS:
        text = (tree / name).read_text(encoding="utf-8", errors="surrogateescape")
        if text.count(line) != 1:
            raise LabError(f"{VERSION}, {name}: not one line {line.strip()}, and MENDS is of a source with one")
        (tree / name).write_text(text.replace(line, line + more), encoding="utf-8", errors="surrogateescape")


def _iso(kernel: Kernel, work: Path) -> Path:
    """Bochs has no -kernel: GRUB on a CD loads it."""
    digest = store.key(kernel.vmlinuz, kernel.initramfs, APPEND, GRUB_CFG)

    def make(into: Path) -> None:
        boot = work / "iso" / "boot"
        (boot / "grub").mkdir(parents=True)
        shutil.copy(kernel.vmlinuz, boot / "vmlinuz")
        shutil.copy(kernel.initramfs, boot / "initramfs")
        (boot / "grub/grub.cfg").write_text(GRUB_CFG.format(append=APPEND))
        words = ["grub-mkrescue", "-d", str(GRUB), "-o", str(into / "boot.iso"), str(boot.parent)]
        call(words, limit=300, what="making the CD that starts the kernel", env={"TMPDIR": str(work)})

    return store.get("iso", digest, make) / "boot.iso"


def command(host: Host, kernel: Kernel, disks: Disks, work: Path) -> list[str]:
    """The command line; the console is its standard output."""
    rc = work / "bochsrc"
    rc.write_text(
        RC.format(
            model=host.model or MODEL,
            cpus=host.cpus,
            ips=IPS,
            bios=BIOS,
            vgabios=VGABIOS,
            root=disks.root,
            parcel=disks.parcel,
            journal=work / "root.redo",
            iso=_iso(kernel, work),
            log=work / "bochs.log",
        )
    )
    return [str(binary()), "-q", "-f", str(rc)]
