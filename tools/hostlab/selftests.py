# SPDX-License-Identifier: GPL-2.0-or-later
"""A second opinion: the kernel's own selftests of KVM, of the same version, from Debian's package of the source.

Which of them, and beside which rows of pyvmm each stands, is the table PROGRAMS. They are linked statically, for a root
that has no compiler and another libc, and only they are built: a minute or two instead of ten.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import store
from .errors import LabError, NotToBeHad, TookLonger
from .kernel import Source, unpack
from .packages import Archive
from .progress import Say, silent
from .tools import call

FOLDER = "selftests"  # of the parcel
STEP = "selftests"
RESULTS = "selftests.json"
COMMANDS = ("gcc", "make", "strip", "tar", "xz", "dpkg-deb")
LIST = "programs.json"
NESTED = ("nested_svm", "nested_vmx")
NESTED_STATE = ("nested_svm_state", "nested_vmx_state")


@dataclass(frozen=True)
class Program:
    """One selftest. `rows`: pyvmm's features and topics that ask the same of KVM; `what` it asks, for the page."""

    name: str
    rows: tuple[str, ...]
    what: str


# A kernel has those that its source has: some are newer than 6.1, some were renamed since.
PROGRAMS = (
    # Clock
    Program("kvm_clock_test", ("CLOCKSOURCE2", "kvm_clock"), "the guest's clock follows KVM_SET_CLOCK"),
    Program("system_counter_offset_test", ("tsc_offset",), "the guest's TSC follows KVM_VCPU_TSC_OFFSET"),
    Program("tsc_msrs_test", ("tsc_writes", "tsc_adjust"), "TSC and TSC_ADJUST, written by guest and VMM"),
    Program("tsc_scaling_sync", ("tsc_khz",), "TSCs of vCPUs with a frequency of their own agree"),
    Program("vmx_tsc_adjust_test", ("nested_vmx", "tsc_adjust"), "TSC_ADJUST, written in L2 under a TSC offset"),
    Program("nested_tsc_adjust_test", (*NESTED, "tsc_adjust"), "TSC_ADJUST, written in L2 under a TSC offset"),
    Program("apic_bus_clock_test", ("lapic_timer_oneshot",), "the LAPIC timer counts at the frequency that was set"),
    # Steal time
    Program("steal_time", ("STEAL_TIME",), "steal time grows with what other threads take"),
    # PV MSRs and hypercalls
    Program(
        "kvm_pv_test",
        (
            "CLOCKSOURCE", "CLOCKSOURCE2", "ASYNC_PF", "ASYNC_PF_INT", "STEAL_TIME", "PV_EOI", "POLL_CONTROL",
            "PV_UNHALT", "PV_SEND_IPI", "PV_SCHED_YIELD",
        ),
        "#GP and ENOSYS where CPUID does not offer a PV MSR or hypercall; newer ones: no PV_UNHALT without HLT exits",
    ),
    Program("userspace_msr_exit_test", ("msr_filter", "msr_exits"), "MSR accesses that are denied or go to the VMM"),
    Program("cpuid_test", ("KVM_CPUID_SIGNATURE",), "the guest's CPUID is what KVM_SET_CPUID2 set"),
    # Hypercall patching
    Program("fix_hypercall_test", ("FIX_HYPERCALL_INSN",), "the other maker's instruction, with the quirk and without"),
    # State
    Program(
        "state_test",
        ("save_restore", "xsave", "xcrs", "debugregs", "vcpu_events", "lapic_state", "mp_state", *NESTED_STATE),
        "a vCPU's whole state moved to a new VM again and again, L2 running as well",
    ),
    Program("smm_test", ("ipi_smi", *NESTED_STATE), "SMIs, state moved within SMM, L2 running as well"),
    Program("sync_regs_test", ("sync_regs",), "registers through kvm_run"),
    Program("set_sregs_test", ("mode_protected32", "mode_pae", "mode_long"), "KVM_SET_SREGS takes what CPUID allows"),
    Program("xcr0_cpuid_test", ("xcrs",), "XCR0 takes what CPUID allows"),
    Program("xapic_state_test", ("lapic_state",), "LAPIC registers, written by the guest, read by the VMM"),
    Program(
        "debug_regs",
        ("sw_breakpoints_ring0", "hw_breakpoints_ring0", "watchpoints_ring0", "singlestep_ring0"),
        "KVM_SET_GUEST_DEBUG: breakpoints, watchpoints, single-step",
    ),
    Program("triple_fault_event_test", ("triple_fault_event",), "a triple fault in KVM_GET/SET_VCPU_EVENTS"),
    Program("nested_exceptions_test", (*NESTED, "inject_exception_payload"), "exceptions pending when L2 leaves"),
    Program("vmx_set_nested_state_test", ("nested_vmx_state",), "KVM_SET_NESTED_STATE refuses what is invalid"),
    Program("nested_set_state_test", NESTED_STATE, "KVM_SET_NESTED_STATE refuses what is invalid"),
    Program("vmx_close_while_nested_test", ("nested_vmx",), "a VMM that ends while L2 runs"),
    Program("nested_close_kvm_test", NESTED, "a VMM that ends while L2 runs"),
    Program("svm_vmcall_test", ("nested_svm",), "VMMCALL in L2 reaches L1"),
    Program("svm_int_ctl_test", ("nested_svm",), "V_IRQ of L1 and of L0 at the same time"),
    Program("svm_nested_soft_inject_test", ("nested_svm",), "INT n that L1 injects into L2"),
    Program("svm_nested_shutdown_test", ("nested_svm",), "a shutdown in L2 that L1 does not intercept"),
    # Interrupts, memory, and what else both look at
    Program("xapic_ipi_test", ("ipi",), "IPIs wake a halted vCPU, while its pages move"),
    Program("ucna_injection_test", ("mce_corrected",), "errors of memory by CMCI and KVM_X86_SET_MCE"),
    Program("set_memory_region_test", ("memslots", "moved_slots"), "slots moved and removed under a reading guest"),
    Program("coalesced_io_test", ("coalesced_mmio", "coalesced_pio"), "the ring of coalesced writes until it is full"),
    Program("guest_memfd_test", ("guest_memfd",), "guest_memfd as a file: mmap, fallocate, sizes"),
    Program("kvm_binary_stats_test", ("statistics",), "the form of the binary statistics"),
)  # fmt: skip
FOLDERS = ("", "x86/", "x86_64/")  # below tools/testing/selftests/kvm
PARTS = (
    "Makefile", "Kbuild", "Kconfig", "scripts", "include", "arch/x86", "usr", "tools/lib", "tools/include",
    "tools/arch/x86", "tools/scripts", "tools/build", "tools/testing/selftests/kvm", "tools/testing/selftests/rseq",
    "tools/testing/selftests/cgroup", "tools/testing/selftests/*.mk", "tools/testing/selftests/*.h",
)  # fmt: skip
# 6.1's steal_time includes a header of the kernel's interface without the one that it needs.
FLAGS = ("LDFLAGS=-static -pthread -no-pie", "EXTRA_CFLAGS=-include linux/stddef.h")
RECIPE = 1  # counted up when the code below makes something else of the same inputs


