# SPDX-License-Identifier: GPL-2.0-or-later
"""The modules of an unpacked Linux kernel: which there are, what each needs, in which order they are loaded.

A module says itself what it needs (`depends=` in its section .modinfo), so that no depmod is asked; what is built in is
listed in modules.builtin. It runs nothing, and knows nothing of devices.
"""

from __future__ import annotations

import gzip
import lzma
import re
from pathlib import Path

from vmm.errors import UsageError

ZSTD = b"\x28\xb5\x2f\xfd"
DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
FOLDERS = ("lib/modules", "usr/lib/modules")


class Modules:
    """Those of the kernel `release` (what uname says), in the folder that Debian, and others, have them in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.release = folder, folder.name
        self._files = {module_name(path.name): path for path in sorted(folder.rglob("*.ko*")) if path.is_file()}
        self._builtin = built_in(folder)
        self.unknown: list[str] = []
        """Wanted, and neither a file nor known to be built in: nobody knows where modules.builtin is not there."""
        self._data: dict[str, bytes] = {}

    def load_order(self, *wanted: str) -> list[str]:
        """The names of these modules and of all that they need, each after what it needs; without what is built in.

        Raises:
            UsageError: one is neither a file nor built in. Without a list of what is built in it is in `unknown` then.
        """
        order: dict[str, None] = {}
        for name in wanted:
            self._visit(module_name(name), order, ())
        return list(order)

    def _visit(self, name: str, order: dict[str, None], above: tuple[str, ...]) -> None:
        if name in order or name in above:
            return
        if name not in self._files:
            if self._builtin is None:
                self.unknown.append(name)
            if self._builtin is None or name in self._builtin:
                return
            raise UsageError(f"Linux {self.release} has no module {name}, neither below {self.folder} nor built in")
        for needed in depends(self.data(name)):
            self._visit(needed, order, (*above, name))
        order[name] = None

    def data(self, name: str) -> bytes:
        """A module's bytes as the kernel takes them, unpacked. UsageError: how it is packed cannot be read here."""
        if name not in self._data:
            self._data[name] = unpacked(self._files[name])
        return self._data[name]


def folders(root: Path) -> list[Path]:
    """The folders of modules below a root, one for each kernel, by name."""
    found = [path for each in FOLDERS for path in (root / each).glob("*") if path.is_dir()]
    return sorted({path.resolve(): path for path in reversed(found)}.values(), key=lambda path: path.name)


def built_in(folder: Path) -> frozenset[str] | None:
    """The names of what would be modules, and is in the kernel itself; None where the folder has no list of them."""
    listed = folder / "modules.builtin"
    return frozenset(map(module_name, listed.read_text().split())) if listed.exists() else None


def module_name(file: str) -> str:
    """`kernel/drivers/ata/ata_piix.ko.xz` -> `ata_piix`; the kernel does not tell - from _ in a name."""
    return file.rsplit("/", 1)[-1].split(".ko", 1)[0].replace("-", "_")


def depends(module: bytes) -> list[str]:
    """The names of the modules that this one needs, by its own word."""
    found = DEPENDS.search(module)
    return [module_name(name) for name in found[1].decode().split(",") if name] if found else []


def unpacked(file: Path) -> bytes:
    """A module as the kernel takes it. UsageError: it is packed otherwise than by xz or gzip."""
    data = file.read_bytes()
    try:
        match file.suffix:
            case ".xz":
                return lzma.decompress(data)
            case ".gz":
                return gzip.decompress(data)
            case ".ko":
                return data
            case _:
                pass
    except (lzma.LZMAError, OSError, EOFError) as error:
        raise UsageError(f"{file}: a damaged module: {error}") from error
    hint = "`unzstd --rm` on those modules" if data.startswith(ZSTD) else ""
    raise UsageError(f"{file}: a module packed as {file.suffix}; xz and gz are read", hint)
