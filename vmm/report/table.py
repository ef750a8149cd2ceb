# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of `pyvmm probe` as aligned lines of text, a line at a time: each row can be shown when it comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vmm.host.measured import HostFacts
from vmm.payload.proof.probe import Table
from vmm.payload.proof.prove import Row
from vmm.payload.proof.verdict import Refusal, Verdict, counted
from vmm.report.columns import HEAD, KINDS, TOPIC_HEAD, cells, line, number, one_line
from vmm.report.doctor import verdict as host_verdict
from vmm.report.style import Style

INDENT = " " * 4


def widths(names: Iterable[str]) -> tuple[int, int, int, int]:
    """Columns of all cells but the evidence, known before the first row has come."""
    feature = max([len(HEAD.feature), *(len(one_line(name)) for name in names)])
    return feature, len("edx 0"), len(HEAD.offered), max(map(len, (*Verdict, HEAD.verdict)))


def host_line(host: HostFacts) -> str:
    """`Linux 6.1.0; AMD SVM (kvm_amd); ring 0 is native; vmmcall reaches KVM`."""
    return one_line(f"Linux {host.setting.release}; {host_verdict(host)}")


def head(columns: tuple[int, ...], style: Style, *, topics: bool = False) -> str:
    return style("head", line(TOPIC_HEAD if topics else HEAD, columns, ""))


def row_line(row: Row, columns: tuple[int, ...], style: Style) -> str:
    """One row; colour comes after alignment, for its codes have no width."""
    feature, bit, offered, verdict, evidence = cells(row)
    texts = [text.ljust(width) for text, width in zip((feature, bit, offered, verdict), columns, strict=True)]
    texts[0], texts[3] = style("name", texts[0]), style(KINDS[row.outcome], texts[3])
    return "  ".join([*texts, evidence]).rstrip()


def details(row: Row, style: Style) -> Iterator[str]:
    """Evidence, refusals and deviations, one line each, below a row."""
    evidence = row.finding.evidence
    width = max((len(one_line(str(name))) for name in evidence), default=0)
    for name, value in evidence.items():
        yield f"{INDENT}{style('dim', one_line(str(name)).ljust(width))}  {number(value)}"
    for each in row.refusals:
        mark = style("dim", "refusal") if each.holds else style("bad", "refusal")
        yield f"{INDENT}{mark}  {refusal_text(each)}"
    yield from deviation_lines(row, style)


def deviation_lines(row: Row, style: Style) -> Iterator[str]:
    """What deviates, one line each, below a row."""
    for each in row.deviations:
        yield f"{INDENT}{style(deviation_kind(row), 'deviation')}  {one_line(each.line)}"


def deviation_kind(row: Row) -> str:
    """The colour of a deviation: it fails in a strict probe."""
    return "bad" if row.strict else "warn"


def refusal_text(refusal: Refusal) -> str:
    """`masked: WRMSR of MSR_KVM_STEAL_TIME: accepted`, with what should have been where it was not."""
    wrong = "" if refusal.holds else f", and the ABI says {refusal.expected}"
    return one_line(f"{refusal.kind}: {refusal.what}: {refusal.observed}{wrong}")


def closing(table: Table, style: Style) -> Iterator[str]:
    """What is broken, what deviates and where pyvmm failed, with all that is known of it; then a line on the whole."""
    for row in table.broken:
        yield ""
        yield f"{style('bad', 'broken')}  {style('head', one_line(row.name))}: {cells(row).evidence}"
        yield from details(row, style)
    for row in table.rows:
        if row.deviations:
            yield ""
            verdict = style(deviation_kind(row), str(row.verdict))
            yield f"{verdict}  {style('head', one_line(row.name))}: {cells(row).evidence}"
            yield from deviation_lines(row, style)
    for row in table.errors:
        yield ""
        yield f"{style('bad', 'error')}  {style('head', one_line(row.name))}: {cells(row).evidence}"
        yield f"{INDENT}a mistake in pyvmm, which says nothing of this host; `pyvmm probe --json` has the traceback"
    yield ""
    yield summary(table)


def summary(table: Table) -> str:
    """`20 features: 12 works, 7 serviced, 1 inert; nothing is broken; 93 of 93 refusals as the ABI says (3.1 s)`, with
    the number of deviations where there are any.
    """
    kinds = [(table.features, table.counts, "feature")] * bool(table.features or not table.topics)
    kinds += [(table.topics, table.topic_counts, "topic")] * bool(table.topics)
    text = "; ".join(_counted(*kind) for kind in kinds)
    if not table.broken and not table.errors and not table.missing:
        text += "; nothing is broken"
    if table.deviations:
        text += f"; {counted(table.deviations)}"
    if table.asked:
        text += f"; {sum(each.holds for each in table.asked)} of {len(table.asked)} refusals as the ABI says"
    if table.missing:
        text += f"; {len(table.missing)} not run"
    return f"{text} ({table.elapsed:.1f} s)"


def _counted(rows: tuple[Row, ...], counts: dict[str, int], what: str) -> str:
    parts = [f"{number} {verdict}" for verdict, number in counts.items()]
    if errors := sum(bool(row.error) for row in rows):
        parts.append(f"{errors} not shown for an error of pyvmm's own")
    return f"{len(rows)} {what}{'s' * (len(rows) != 1)}: {', '.join(parts) or 'none'}"
