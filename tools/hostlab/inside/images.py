# SPDX-License-Identifier: GPL-2.0-or-later
"""Images of Debian's packages under `pyvmm run`: what each says once it runs, and what is said of a damaged one."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tools.hostlab.inside import host
from tools.hostlab.inside.session import Session, Silent

LIMIT = 300.0  # seconds of an emulated host, for one image to speak
SERIAL = "com1=115200,8n1 console=com1 loglvl=all"
GRUB = Path("usr/lib/grub/i386-pc")
MODULES = ("serial", "terminal", "echo", "minicmd")


class Image(NamedTuple):
    """A file below the root, what is said to it, the format that it is, and the words that it says, in this order."""

    name: str
    path: str
    args: tuple[str, ...]
    says: tuple[bytes, ...]
    cut: int = 0x1000  # bytes that are left of it where it is damaged


def twice(words: bytes) -> bytes:
    """As iPXE says them: each character by INT 10h and at COM1, which are one output here."""
    return bytes(each for each in words for _ in range(2))


IMAGES = (
    Image("memtest86+, 64-bit bzImage", "boot/memtest86+x64.bin", ("--kernel-args", "console=ttyS0,115200"),
          (b"Memtest86+", b"Memory")),
    Image("memtest86+, 32-bit bzImage", "boot/memtest86+ia32.bin", ("--kernel-args", "console=ttyS0,115200"),
          (b"Memtest86+", b"Memory")),
    Image("Xen, multiboot 2", "boot/xen-4.17-amd64.gz", ("--kernel-args", SERIAL, "--memory", "512M"),
          (b"Xen version 4.17", b"Panic on CPU 0", b"dom0 kernel not specified")),
    Image("Xen, multiboot 1", "boot/xen-4.17-amd64.gz",
          ("--kernel-args", SERIAL, "--memory", "512M", "--protocol", "multiboot"), (b"Xen version 4.17", b"dom0")),
    Image("GNU Mach, multiboot", "boot/gnumach-1.8-486.gz", ("--kernel-args", "console=com0"),
          (b"GNU Mach 1.8", b"bootstrap")),
    Image("iPXE, 16-bit", "boot/ipxe.lkrn", (), (twice(b"iPXE initialising devices"), twice(b"Press Ctrl-B"))),
    Image("GRUB's kernel, 16-bit", "tmp/grub.lkrn", (), (b"GRUB",), 0x240),  # it does not say how long it is
)  # fmt: skip


def make_grub(root: Path) -> None:
    """GRUB's kernel as an image: what GRUB puts before it for loaders of Linux, and the kernel with some modules."""
    core = root / "tmp/core.img"
    words = ["grub-mkimage", "-O", "i386-pc", "-d", str(root / GRUB), "-p", "/boot", "-o", str(core), *MODULES]
    subprocess.run(words, check=True, timeout=LIMIT)
    (root / "tmp/grub.lkrn").write_bytes((root / GRUB / "lnxboot.img").read_bytes() + core.read_bytes())


def speaks(image: Image, root: Path, log: Path, limit: float = LIMIT) -> str:
    """What it said, up to the last of its words. Raises: Silent."""
    words = ["pyvmm", "run", str(root / image.path), *image.args, "--timeout", f"{limit:g}"]
    with Session(words, log) as session:
        for said in image.says:
            session.expect(said, limit)
        return session.text


def damaged(image: Image, root: Path) -> host.Done:
    """`pyvmm run` of its first bytes."""
    data = (root / image.path).read_bytes()
    data = gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data
    file = root / "tmp/cut.img"
    file.write_bytes(data[: image.cut])
    return host.call(["pyvmm", "run", str(file), *image.args])


def look(seen: host.Seen, images: Sequence[Image], root: Path, out: Path, limit: float = LIMIT) -> None:
    """Each, then each cut off."""
    for number, image in enumerate(images):
        try:
            text, ok = speaks(image, root, out / f"images-{number}.txt", limit), True
        except Silent as error:
            text, ok = f"{error}; it said: {(out / f'images-{number}.txt').read_text(errors='replace')[-600:]}", False
        words = " ... ".join(each.decode() for each in image.says)
        seen(f"{image.name}: says {words}", ok, text[-200 if ok else -800 :])
        seen.write(out / "images.json")
        host.hand_back()
        done = damaged(image, root)
        one = done.returncode == 2 and len(done.stderr.splitlines()) <= 2 and done.stderr.startswith("pyvmm: ")
        seen(f"{image.name}, its first {image.cut} bytes: one line", one, done.text)


def main(out: Path, root: Path = Path("/")) -> int:
    """images.json is left in `out`, and what each image said."""
    seen = host.Seen()

    def scenes() -> None:
        make_grub(root)
        look(seen, IMAGES, root, out)

    return seen.tell(scenes, out / "images.json")


if __name__ == "__main__":
    sys.exit(main(Path(os.environ["OUT"])))
