# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows of vmm/abi/ as pages: exits, capabilities, MSRs, hypercalls, structures, ports, quirks, deviations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from vmm.abi import caps, deviations, exits, msrs, pv, quirks
from vmm.payload.guest import constants

from .text import cell, page, table, target


class Table(NamedTuple):
    """A page of rows; cells are Markdown."""

    name: str
    title: str
    about: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def every() -> Iterator[Table]:
    """The tables, in the order of the site's menu."""
    yield Table(
        "exits", "Exits", "Why KVM_RUN returned: `exit_reason` of `struct kvm_run` (`linux/kvm.h`, api.rst 5).",
        ("number", "name", "meaning", "architecture", "since Linux"),
        [(str(row.number), target(row.kernel_name), cell(row.meaning), row.arch, row.since or "")
         for row in exits.EXITS],
    )  # fmt: skip
    yield Table(
        "capabilities", "Capabilities", "What `KVM_CHECK_EXTENSION` is asked for; `pyvmm doctor --all` has this host's "
        "answers. \"To be enabled\" is done by `KVM_ENABLE_CAP` (api.rst 4.37, 6, 7 and 8).",
        ("number", "name", "meaning", "to be enabled", "since Linux"),
        [(str(row.number), target(row.kernel_name), cell(row.what), cell(row.enable), row.since or "")
         for row in caps.CAPS],
    )  # fmt: skip
    yield Table(
        "msrs", "MSRs", "KVM's own (Documentation/virt/kvm/x86/msr.rst), then those of the architecture (Intel SDM "
        "vol. 4, AMD APM vol. 2) that a vCPU's state has.",
        ("number", "name", "meaning"),
        [(f"`{row.number:#x}`", target(row.name), cell(row.what)) for row in msrs.MSRS],
    )  # fmt: skip
    yield Table(
        "hypercalls", "Hypercalls", "RAX is the number, RBX, RCX, RDX and RSI are the arguments, RAX is the result "
        "(Documentation/virt/kvm/x86/hypercalls.rst).",
        ("number", "name", "meaning", "arguments", "result", "needs", "architecture"),
        [
            (str(row.nr), target(row.kernel_name), cell(row.meaning), cell("; ".join(row.args)), cell(row.results),
             _feature(row.gate), row.arch)
            for row in pv.HYPERCALLS
        ],
    )  # fmt: skip
    yield Table(
        "returns", "Results of hypercalls", "What RAX holds when a hypercall was refused: the negative of one of these "
        "(`linux/kvm_para.h`).",
        ("value", "name", "meaning"), _named(pv.RETURNS, str),
    )  # fmt: skip
    yield Table(
        "feature-bits", "Feature bits", "CPUID leaf 0x40000001 (Documentation/virt/kvm/x86/cpuid.rst). Offered by: who "
        "puts the bit into CPUID.",
        ("register", "bit", "name", "meaning", "offered by", "since Linux"),
        [
            (row.register.upper(), str(row.bit), _feature(row.name), cell(row.meaning), row.offered_by, row.since)
            for row in pv.FEATURES
        ],
    )  # fmt: skip
    yield Table(
        "pv-constants", "Constants of the paravirtual interface", "Flags and bits of MSRs, hypercalls, shared memory "
        "(`asm/kvm_para.h`).",
        ("value", "name", "meaning"), _named(pv.CONSTANTS, hex),
    )  # fmt: skip
    yield Table(
        "ports", "Ports and names of assembly text", "Every constant that a payload may name without defining it, "
        "ports of pyvmm's own board among them; `pyvmm explain NAME` says the value of each.",
        (), [(name, f"{value:#x}") for name, value in sorted(constants().items())],
    )  # fmt: skip
    yield Table(
        "quirks", "Quirks", "Old behaviours that `KVM_CAP_DISABLE_QUIRKS2` switches off (`asm/kvm.h`, api.rst 7.31).",
        ("value", "name", "meaning", "since Linux"),
        [(f"`{row.value:#x}`", target(row.name), cell(row.meaning), row.since or "") for row in quirks.QUIRKS],
    )  # fmt: skip
    yield Table(
        "deviations", "Known deviations", "Where kernels are known to differ from the interface as it is documented, "
        "and what ended it. They explain what a guest has shown, and decide nothing.",
        ("feature", "what", "seen", "kernels", "ended by", "where"),
        [
            (_feature(row.feature), *(cell(each) for each in row[1:]))
            for row in deviations.KNOWN
        ],
    )  # fmt: skip


def _named(rows: Iterable[object], form: type | object) -> list[tuple[str, ...]]:
    return [(f"`{form(row.value)}`", target(row.name), cell(row.meaning)) for row in rows]  # type: ignore[operator, attr-defined]


def _feature(name: str) -> str:
    return f"[{cell(name)}](/features/{name}.md)" if pv.find(name) else cell(name)


def pages() -> Iterator[tuple[str, str]]:
    """Each table, and the list of them."""
    found = list(every())
    yield "tables/index.md", page("tables", tables=found)
    for each in found:
        yield f"tables/{each.name}.md", page("table", each=each, table=_shown(each))


def _shown(each: Table) -> str:
    """As a table; names with a value and nothing to say about them, as lines."""
    if each.head:
        return table(each.head, each.rows)
    return "\n".join(["```text", *(f"{name:48} {value:>18}" for name, value in each.rows), "```"])
