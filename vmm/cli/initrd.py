# SPDX-License-Identifier: GPL-2.0-or-later
"""`pyvmm initrd`: an initial file system for a Linux guest, of files that are there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TextIO

from vmm.cli.files import OutputFile, check_outputs
from vmm.payload.linux import initramfs, sources


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "root",
        nargs="?",
        type=Path,
        default=Path("/"),
        metavar="ROOT",
        help="where lib/modules is: this machine (/), or a folder in which a kernel's package was unpacked",
    )
    parser.add_argument("-o", "--output", default="initrd.img", metavar="FILE", help="the archive (initrd.img)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--kernel", type=Path, metavar="VMLINUZ", help="of several kernels below ROOT, this one")
    which.add_argument("--release", metavar="R", help="the same, by what uname says there: 6.12.117+deb13-cloud-amd64")
    parser.add_argument("--busybox", type=Path, metavar="FILE", help="a static one; else the one below ROOT, or of /")
    parser.add_argument(
        "--run", type=Path, metavar="SCRIPT", help="let the guest run this in place of a shell, and power off"
    )
    parser.add_argument(
        "--add", action="append", default=[], metavar="FILE[=PATH]", help="add a file, at that path; may repeat"
    )
    parser.add_argument("--json", action="store_true", help="say what was made as one JSON document (schema 1)")


def run(args: argparse.Namespace, out: TextIO) -> int:
    busybox_file = args.busybox or sources.find_busybox(args.root)
    inputs = [str(each) for each in (busybox_file, args.run, args.kernel) if each]
    check_outputs({"--output": args.output}, [*inputs, *(word.partition("=")[0] for word in args.add)])
    release = args.release
    if args.kernel:
        release = sources.release_of(sources.read(args.kernel), str(args.kernel))
    modules = sources.find_modules(args.root, release)
    busybox = initramfs.check_static(sources.read(busybox_file), str(busybox_file))
    script = sources.read(args.run) if args.run else None
    data = initramfs.make(modules, busybox, script=script, extra=sources.added(args.add))
    output = OutputFile(args.output)
    try:
        output.file.write(data)
        output.keep()
    finally:
        output.discard()
    unknown = list(dict.fromkeys(modules.unknown))
    if args.json:
        made = {"schema": 1, "file": args.output, "size": len(data), "release": modules.release,
                "modules": str(modules.folder), "busybox": str(busybox_file), "unknown": unknown}  # fmt: skip
        out.write(json.dumps(made, indent=2) + "\n")
        return 0
    print(f"{args.output}: {len(data) / 1e6:.1f} MB, for Linux {modules.release}, with {busybox_file}", file=out)
    for name in unknown:
        print(f"  {name}: no file, taken to be built in (there is no modules.builtin in {modules.folder})", file=out)
    print(f'next: pyvmm run VMLINUZ --initrd {args.output} --kernel-args "console=ttyS0 quiet" --cpus 2', file=out)
    return 0
