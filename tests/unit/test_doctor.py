# SPDX-License-Identifier: GPL-2.0-or-later
"""`doctor` without a device: verdicts from figures, hosts made of files, every way to be unusable, text and JSON."""

from __future__ import annotations

import argparse
import copy
import errno
import io
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from vmm.abi import caps, pv
from vmm.cli import doctor
from vmm.errors import HostError, KvmCallError
from vmm.host import hypercall_insn as hypercall_probe
from vmm.host import node, ring0, unusable
from vmm.host import userfaultfd as userfault
from vmm.host.hypercall_insn import Attempt, Hypercall, Seen
from vmm.host.measured import HostFacts, PvOffer
from vmm.host.node import Node
from vmm.host.ring0 import judge
from vmm.host.surroundings import Setting
from vmm.host.sysfs import Backend, HostFiles, Nested
from vmm.host.unusable import NotBuilt, Surroundings, why_unusable
from vmm.host.userfaultfd import Userfault
from vmm.machine.ends import Why
from vmm.report import doctor as report

SCHEMA = json.loads((Path(report.__file__).parent / "schemas" / "doctor.schema.json").read_text(encoding="utf-8"))

DELIVERED = Attempt("delivered", "RAX 0, hypercalls rose by 1")
UD = Attempt("#UD", "the guest took #UD, hypercalls rose by 0")


def setting(backend: Backend, guest: bool | None = False, **changes: Any) -> Setting:
    made = Setting(
        release="6.1.0",
        machine="x86_64",
        cpus=4,
        backend=backend,
        nested=Nested(guest, "a reason"),
        clocksource="tsc",
        clocksources=("tsc", "hpet"),
        parameters={"kvm.ignore_msrs": "N"},
        userfault=Userfault(True, "/dev/userfaultfd"),
        container=None,
    )
    return replace(made, **changes)


def facts(backend: Backend, r0: ring0.Ring0, calls: dict[str, Attempt], guest: bool = False) -> HostFacts:
    return HostFacts(
        setting=setting(backend, guest),
        api_version=12,
        ring0=r0,
        hypercall=Hypercall(hypercall_probe.transport(calls), True, calls),
        capabilities=dict.fromkeys((row.name for row in caps.CAPS), 0) | {"USER_MEMORY": 1, "NR_MEMSLOTS": 32764},
        pv=PvOffer(1 << 3 | 1 << 5 | 1 << 30, 0),
    )


VMX = facts(Backend("vmx", ("kvm_intel",)), judge(2003, 1, 1.02), {"vmcall": DELIVERED, "vmmcall": UD})
SVM = facts(Backend("svm", ("kvm_amd",)), judge(2003, 0, 0.98), {"vmcall": UD, "vmmcall": DELIVERED})
NESTED = facts(Backend("vmx", ("kvm_intel",)), judge(2003, 3, 1.5), {"vmcall": DELIVERED, "vmmcall": UD}, guest=True)
PVM = facts(Backend("pvm", ("kvm_pvm",)), judge(2003, 2003, 5000.0), {"vmcall": UD, "vmmcall": UD})
HOSTS = {"vmx": VMX, "svm": SVM, "nested": NESTED, "pvm": PVM}


def closed(schema: Any) -> Any:
    """The same schema with no room for keys that it does not describe: what we write must be documented."""
    if isinstance(schema, dict):
        made = {key: closed(value) for key, value in schema.items()}
        if "properties" in made:
            made.setdefault("additionalProperties", False)
        return made
    return [closed(each) for each in schema] if isinstance(schema, list) else schema


def check(doc: report.Document) -> report.Document:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    plain = json.loads(json.dumps(doc))
    jsonschema.validate(plain, closed(SCHEMA), cls=jsonschema.Draft202012Validator)
    return plain


# Usable hosts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_document_follows_the_schema(host: HostFacts) -> None:
    doc = check(report.document(host))
    assert doc["usable"] is True
    assert doc["capabilities"]["NR_MEMSLOTS"] == 32764
    assert len(doc["capabilities"]) == len(caps.CAPS)


