# SPDX-License-Identifier: GPL-2.0-or-later
"""An outcome and a post-mortem as text for a person. Values in, lines out."""

from __future__ import annotations

from vmm.abi.x86 import CR0, CR4, EFER, RFLAGS, describe_flags
from vmm.payload.outcome import Outcome
from vmm.report.closing import closing, counted
from vmm.report.style import Style, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from vmm.observe.postmortem import CodeLine, FaultInfo, PostMortem, VcpuState

REGISTER_ROWS = (
    ("rax", "rbx", "rcx", "rdx"),
    ("rsi", "rdi", "rbp", "rsp"),
    ("r8", "r9", "r10", "r11"),
    ("r12", "r13", "r14", "r15"),
)
INDENT = "  "
MP_WORDS = {
    "RUNNABLE": "runnable",
    "UNINITIALIZED": "waits for INIT",
    "INIT_RECEIVED": "waits for SIPI",
    "HALTED": "halted",
    "SIPI_RECEIVED": "has a SIPI",
}
"""What a line has room for, by the name without KVM_MP_STATE_."""
MISSED = 5  # places of unclaimed accesses that are shown


def outcome_lines(
    outcome: Outcome, style: Style, postmortem: Callable[[PostMortem, Style], list[str]] | None = None
) -> list[str]:
    """Results, what went wrong, the post-mortem (the whole, or as `postmortem` tells it), and one closing line. The
    console is not repeated.
    """
    lines: list[str] = []
    if outcome.results:
        width = max(map(len, outcome.results))
        for name, value in outcome.results.items():
            shown = "not stored" if value is None else f"{value:#x} ({value})" if value > 9 else str(value)
            lines.append(f"{INDENT}{style('name', name.ljust(width))}  {shown}")
    for name, value in outcome.evidence.items():
        lines.append(f"{INDENT}{style('name', printable(name))}  {printable(str(value))}")
    lines += [f"{INDENT}{style('bad', 'failed')}: {printable(failure)}" for failure in outcome.failures]
    if outcome.postmortem:
        lines += (postmortem or postmortem_lines)(outcome.postmortem, style)
    if outcome.stats is not None:
        from vmm.report.statistics import statistics_lines

        lines += statistics_lines(outcome.stats, style)
    if outcome.unclaimed:
        accesses = counted(outcome.unclaimed, "access")
        lines.append(f"{INDENT}{accesses} that no device claims: a read gives all ones (see --strict)")
        lines += [f"{INDENT}{INDENT}{each}" for each in outcome.missed[:MISSED]]
        if len(outcome.missed) > MISSED:
            lines.append(f"{INDENT}{INDENT}and {len(outcome.missed) - MISSED} more places (--json lists them)")
    lines += [f"{INDENT}{style('warn', 'note')}  {printable(note)}" for note in outcome.notes]
    lines.append(closing_line(outcome, style))
    return lines


def closing_line(outcome: Outcome, style: Style) -> str:
    """`pass  hello  3 exits, 0.4 ms: the guest halted`."""
    return closing(outcome.outcome, outcome.payload, outcome.exits, outcome.wall_ms, outcome.reason, style)


def postmortem_lines(pm: PostMortem, style: Style) -> list[str]:
    """The whole post-mortem."""
    lines = [style("head", "post-mortem") + f": {printable(pm.reason)}"]
    if pm.fault:
        lines.append(f"{INDENT}{style('bad', 'exception')}  {fault_text(pm.fault)}")
    for number, vcpu in enumerate(pm.vcpus):
        lines += _vcpu(vcpu, style) if number == 0 else [f"{INDENT}{headline(vcpu, style)}"]
    if pm.hint:
        lines.append(f"{INDENT}{style('warn', 'why')}  {pm.hint}")
    lines += [f"{INDENT}{style('warn', 'note')}  {printable(note)}" for note in pm.notes]
    return lines


def fault_text(fault: FaultInfo) -> str:
    """`#PF (page fault), error code 0x2: write, not present at 0x0`."""
    code = f", error code {fault.error_code:#x}"
    return f"{fault.name}{code}" + (f": {printable(fault.detail)}" if fault.detail else "")


def headline(vcpu: VcpuState, style: Style) -> str:
    """`vCPU 0 (APIC id 0, 64-bit ring 0) at 0x2000c start+0xc`."""
    state = "" if vcpu.mp_state is None else f", {_mp_words(vcpu.mp_state)}"
    where = f" {style('name', printable(vcpu.where))}" if vcpu.where else ""
    return f"vCPU {vcpu.index} (APIC id {vcpu.apic_id}, {vcpu.mode}{state}) at {vcpu.rip:#x}{where}"


def code_line(row: CodeLine, style: Style) -> str:
    """`->  0x2000c  0f 0b    ud2`."""
    mark = style("bad", "->") if row.here else "  "
    return f"{INDENT}{mark} {row.address:#8x}  {style('dim', row.bytes.ljust(30))}  {printable(row.text)}"


def _vcpu(vcpu: VcpuState, style: Style) -> list[str]:
    lines = [f"{INDENT}{headline(vcpu, style)}"]
    if vcpu.source:
        lines.append(f"{INDENT}  {printable(vcpu.source)}")
    if vcpu.odd:
        lines.append(f"{INDENT}  {style('warn', printable(vcpu.odd))}")
    lines += [code_line(row, style) for row in vcpu.code]
    for names in REGISTER_ROWS:
        lines.append(INDENT + "  ".join(f"{name:>3} {vcpu.registers[name]:016x}" for name in names))
    control = vcpu.control
    lines.append(
        f"{INDENT}rip {vcpu.rip:016x}  rflags {vcpu.registers['rflags']:#x} "
        f"({describe_flags(vcpu.registers['rflags'], RFLAGS)})"
    )
    lines.append(f"{INDENT}cr0 {control['cr0']:#x} ({describe_flags(control['cr0'], CR0)})  cr2 {control['cr2']:#x}")
    lines.append(f"{INDENT}cr3 {control['cr3']:#x}  cr4 {control['cr4']:#x} ({describe_flags(control['cr4'], CR4)})")
    lines.append(f"{INDENT}efer {control['efer']:#x} ({describe_flags(control['efer'], EFER)})")
    lines += [f"{INDENT}{name} {text}" for name, text in vcpu.segments.items() if name in ("cs", "ss", "tr")]
    for walk in vcpu.walks:
        lines += [f"{INDENT}{style('dim', line)}" for line in walk]
    if vcpu.last_exits:
        lines.append(f"{INDENT}last exits, oldest first:")
        lines += [f"{INDENT}{INDENT}{printable(text)}" for text in vcpu.last_exits]
    return lines


def _mp_words(state: int) -> str:
    from vmm.abi.exits import MP_STATES  # only a post-mortem has one to tell
    from vmm.abi.rows import value_name

    name = value_name(MP_STATES, state).removeprefix("KVM_MP_STATE_")
    return MP_WORDS.get(name, f"MP state {state}")
