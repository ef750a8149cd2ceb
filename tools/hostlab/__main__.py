# SPDX-License-Identifier: GPL-2.0-or-later
"""`make hosts`: the command. Progress on standard error, the hosts' lines last on standard output."""

from __future__ import annotations

import argparse
import fcntl
import json
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import FrameType

from vmm.report.pages.hosts import hosts_page

from . import bochs, fleet, guests, hosts, kut, lab, parcel, qemu, root, selftests, store, tools
from .errors import LabError, NotToBeHad
from .progress import Progress

ALWAYS_NEEDED = ("apt-get", "apt-cache", "dpkg-deb", "mmdebstrap", "genext2fs", "depmod", "cpio", "tar")
EPILOG = """\
exit status: 0 every verdict is the expected one (a host whose source the registry does not have today is skipped, by
             name), 1 one is not, or a host failed, 2 usage, or something is missing on this machine, 77 every host was
             skipped, 128 and the signal's number when it was ended by one"""

NOTHING_RAN = 77  # as pyvmm's own status for what cannot be shown
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """By this signal."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def parser() -> argparse.ArgumentParser:
    """The options; `make hosts` gives them by its variables."""
    made = argparse.ArgumentParser(
        prog="python -m tools.hostlab",
        description="Start emulated SVM and VMX hosts, run pyvmm there, compare its verdicts with the expected ones.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("hosts", nargs="*", metavar="HOST", help=f"svm-KERNEL or vmx-KERNEL: {' '.join(hosts.DEFAULT)}")
    made.add_argument("--out", type=Path, default=Path("build/hosts"), help="folder for what the hosts hand back")
    made.add_argument("--html", type=Path, metavar="FILE", help="also write a page: every host's table, side by side")
    made.add_argument("--cpus", type=int, default=2, help="of each host (2)")
    made.add_argument("--model", default="", help="the emulator's name of a CPU, instead of the lab's choice")
    made.add_argument("--flavour", default=hosts.FLAVOUR, help=f"of Debian's kernel packages ({hosts.FLAVOUR})")
    made.add_argument("--release", default="", help="the Debian release of the kernel, for example bookworm-backports")
    made.add_argument("--steps", nargs="*", default=[], metavar="STEP", help="further files of tools/hostlab/steps/")
    made.add_argument("--only", nargs="*", default=[], metavar="STEP", help="these steps instead of the usual ones")
    made.add_argument("--guests", nargs="*", default=[], metavar="KERNEL", help="of Linux guests too: 6.12, newest")
    made.add_argument("--tests", default="", metavar="EXPRESSION", help="these tests alone, as of pytest's -k")
    made.add_argument(
        "--kut", type=Path, metavar="DIR", help="what the step kut starts: images of kvm-unit-tests, built"
    )
    made.add_argument("--kut-tests", nargs="*", default=[], metavar="TEST", help="these of them: names or patterns")
    made.add_argument("--kut-timeout", type=float, default=kut.TIMEOUT, metavar="S", help="of each, there and in QEMU")
    made.add_argument("--selftests", action="store_true", help="run the kernel's own selftests of KVM as well")
    made.add_argument("--at-once", type=int, default=2, help="hosts that run at the same time (2)")
    made.add_argument("--patience", type=float, default=1.0, help="factor of all time limits, for a slow machine (1)")
    return made


def main(words: list[str] | None = None) -> int:
    args = parser().parse_args(words)
    images = kut.Request(args.kut, tuple(args.kut_tests), args.kut_timeout) if args.kut else None
    before = {number: signal.signal(number, _end) for number in SIGNALS}
    try:
        named = [
            hosts.parse(
                word, cpus=args.cpus, model=args.model, flavour=args.flavour, release=args.release,
                extra=(*args.steps, *([selftests.STEP] if args.selftests else [])), only=tuple(args.only),
                tests=args.tests, guests=tuple(args.guests), images=images,
            )
            for word in dict.fromkeys(args.hosts or hosts.DEFAULT)
        ]  # fmt: skip
        hosts.one_emulator(named)
        parcel.limits([step for host in named for step in host.steps])
        fleet.check(named, args.at_once)
        kut.check([step for host in named for step in host.steps], images)
        _need(named)
        with _alone(args.out):
            return _all(named, args)
    except LabError as error:
        print(f"hosts: {error}", file=sys.stderr)
        return 2
    except Ended as error:
        print(f"hosts: ended by {signal.Signals(error.number).name}", file=sys.stderr)
        return 128 + error.number
    finally:  # whoever called goes on as before
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)  # putting things away is under way, and is short
    raise Ended(number)


def _need(named: list[hosts.Host]) -> None:
    """Everything that is missing here is said before any work. Raises: LabError."""
    kinds = {host.emulator for host in named}
    commands = [*ALWAYS_NEEDED]
    commands += qemu.COMMANDS if "qemu" in kinds else ()
    commands += bochs.COMMANDS if "bochs" in kinds else ()
    commands += guests.COMMANDS if any(parcel.guests(host.steps) for host in named) else ()
    commands += selftests.COMMANDS if any(selftests.STEP in host.steps for host in named) else ()
    tools.need(*commands)
    if "bochs" in kinds:
        bochs.check()
    if not all(root.there(parcel.packages(host.steps)) for host in named):
        root.check()


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Raises: LabError, while another run writes into this folder."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LabError(f"another run writes into {out}", hint="HOSTS_OUT=FOLDER") from error
        yield


def _all(named: list[hosts.Host], args: argparse.Namespace) -> int:
    progress = Progress()
    store.prune()
    seen: set[str] = set()
    crew: fleet.Crew | None = None

    def one(host: hosts.Host) -> lab.Report | None:
        say = partial(progress, host.name)
        try:
            settled, archive, found = lab.settle(host, say)
            if settled.name in seen:  # svm-newest is svm-7.2 today
                fewer()
                return None
            seen.add(settled.name)
            say = partial(progress, settled.name)
            host = settled
            report = lab.run(lab.prepare(host, archive, found, say), args.out, args.patience, say, crew)
        except NotToBeHad as error:
            fewer()
            report = lab.Report(host.name, "", skipped=str(error))
        except (LabError, OSError) as error:
            fewer()
            report = lab.Report(host.name, "failed", (str(error),))
        say(last_line(report))
        return report

    def fewer() -> None:
        if crew:
            crew.fewer()

    pool = ThreadPoolExecutor(max(1, args.at_once))
    with ExitStack() as stack:
        try:
            if any(fleet.STEP in host.steps for host in named):
                crew = stack.enter_context(fleet.crew(len(named), args.out, args.patience, partial(progress, "fleet")))
            runs = [pool.submit(one, host) for host in named]
            reports = [each.result() for each in runs]
        finally:
            tools.stop()
            pool.shutdown(cancel_futures=True)
    ended = [each for each in reports if each]
    if args.html is not None:
        write_page(ended, args.out, args.html)
    return tell(ended, args.out)


def write_page(reports: list[lab.Report], out: Path, file: Path) -> None:
    """The tables of the hosts that gave one. Raises: LabError, when the file cannot be written."""
    every = []
    for report in reports:
        table = out / report.name / "probe.json"
        if not report.skipped and table.exists():
            every.append((report.name, json.loads(table.read_text(encoding="utf-8"))))
    if not every:
        print(f"hosts: no host gave a table, and {file} is not written", file=sys.stderr)
        return
    try:
        file.write_text(hosts_page(every, "make hosts HOSTS_HTML=FILE"), encoding="utf-8")
    except OSError as error:
        raise LabError(f"writing {file}: {error.strerror}") from error


def last_line(report: lab.Report) -> str:
    """How a host ended, without its name."""
    if report.skipped:
        return f"skipped: {' '.join(report.skipped.split())}"
    ending = f"  {len(report.failed)} NOT as expected" if report.failed else ""
    return f"{report.line}{ending}"


def tell(reports: list[lab.Report], out: Path) -> int:
    """What is not as expected, row by row; where the documents are; a line a host. The exit status."""
    for report in reports:
        for line in report.failed:
            print(f"{report.name}  {line}")
    print(f"doctor.json, probe.json, junit.xml and console.txt of each host: {out}/HOST/")
    for report in reports:
        print(f"{report.name}  {last_line(report)}")
    skipped = all(report.skipped for report in reports)
    if skipped:
        print("every host was skipped: nothing was shown")
    sys.stdout.flush()
    if any(report.failed for report in reports):
        return 1
    return NOTHING_RAN if skipped else 0


if __name__ == "__main__":
    sys.exit(main())