def test_the_schema_can_fail() -> None:
    doc = report.document(VMX)
    for path, bad in ((("ring0", "kind"), "fast"), (("hypercall", "transport"), "int 80"), (("nested", "guest"), 1)):
        wrong = copy.deepcopy(doc)
        wrong[path[0]][path[1]] = bad
        with pytest.raises(jsonschema.ValidationError):
            check(wrong)
    with pytest.raises(jsonschema.ValidationError):
        check({**doc, "undocumented": 1})


@pytest.mark.parametrize(
    ("host", "verdict"),
    [
        (VMX, "Intel VMX (kvm_intel); ring 0 is native; vmcall reaches KVM"),
        (SVM, "AMD SVM (kvm_amd); ring 0 is native; vmmcall reaches KVM"),
        (NESTED, "Intel VMX (kvm_intel); ring 0 is native; vmcall reaches KVM; this host is itself a guest"),
        (
            PVM,
            "software-backed, no VMX or SVM used (kvm_pvm); ring 0 is emulated; no hypercall instruction reaches KVM",
        ),
    ],
)
def test_verdict_is_the_first_line(host: HostFacts, verdict: str) -> None:
    assert report.text(report.document(host)).splitlines()[0] == f"KVM is usable: {verdict}"


@pytest.mark.parametrize("host", [PVM, VMX])
def test_the_text_is_a_verdict_and_five_lines(host: HostFacts) -> None:
    lines = report.text(report.document(host)).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["kernel", "ring", "hypercalls", "offers", "more"]
    assert max(map(len, lines)) <= 150
    offered = sum(report.document(host)["pv_features"]["features"].values())
    assert f"{offered} of {len(pv.FEATURES)} paravirtual features" in lines[4]
    assert "`pyvmm doctor --all`" in lines[5]


def test_text_shows_evidence_and_what_is_there() -> None:
    lines = report.text(report.document(PVM), everything=True).splitlines()
    assert "Ring 0: emulated" in lines
    assert any("insn_emulation rose by 2003 over 2003 instructions" in line and "5000 times" in line for line in lines)
    assert "  vmcall   #UD  the guest took #UD, hypercalls rose by 0" in lines
    assert "  CLOCKSOURCE2, STEAL_TIME" in lines
    assert "  and bits without a name: eax 0x40000000" in lines
    assert f"Capabilities (KVM_CAP_...): 2 of {len(caps.CAPS)}" in lines
    assert max(map(len, lines)) <= 130


def test_all_lists_what_is_absent() -> None:
    shown = report.text(report.document(VMX), everything=True)
    assert "  STEAL_TIME " in shown
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("  SIGNAL_MSI ")] == ["-"]
    by_line = {line.split()[0]: line for line in shown.splitlines() if line.startswith("    ")}
    assert "this KVM lacks it" in by_line["PV_EOI"]
    assert "the VMM may offer it itself" in by_line["MSI_EXT_DEST_ID"]


def test_a_kvm_that_offers_nothing_and_a_quirk_that_stays() -> None:
    bare = replace(VMX, pv=PvOffer(0, 0), capabilities={}, hypercall=replace(VMX.hypercall, quirk_off=False))
    shown = report.text(check(report.document(bare)), everything=True)
    assert "cannot be kept from rewriting" in shown
    assert "Capabilities (KVM_CAP_...): 0 of 0" in shown


def test_feature_bits_of_both_registers() -> None:
    offer = PvOffer(1 << 1, 1)
    assert [name for name, offered in offer.features.items() if offered] == ["NOP_IO_DELAY", "HINTS_REALTIME"]
    assert offer.unknown == ""
    assert PvOffer(0, 2).unknown == "edx 0x2"
    assert len(offer.features) == len(pv.FEATURES)


# Verdicts from figures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("emulated", "slowdown", "kind"),
    [
        (0, 1.0, "native"),
        (5, None, "native"),
        (2003, 5000.0, "emulated"),
        (2010, None, "emulated"),
        (1000, 400.0, "mixed"),
        (None, 900.0, "emulated"),
        (None, 1.1, "native"),
        (None, None, "unknown"),
    ],
)
def test_ring0_kind(emulated: int | None, slowdown: float | None, kind: str) -> None:
    judged = judge(2003, emulated, slowdown)
    assert judged.kind == kind
    assert (judged.instructions, judged.emulated, judged.slowdown) == (2003, emulated, slowdown)
    assert ("by time only" in judged.evidence) == (emulated is None and slowdown is not None)


