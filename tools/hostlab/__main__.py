# SPDX-License-Identifier: GPL-2.0-or-later
"""`make hosts`: the command. Progress on standard error, the hosts' lines last on standard output."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from . import emulator, hosts, lab, store
from .errors import LabError, NotToBeHad

EPILOG = """\
exit status: 0 every verdict is the expected one (a host whose source the registry does not have today is skipped, by
             name), 1 one is not, or a host failed, 2 usage, or something is missing on this machine, 130 interrupted"""

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Progress:
    """Lines with the seconds since the start and the host's name; on a terminal and in a log alike."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, name: str, text: str) -> None:
        with self._lock:
            print(f"{time.monotonic() - self._begin:6.0f} s  {name:<12}{text}", file=sys.stderr, flush=True)


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.hostlab",
        description="Start emulated SVM and VMX hosts, run pyvmm there, compare its verdicts with the expected ones.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("hosts", nargs="*", metavar="HOST", help=f"svm-KERNEL or vmx-KERNEL: {' '.join(hosts.DEFAULT)}")
    parser.add_argument("--out", type=Path, default=Path("build/hosts"), help="folder for what the hosts hand back")
    parser.add_argument("--cpus", type=int, default=2, help="of each host (2)")
    parser.add_argument("--model", default="", help="the emulator's name of a CPU, instead of the lab's choice")
    parser.add_argument("--flavour", default=hosts.FLAVOUR, help=f"of Debian's kernel packages ({hosts.FLAVOUR})")
    parser.add_argument(
        "--release", default="", help="the Debian release of the kernel, for example bookworm-backports"
    )
    parser.add_argument("--steps", nargs="*", default=[], metavar="STEP", help="further files of tools/hostlab/steps/")
    parser.add_argument("--at-once", type=int, default=2, help="hosts that run at the same time (2)")
    args = parser.parse_args(words)
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    try:
        named = [
            hosts.parse(
                word, cpus=args.cpus, model=args.model, flavour=args.flavour, release=args.release,
                extra=tuple(args.steps),
            )
            for word in args.hosts or hosts.DEFAULT
        ]  # fmt: skip
        return _all(named, args.out, max(1, args.at_once))
    except LabError as error:
        print(f"hosts: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("hosts: interrupted", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """End the emulators first: threads follow them, and hear of no signal. A second one changes nothing."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    emulator.end_all()
    raise KeyboardInterrupt


def _all(named: list[hosts.Host], out: Path, at_once: int) -> int:
    progress = Progress()
    store.prune()
    reports: list[lab.Report] = []
    ready: list[lab.Prepared] = []
    for host in named:
        try:
            ready.append(lab.prepare(host, partial(progress, host.name)))
        except NotToBeHad as error:
            reports.append(lab.Report(host.name, "", skipped=str(error)))
    pool = ThreadPoolExecutor(at_once)
    try:
        runs = [pool.submit(lab.run, each, out, partial(progress, each.host.name)) for each in ready]
        reports += [each.result() for each in runs]
    except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        pool.shutdown()
    return _tell(reports, out)


def _tell(reports: list[lab.Report], out: Path) -> int:
    for report in reports:
        for line in report.failed:
            print(f"{report.name}  {line}")
    print(f"doctor.json, probe.json, junit.xml and console.txt of each host: {out}/")
    for report in reports:
        if report.skipped:
            print(f"{report.name}  skipped: {' '.join(report.skipped.split())}")
        else:
            ending = f"  {len(report.failed)} NOT as expected" if report.failed else ""
            print(f"{report.name}  {report.line}{ending}")
    return 1 if any(report.failed for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
