# SPDX-License-Identifier: GPL-2.0-or-later
"""The arguments of `pyvmm run`, in groups that `pyvmm debug` and `pyvmm map` take some of. A run whose words are a name
alone makes no parser, and does not load this.
"""

from __future__ import annotations

import argparse

from vmm.cli import pages


def add_arguments(parser: argparse.ArgumentParser, trace_limit: str, free_port: str) -> None:
    """All of `pyvmm run`. The two are what stands for `--trace-limit` and `--gdb` where no value is given."""
    add_shape_arguments(parser)
    parser.add_argument("--timeout", type=float, metavar="S", help="wall-clock limit in seconds (default 10)")
    parser.add_argument("--exit-limit", type=int, metavar="N", help="stop after N exits")
    parser.add_argument("--output-limit", metavar="SIZE", help="stop after so much console output (default 4M)")
    add_guest_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the outcome as one JSON document (schema 1)")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="the whole post-mortem: all registers, page walks, every vCPU"
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="run it again when its file, an include or its host half is saved; ^C ends it",
    )
    parser.add_argument(
        "--stats", action="store_true", help="show by how much KVM's own statistics of the VM and its vCPUs rose"
    )
    parser.add_argument(
        "--folder", metavar="DIR", help="let the guest's user program read the files of this folder, by system calls"
    )
    parser.add_argument("--folder-rw", metavar="DIR", help="and let it write and create files there")
    add_device_arguments(parser)
    parser.add_argument(
        "--sandbox",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="before it runs, give up files, processes and system calls for good (`pyvmm docs sandbox`); what an image "
        "or raw code is run with, unless --no-sandbox is given",
    )
    parser.add_argument("--console", metavar="FILE", help="also write the guest's console there, byte for byte")
    add_snapshot_arguments(parser)
    add_trace_arguments(parser, trace_limit)
    add_debug_arguments(parser, free_port)
    add_image_arguments(parser)
    parser.add_argument("--no-color", action="store_true", help="plain text, also on a terminal")


def add_shape_arguments(parser: argparse.ArgumentParser) -> None:
    """The payload and its machine: of `pyvmm run` and of `pyvmm debug`."""
    parser.add_argument(
        "payload",
        nargs="?",
        metavar="PAYLOAD",
        help="a name of `pyvmm list`, or the path of an .asm file, an image (ELF, multiboot, PVH, bzImage), or raw "
        "code (it runs from its first byte, at 0x20000, in 64-bit mode; `pyvmm explain map` has the memory)",
    )
    parser.add_argument("--cpus", type=int, metavar="N", help="number of vCPUs")
    parser.add_argument("--memory", metavar="SIZE", help="guest memory, for example 2M or 0x200000")
    parser.add_argument(
        "--board",
        metavar="NAME",
        help="the hardware around its CPUs: own (the default), pc (`pyvmm docs boards`), or testdev "
        "(`pyvmm docs kut`); on the latter two standard input is at COM1, and on a terminal C-a x quits, C-a h helps",
    )