def test_the_loop_has_as_many_instructions_as_it_says() -> None:
    code = ring0.program(1000)
    assert code[:5] == b"\xb9\xe8\x03\0\0"  # mov ecx, 1000
    assert code[5:9] == b"\xff\xc9\x75\xfc"  # dec ecx; jnz to it
    assert code[9:] == b"\x31\xc0\xe6\xf4"  # xor eax, eax; out 0xf4, al
    assert ring0.instructions(1000) == 2003


ALL_ONES = (1 << 64) - 1


@pytest.mark.parametrize(
    ("seen", "outcome"),
    [
        (Seen(Why.EXIT_PORT, "", 0, None, 1, False), "delivered"),
        (Seen(Why.EXIT_PORT, "", 0, None, None, False), "delivered"),
        (Seen(Why.EXIT_PORT, "", 0, None, 1, True), "rewritten"),
        (Seen(Why.EXIT_PORT, "", 0, None, 0, False), "elsewhere"),
        (Seen(Why.EXIT_PORT, "", ALL_ONES, None, 0, False), "elsewhere"),
        (Seen(Why.EXIT_PORT, "", 1, None, None, False), "elsewhere"),
        (Seen(Why.GUEST_FAULT, "", 1, 6, 0, False), "#UD"),
        (Seen(Why.GUEST_FAULT, "", 1, 13, 0, False), "#GP"),
        (Seen(Why.GUEST_FAULT, "", 1, 14, 0, False), "vector 14"),
        (Seen(Why.TIME_LIMIT, "", 1, None, 0, True), "hangs"),
        (Seen(Why.INTERNAL_ERROR, "KVM gave up", 1, None, 0, False), "failed"),
        (Seen(Why.SHUTDOWN, "a triple fault", 1, None, None, False), "failed"),
    ],
)
def test_hypercall_outcome(seen: Seen, outcome: str) -> None:
    attempt = hypercall_probe.classify(seen)
    assert attempt.outcome == outcome
    assert ("KVM rewrote the instruction" in attempt.evidence) == seen.rewritten
    check(report.document(replace(VMX, hypercall=Hypercall("none", True, {"vmcall": attempt, "vmmcall": attempt}))))


def test_an_outer_hypervisor_is_named_with_its_answer() -> None:
    attempt = hypercall_probe.classify(Seen(Why.EXIT_PORT, "", ALL_ONES, None, 0, False))
    assert attempt.evidence == "something other than this KVM answered: RAX -KVM_EPERM (-1), hypercalls rose by 0"


@pytest.mark.parametrize(
    ("vmcall", "vmmcall", "transport"),
    [
        ("delivered", "#UD", "vmcall"),
        ("#UD", "delivered", "vmmcall"),
        ("rewritten", "delivered", "vmmcall"),
        ("hangs", "elsewhere", "none"),
    ],
)
def test_transport(vmcall: str, vmmcall: str, transport: str) -> None:
    assert hypercall_probe.transport({"vmcall": Attempt(vmcall, ""), "vmmcall": Attempt(vmmcall, "")}) == transport


# A host made of files ---------------------------------------------------------------------------------------------


def tree(root: Path, files: dict[str, str]) -> HostFiles:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content, encoding="utf-8")
    return HostFiles(root)


@pytest.mark.parametrize(
    ("modules", "kind", "text"),
    [
        (("kvm_intel",), "vmx", "Intel VMX (kvm_intel)"),
        (("kvm_amd",), "svm", "AMD SVM (kvm_amd)"),
        (("kvm_pvm",), "pvm", "software-backed, no VMX or SVM used (kvm_pvm)"),
        (("kvm_intel", "kvm_amd"), "several", "one of several (kvm_amd, kvm_intel)"),
        (("kvm_intel", "kvm_other"), "vmx", "Intel VMX (kvm_intel)"),
        (("kvm_other",), "unknown", "unknown (kvm_other)"),
        ((), "unknown", "unknown (module built in?)"),
    ],
)
def test_backend_by_module(tmp_path: Path, modules: tuple[str, ...], kind: str, text: str) -> None:
    files = tree(tmp_path, {f"sys/module/{name}/refcnt": "0" for name in ("kvm", *modules)})
    assert (files.backend().kind, files.backend().text) == (kind, text)