def package(version: str) -> str:
    """`6.12.57-1~bpo12+1` -> `linux-source-6.12`."""
    return f"linux-source-{'.'.join(re.findall(r'[0-9]+', version)[:2])}"


def upstream(version: str) -> str:
    """`6.12.57-1~bpo12+1` -> `6.12.57`."""
    return re.split(r"[-+~]", version)[0]


def programs(archive: Archive, found: Source, say: Say = silent) -> Path:
    """A folder with the selftests of a kernel, and programs.json, which says what is there.

    Raises:
        NotToBeHad: the release has no source of this version.
        LabError: none could be built.
    """
    name = package(found.version)
    version = archive.version(name)
    if upstream(version) != upstream(found.version):
        raise NotToBeHad(f"Debian's {archive.release} has {name} {version}, and a kernel {found.version}")
    digest = store.key(RECIPE, version, [program.name for program in PROGRAMS], FOLDERS, PARTS, FLAGS)

    def make(work: Path) -> None:
        _make(work, archive, name, version)

    return store.get(STEP, digest, make, say, f"KVM's selftests of Linux {version}")


def _make(work: Path, archive: Archive, name: str, version: str) -> None:
    tree, built = work / "tree", work / "built"
    built.mkdir()
    unpack(archive, name, work / "deb")
    tarball = next(iter((work / "deb").rglob(f"{name}.tar.*")), None)
    if tarball is None:
        raise LabError(f"the package {name} holds no {name}.tar")
    tree.mkdir()
    wanted = [f"{name}/{part}" for part in PARTS]
    words = ["tar", "-xf", str(tarball), "-C", str(tree), "--strip-components=1", "--wildcards", *wanted]
    call(words, limit=600, what="unpacking the kernel's source")
    call(["make", "ARCH=x86_64", "headers"], limit=900, what="making the kernel's headers", cwd=tree)
    tests = tree / "tools/testing/selftests/kvm"
    there = sources(tests)
    said = _build(tests, tree, built, list(there.values()))
    missing = [each for each, path in there.items() if not (built / path).is_file()]
    if len(missing) == len(there):
        raise LabError(f"none of KVM's selftests of Linux {version} was built\n{said}")
    for each in there.keys() - missing:
        call(["strip", "-o", work / each, built / there[each]], limit=60, what="stripping a selftest")
    for rest in (tree, built, work / "deb"):
        shutil.rmtree(rest)
    listed = {"source": version, "programs": [each for each in there if each not in missing], "unbuilt": missing}
    (work / LIST).write_text(json.dumps(listed, indent=1) + "\n")


def sources(tests: Path) -> dict[str, str]:
    """Of PROGRAMS those that this source has: name -> its path below the folder, without .c."""
    return {
        program.name: folder + program.name
        for program in PROGRAMS
        for folder in FOLDERS
        if (tests / f"{folder}{program.name}.c").is_file()
    }


def _build(tests: Path, tree: Path, into: Path, targets: Sequence[str]) -> str:
    """What a failed make said: one program that a compiler refuses is no reason to have none.

    Raises:
        LabError: it took too long, and what is missing then was not refused.
    """
    jobs = len(os.sched_getaffinity(0))
    words = ["make", "-k", f"-j{jobs}", "ARCH=x86_64", f"KHDR_INCLUDES=-isystem {tree}/usr/include", f"OUTPUT={into}"]
    try:
        call([*words, *FLAGS, *(f"{into}/{each}" for each in targets)], limit=1800, what="building", cwd=tests)
    except TookLonger:
        raise
    except LabError as error:
        return str(error)
    return ""