def add_guest_arguments(parser: argparse.ArgumentParser) -> None:
    """What the guest sees and is given."""
    parser.add_argument(
        "--mask",
        action="append",
        default=[],
        metavar="FEATURE",
        help="hide a CPUID feature from the guest, for example STEAL_TIME or avx2; may repeat",
    )
    parser.add_argument(
        "--expose",
        action="append",
        default=[],
        metavar="FEATURE",
        help="show a CPUID feature to the guest, offered or not; may repeat",
    )
    parser.add_argument(
        "--param", action="append", default=[], metavar="K=V", help="set a payload's parameter; may repeat"
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="let nothing pass: stop when the guest touches a port or address nobody claims, and fail on a deviation",
    )


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Devices that its header does not name."""
    parser.add_argument(
        "--net",
        action="append",
        default=[],
        metavar="LINK",
        help="a virtio network card, plugged into tap:NAME, passt:SOCKET, slirp4netns:SOCKET, fd:N, stream:, "
        "seqpacket: or dgram:SOCKET, or none; then ,mac=ADDRESS and ,mtu=BYTES; may repeat",
    )
    parser.add_argument(
        "--disk", action="append", default=[], metavar="FILE[,ro]", help="a virtio disk over this file; may repeat"
    )
    parser.add_argument("--rng", action="store_true", help="a virtio source of random bytes")
    parser.add_argument(
        "--virtio-console",
        action="store_true",
        help="a virtio console (Linux's hvc0): its output is shown as the guest's console is, and on a board with COM1 "
        "standard input is at this one instead",
    )


def add_snapshot_arguments(parser: argparse.ArgumentParser) -> None:
    """A run that another goes on from."""
    group = parser.add_argument_group("snapshots (`pyvmm docs snapshots`)")
    group.add_argument(
        "--snapshot-out",
        metavar="FILE",
        help="write the whole state of its machine there, to go on from with --from-snapshot; this run goes on too",
    )
    group.add_argument(
        "--snapshot-at",
        metavar="WHEN",
        help="start, end (of the run, the default), a symbol or address that a vCPU comes to, or 2.5s of running",
    )
    group.add_argument(
        "--from-snapshot",
        metavar="FILE",
        help="go on from there, on the same host; without PAYLOAD it is the one that the snapshot was taken of",
    )


def add_trace_arguments(parser: argparse.ArgumentParser, trace_limit: str) -> None:
    """What is kept and drawn of its exits."""
    group = parser.add_argument_group("seeing every exit")
    group.add_argument(
        "--trace",
        nargs="?",
        const="-",
        action="append",
        default=[],
        metavar="FILE.jsonl",
        help="print each exit as it happens, or record them all in a file for `pyvmm replay`; may be given twice",
    )
    group.add_argument(
        "--trace-limit",
        default=trace_limit,
        metavar="SIZE",
        help="record no more exits than fit in so many bytes (64M)",
    )
    group.add_argument(
        "--step",
        action="store_true",
        help="trace every guest instruction, by KVM's single-step; slow: 30 times the time limit, if none is given",
    )
    group.add_argument("--timeline", metavar="FILE.svg", help="draw the exits of each vCPU over time")
    pages.add_option(group, "which instruction exited most, timeline, console, memory, page walks (docs/pages.md)")
    group.add_argument(
        "--elf-out", metavar="FILE", help="before the run, write it as an ELF file with symbols and lines, for gdb"
    )


def add_debug_arguments(parser: argparse.ArgumentParser, free_port: str) -> None:
    """Who may attach."""
    group = parser.add_argument_group("a debugger (`pyvmm docs debug`)")
    group.add_argument(
        "--gdb",
        nargs="?",
        const=free_port,
        metavar="ADDR:PORT|SOCKET",
        help="let gdb attach: at a port of this machine alone (a free one, if none is given), or at a Unix socket",
    )
    group.add_argument("--wait", action="store_true", help="with --gdb: run nothing before a client has come")


def add_image_arguments(parser: argparse.ArgumentParser) -> None:
    """What goes with an image, and what its bytes do not tell: of `pyvmm run`, `debug` and `map`."""
    group = parser.add_argument_group("images: ELF, multiboot, PVH, Linux, code without a header (`pyvmm docs images`)")
    group.add_argument("--kernel-args", default="", metavar="S", help="the command line of a kernel")
    group.add_argument("--initrd", metavar="FILE", help="the initial RAM disk of a kernel")
    group.add_argument(
        "--module", action="append", default=[], metavar="FILE[,ARGS]", help="a module of multiboot or PVH; may repeat"
    )
    group.add_argument("--base", metavar="A", help="the address of code without a header, for example 0x7c00")
    group.add_argument("--entry", metavar="SYM|A", help="where to start, in place of the image's own entry")
    group.add_argument("--mode", choices=("real", "protected", "long"), help="the CPU mode of code without a header")
    group.add_argument(
        "--protocol", metavar="P", help="one of several ways to start it: linux64, linux32, linux16, multiboot2, "
        "multiboot, pvh, elf, flat",
    )  # fmt: skip