CLOCKS = "sys/devices/system/clocksource/clocksource0/"


@pytest.mark.parametrize(
    ("files", "guest", "word"),
    [
        ({"proc/cpuinfo": "flags : fpu hypervisor sse\n"}, True, "hypervisor bit"),
        (
            {"proc/cpuinfo": "flags : hypervisor\n", CLOCKS + "available_clocksource": "tsc kvm-clock \n"},
            True,
            "on KVM",
        ),
        ({"proc/cpuinfo": "flags : fpu vmx\n", CLOCKS + "available_clocksource": "tsc hpet"}, False, "no hypervisor"),
        ({"sys/hypervisor/type": "xen\n", "proc/cpuinfo": "flags : fpu"}, True, "xen"),
        ({"proc/cpuinfo": "vendor_id : x\n"}, None, "no flags"),
        ({}, None, "no flags"),
    ],
)
def test_is_the_host_a_guest(tmp_path: Path, files: dict[str, str], guest: bool | None, word: str) -> None:
    nested = tree(tmp_path, files).nested()
    assert nested.guest is guest
    assert word in nested.how


def test_parameters_clock_container_and_driver(tmp_path: Path) -> None:
    empty = HostFiles(tmp_path)
    assert (empty.parameters(), empty.clocksource(), empty.clocksources()) == ({}, None, ())
    assert (empty.container(), empty.device_number()) == (None, None)
    files = tree(
        tmp_path,
        {
            "sys/module/kvm/parameters/ignore_msrs": "Y\n",
            "sys/module/kvm/parameters/not_ours": "1\n",
            "sys/module/kvm_amd/parameters/avic": "N\n",
            CLOCKS + "current_clocksource": "tsc\n",
            "run/systemd/container": "lxc\n",
            "proc/misc": "130 watchdog\n232 kvm\n",
        },
    )
    assert files.parameters() == {"kvm.ignore_msrs": "Y", "kvm_amd.avic": "N"}
    assert files.clocksource() == "tsc"
    assert files.container() == "/run/systemd/container says lxc"
    assert files.device_number() == 232
    (tmp_path / ".dockerenv").touch()
    assert files.container() == "/.dockerenv"
    assert not files.udev()
    (tmp_path / "run/udev").mkdir()
    (tmp_path / "run/udev/control").touch()
    assert files.udev()


def test_userfault_names_what_refused_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(userfault, "_by_call", lambda: "EPERM")
    missing = userfault.probe(str(tmp_path / "none"))
    assert not missing.kernel_faults
    assert "none: ENOENT" in missing.how
    assert "the system call: EPERM" in missing.how
    assert userfault.probe("/dev/null").how.startswith("/dev/null: ENOTTY")  # opened, and no userfaultfd behind it
    monkeypatch.setattr(userfault, "_by_call", lambda: "")
    assert userfault.probe("/dev/null") == Userfault(True, "the system call")


def test_userfault_leaves_nothing_open() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    userfault.probe()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# Unusable ---------------------------------------------------------------------------------------------------------

DEVICE = "/dev/kvm"
GOOD = Node(DEVICE, "character device", "crw-rw----", "root", "kvm", (10, 232), "no")
NOTHING = Backend("unknown", ())


def around(
    at: Node,
    *,
    driver: int | None = 232,
    guest: bool = False,
    container: str | None = None,
    user: str = "jo",
    udev: bool = True,
) -> Surroundings:
    return Surroundings(at, setting(NOTHING, guest, container=container), driver, user, udev)


def opening(err: int) -> KvmCallError:
    return KvmCallError("open", err, f"opening {DEVICE}")


