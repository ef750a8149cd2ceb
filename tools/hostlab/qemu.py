# SPDX-License-Identifier: GPL-2.0-or-later
"""AMD SVM by QEMU's TCG, which emulates nested SVM from any x86-64 machine, without a /dev/kvm.

One thread for all CPUs: with one each the emulated kernel hangs now and then. `tsc=reliable` because the kernel would
else mistrust a TSC that has no hardware behind it, and count time by the HPET, with which KVM gives no stable clock.
The TSC of TCG is one clock for all its CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import mended_qemu
from .emulator import Disks
from .hosts import Host
from .kernel import Kernel
from .tools import path_of

MODEL = "max,+svm"
MEMORY = "3G"
# Time by instructions, 8 ns each: a host whose machine is busy has then no more timer ticks for it, and a guest of its
# guest comes to its turn between two of them. A loop of PAUSE is slow then, so KVM does not poll before it halts.
COUNTED = ("-icount", "shift=3")
NO_POLL = " kvm.halt_poll_ns=0"
# QEMU 7.2's CMPXCHG16B leaves what was RAX in RFLAGS. Kernels of bookworm-backports meet it in kmem_cache_alloc, and
# take a double fault while they start; Linux uses it as long as the CPU has it.
NO_CX16 = " clearcpuid=cx16"
# QEMU 7.2 does not intercept XSETBV, so KVM does not know a guest's XCR0: CPUID tells it the size of an XSAVE area for
# x87 alone. Linux takes that for a broken XSAVE and goes on by FXSAVE; 7.2 panics on that way, before its console
# speaks.
NO_XSAVE = " noxsave"
COMMANDS = (mended_qemu.QEMU,)
OUTSIDE = "10.0.2.2"  # this machine's loopback, in QEMU's user network
LOOPBACK = "127.0.0.1"
APPEND = (
    "console=ttyS0 quiet loglevel=4 mitigations=off nokaslr random.trust_cpu=on nowatchdog audit=0 "
    "tsc=reliable panic=-1"
)


def command(host: Host, kernel: Kernel, disks: Disks, work: Path) -> list[str]:
    """The command line; the console is its standard output."""
    found = str(mended_qemu.binary()) if host.mended else path_of(mended_qemu.QEMU)
    assert found is not None
    words = [
        found, "-machine", "q35", "-accel", "tcg,thread=single", "-cpu", host.model or MODEL,
        "-smp", str(host.cpus), "-m", MEMORY, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-serial", "stdio", "-kernel", str(kernel.vmlinuz), "-initrd", str(kernel.initramfs),
        "-append", APPEND + NO_POLL * host.counted + NO_CX16 * host.suite.endswith("-backports")
        + NO_XSAVE * (not host.xsave),
    ]  # fmt: skip
    words += COUNTED if host.counted else ()
    # What a run writes to the root is thrown away with its folder.
    for disk, options in ((disks.root, "snapshot=on"), (disks.parcel, "cache=unsafe")):
        words += ["-drive", f"file={disk},if=virtio,format=raw,{options}"]
    return ["env", f"TMPDIR={work}", *words]


def network(ports: Sequence[int]) -> list[str]:
    """Words for the end of the command: a card on QEMU's user network. Whoever connects to one of these ports of this
    machine's loopback comes to the same port of the host.
    """
    forwards = "".join(f",hostfwd=tcp:{LOOPBACK}:{port}-:{port}" for port in ports)
    return ["-netdev", f"user,id=net{forwards}", "-device", "virtio-net-pci,netdev=net,romfile="]