MISSING = Node(DEVICE, "missing")
CASES = {
    "no module": (opening(errno.ENOENT), around(MISSING, driver=None), ["modprobe", "firmware"]),
    "no module in a guest": (
        opening(errno.ENOENT),
        around(MISSING, driver=None, guest=True),
        ["nested virtualization", "modprobe"],
    ),
    "no module in a container": (
        opening(errno.ENOENT),
        around(MISSING, driver=None, container="/.dockerenv"),
        ["--device /dev/kvm", "modprobe", "firmware"],
    ),
    "module but no node": (opening(errno.ENOENT), around(MISSING), ["mknod /dev/kvm c 10 232"]),
    "not in the group": (opening(errno.EACCES), around(GOOD), ["usermod -aG kvm jo", "setfacl -m u:jo:rw /dev/kvm"]),
    "in the group from the next login": (
        opening(errno.EACCES),
        around(replace(GOOD, member="later")),
        ["log in again, or `newgrp kvm`"],
    ),
    "in the group and refused": (opening(errno.EACCES), around(replace(GOOD, member="yes")), ["sandbox"]),
    "for root only": (
        opening(errno.EACCES),
        around(replace(GOOD, mode="crw-------", group="root")),
        ["usermod -aG kvm jo && echo 'KERNEL==", "until udev is triggered or the node is made anew: `sudo setfacl"],
    ),
    "for root only, and nobody sets it": (
        opening(errno.EACCES),
        around(replace(GOOD, mode="crw-------", group="root"), udev=False),
        ["only root may open it: `sudo setfacl -m u:jo:rw /dev/kvm`"],
    ),
    "group cannot write": (opening(errno.EACCES), around(replace(GOOD, mode="crw-r-----")), ["only root", "udev"]),
    "a user without a name": (
        opening(errno.EACCES),
        around(GOOD, user="1234"),
        ["no account here, and so no groups: `sudo setfacl -m u:1234:rw /dev/kvm`"],
    ),
    "in the group, and root's alone": (
        opening(errno.EACCES),
        around(replace(GOOD, mode="crw-------", member="yes")),
        ["only root", "setfacl"],
    ),
    "device cgroup": (opening(errno.EPERM), around(GOOD), ["--device /dev/kvm"]),
    "stale number": (opening(errno.ENXIO), around(replace(GOOD, device=(10, 251))), ["sudo rm /dev/kvm"]),
    "no driver": (opening(errno.ENXIO), around(GOOD, driver=None), ["modprobe", "firmware"]),
    "no driver, ENODEV": (opening(errno.ENODEV), around(GOOD, driver=None, guest=True), ["nested", "modprobe"]),
    "a file in its place": (HostError("x"), around(replace(GOOD, kind="regular file", device=None)), ["move it away"]),
    "another device": (
        HostError("x"),
        around(Node("/dev/null", "character device", device=(1, 3))),
        ["another device"],
    ),
    "any file": (HostError("x"), around(Node("/etc/passwd", "regular file")), ["not a device; KVM's is /dev/kvm"]),
    "a VM is refused": (KvmCallError("KVM_CREATE_VM", errno.EBUSY, "creating a VM"), around(GOOD), []),
    "not built": (NotBuilt("x"), around(MISSING, driver=None), []),
}


@pytest.mark.parametrize(("error", "found", "words"), CASES.values(), ids=CASES)
def test_hints(error: HostError, found: Surroundings, words: list[str]) -> None:
    given = unusable.hints(error, found)
    assert len(given) == len(words)
    for hint, word in zip(given, words, strict=True):
        assert word in hint
    if found.node.path != DEVICE:
        assert not any("sudo" in hint for hint in given), "advice to replace what is not KVM's"


def run(*arguments: str) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    doctor.add_arguments(parser)
    out = io.StringIO()
    return doctor.run(parser.parse_args(arguments), out), out.getvalue()


def stale_node(where: Path) -> Path:
    if os.geteuid():
        pytest.skip("only root can make a device node")
    os.mknod(where, 0o20666, os.makedev(10, 254))
    return where


def a_file(where: Path) -> Path:
    where.write_text("not a device", encoding="utf-8")
    return where


def a_folder(where: Path) -> Path:
    where.mkdir()
    return where


def locked(where: Path) -> Path:
    if not os.geteuid():
        pytest.skip("root may open anything")
    a_file(where).chmod(0)
    return where


@pytest.mark.parametrize(
    ("make", "reason", "kind"),
    [
        (lambda where: where, "ENOENT", "missing"),
        (lambda where: where / "below", "ENOENT", "missing"),
        (lambda where: a_file(where) / "below", "ENOTDIR", "out of sight"),
        (a_file, "is not KVM", "regular file"),
        (a_folder, "EISDIR", "directory"),
        (lambda where: Path("/dev/null"), "is not KVM", "character device"),
        (stale_node, r"ENXIO|ENODEV", "character device"),
        (locked, "EACCES", "regular file"),
    ],
    ids=["missing", "missing folder", "below a file", "file", "folder", "other device", "stale", "locked"],
)
def test_unusable_devices(tmp_path: Path, make: Any, reason: str, kind: str) -> None:
    device = make(tmp_path / "kvm")
    status, printed = run("--json", "--device", str(device))
    doc = check(json.loads(printed))
    assert status == 99
    assert doc["usable"] is False
    assert any(word in doc["reason"] for word in reason.split("|"))
    assert "\n" not in doc["reason"]
    assert doc["host"]["device"]["kind"].startswith(kind)
    assert doc["ring0"] is doc["hypercall"] is doc["capabilities"] is doc["pv_features"] is None

    status, printed = run("--device", str(device))
    first, *rest = printed.splitlines()
    assert status == 99
    assert first == f"KVM is not usable: {doc['reason']}"
    assert [line.removeprefix("  try: ") for line in rest[: len(doc["hints"])]] == doc["hints"]


def test_an_error_without_a_better_hint_keeps_its_own(tmp_path: Path) -> None:
    error = KvmCallError("KVM_CREATE_VM", errno.ENOMEM, "creating a VM")
    explained = why_unusable(error, "/dev/zero", HostFiles(tmp_path))
    assert explained.reason == "creating a VM: KVM_CREATE_VM: Cannot allocate memory (ENOMEM)"
    (hint,) = explained.hints
    assert hint.startswith("memory is used up: ")
    assert why_unusable(HostError("no advice"), "/dev/zero", HostFiles(tmp_path)).hints == ()


def test_doctor_works_without_the_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("vmm.kvm.system", "vmm.host.measured"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Hide("vmm.kvm.system", "vmm.kvm._kvm"), *sys.meta_path])
    status, printed = run()
    assert status == 99
    assert printed.startswith("KVM is not usable: pyvmm's C binding (vmm.kvm._kvm) has not been built\n  try: `make`")


def test_an_import_that_fails_otherwise_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "vmm.kvm.system", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Hide("vmm.kvm.system", "cffi"), *sys.meta_path])
    with pytest.raises(ImportError, match="cffi"):
        run()


class Hide:
    """A finder that fails to import `module` for want of `missing`."""

    def __init__(self, module: str, missing: str) -> None:
        self.module, self.missing = module, missing

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == self.module:
            raise ModuleNotFoundError(f"No module named {self.missing!r}", name=self.missing)


def test_membership_of_the_group(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = a_file(tmp_path / "kvm")
    assert node.look_at_node(str(file)).member == "yes"
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "getegid", lambda: 1 << 30)
    entry = argparse.Namespace(gr_name="kvm", gr_mem=[node.user_name(os.getuid())])
    monkeypatch.setattr(node.grp, "getgrgid", lambda gid: entry)
    assert node.look_at_node(str(file)).member == "later"
    entry.gr_mem = []
    assert node.look_at_node(str(file)).member == "no"


def test_ids_without_a_name_stay_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr(node.grp, "getgrgid", unknown)
    monkeypatch.setattr(node.pwd, "getpwuid", unknown)
    monkeypatch.setattr(os, "getgroups", list)
    monkeypatch.setattr(os, "getegid", lambda: 1 << 30)
    found = node.look_at_node("/dev/null")
    assert (found.owner, found.group, found.member) == ("0", "0", "no")
