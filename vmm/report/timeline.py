# SPDX-License-Identifier: GPL-2.0-or-later
"""Exits per vCPU over time as an SVG: a lane for each vCPU, a bar for each span of time. Records in, text out.

Bounded, however long the run: the span of a bar doubles when there would be too many, and each kind of a lane is one
path of at most BINS bars.
"""

from __future__ import annotations

from collections import Counter

from vmm.kvm.exits import Exit
from vmm.observe.trace import Exited, Made, Record, Stopped
from vmm.report.bins import Bins

BINS = 400
WIDTH, LANE, GAP = 1000, 56, 10
EDGE = 0.97
LEFT, TOP, BELOW = 70, 64, 40
SHORT_LANE, MANY = 30, 12  # with more vCPUs than that the lanes are lower
MARKS = 40  # guests that get a line of their own
KINDS = {
    "port": ("#0072b2", ("PortIn", "PortOut")),
    "MMIO": ("#d55e00", ("MmioRead", "MmioWrite")),
    "MSR": ("#009e73", ("ReadMsr", "WriteMsr")),
    "hypercall": ("#cc79a7", ("Hypercall",)),
    "halt": ("#56b4e9", ("Halt",)),
    "step": ("#999999", ("Debug",)),
    "other": ("#e69f00", ()),
}  # the colours of Okabe and Ito, which colour-blind readers tell apart
KIND_OF = {name: kind for kind, (_, names) in KINDS.items() for name in names}


def kind_of(exit: Exit) -> str:
    """The key of KINDS under which an exit is drawn."""
    return KIND_OF.get(type(exit).__name__, "other")


class Timeline:
    """Collects records; `svg` draws what came so far."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._bins = Bins(BINS)
        self._totals: Counter[int] = Counter()
        self._marks: list[tuple[int, str]] = []
        self._cpus = 1
        self._last = 0

    def add(self, record: Record) -> None:
        """Count an exit; remember where a guest begins."""
        self._last = max(self._last, getattr(record, "t", 0))
        if isinstance(record, Made):
            self._cpus = max(self._cpus, len(record.ids))
            if len(self._marks) < MARKS:
                self._marks.append((record.t, f"guest {record.guest}: {record.payload}"))
        elif isinstance(record, Exited):
            self._bins.add(record.cpu, kind_of(record.exit), record.t)
            self._totals[record.cpu] += 1
        elif isinstance(record, Stopped):
            self._bins.reach(record.t)

    def svg(self) -> str:
        """The drawing, as one self-contained file."""
        lane = LANE if self._cpus <= MANY else SHORT_LANE
        bins = max(self._last // self._bins.span + 1, 1)
        bar = WIDTH / bins
        height = TOP + self._cpus * (lane + GAP) + BELOW
        top = self._highest()
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 20}" height="{height}" '
            f'viewBox="0 0 {LEFT + WIDTH + 20} {height}" font-family="sans-serif" font-size="12">',
            f"<title>{_escape(self.title)}</title>",
            '<rect width="100%" height="100%" fill="#ffffff"/>',
            f'<text x="{LEFT}" y="20" font-size="15">{_escape(self.title)}</text>',
            *self._legend(),
        ]
        for t, text in self._marks:
            x = LEFT + min(t / self._bins.span * bar, WIDTH)
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{height - BELOW}" stroke="#bbbbbb" '
                f'stroke-dasharray="2 3"><title>{_escape(text)}</title></line>'
            )
        for cpu in range(self._cpus):
            parts += self._lane(cpu, TOP + cpu * (lane + GAP), lane, bins, bar, top)
        parts += self._axis(height - BELOW + 6, bins, bar)
        return "\n".join([*parts, "</svg>"]) + "\n"

    def _highest(self) -> int:
        sums: Counter[tuple[int, int]] = Counter()
        for (cpu, _, at), count in self._bins.counts.items():
            sums[cpu, at] += count
        return max(sums.values(), default=1)

    def _legend(self) -> list[str]:
        used = [kind for kind in KINDS if any(key[1] == kind for key in self._bins.counts)]
        parts, x = [], LEFT
        for kind in used:
            parts.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{KINDS[kind][0]}"/>')
            parts.append(f'<text x="{x + 16}" y="42">{kind}</text>')
            x += 40 + 8 * len(kind)
        return parts

    def _lane(self, cpu: int, y: int, height: int, bins: int, bar: float, top: int) -> list[str]:
        base = y + height
        parts = [
            f'<text x="{LEFT - 8}" y="{y + height / 2:.0f}" text-anchor="end">vCPU {cpu}</text>',
            f'<text x="{LEFT - 8}" y="{y + height / 2 + 13:.0f}" text-anchor="end" font-size="10" fill="#666666">'
            f"{self._totals[cpu]}</text>",
            f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{base}" y2="{base}" stroke="#888888"/>',
        ]
        filled = [0.0] * bins
        for kind, (colour, _) in KINDS.items():
            path = []
            for at in range(bins):
                if count := self._bins.counts.get((cpu, kind, at)):
                    tall = max(count / top * (height - 2), 1.0)
                    path.append(
                        f"M{LEFT + at * bar:.1f} {base - filled[at]:.1f}h{max(bar * 0.9, 0.5):.1f}v{-tall:.1f}"
                        f"h{-max(bar * 0.9, 0.5):.1f}z"
                    )
                    filled[at] += tall
            if path:
                parts.append(f'<path fill="{colour}" d="{"".join(path)}"><title>vCPU {cpu}: {kind}</title></path>')
        return parts

    def _axis(self, y: int, bins: int, bar: float) -> list[str]:
        """Round times along the bottom, about five."""
        whole = bins * self._bins.span
        unit, name = next(
            (unit, name) for unit, name in ((1e9, "s"), (1e6, "ms"), (1e3, "us")) if whole >= unit or name == "us"
        )
        return [
            f'<text x="{LEFT + bins * bar * at / whole:.0f}" y="{y + 10}" fill="#666666" '
            f'text-anchor="{"middle" if at < EDGE * whole else "end"}">'  # one at the edge keeps off it
            f"{at / unit:g} {name}</text>"
            for at in ticks(whole)
        ] + [
            f'<text x="{LEFT}" y="{y + 26}" font-size="10" fill="#666666">each bar: exits in '
            f"{self._bins.span / unit:.3g} {name}; the highest has {self._highest()}</text>"
        ]


def ticks(whole: int) -> list[int]:
    """0 and the multiples of a round number up to `whole`, seven at most."""
    power = 10 ** max(len(str(whole)) - 2, 0)
    step = next(each * power for each in (1, 2, 5, 10, 20, 50) if each * power * 6 >= whole)
    return list(range(0, whole + 1, step))


def _escape(text: str) -> str:
    """Text inside SVG, in one line; what XML cannot carry is shown as its number."""
    from vmm.report.style import printable

    shown = printable(text.replace("\n", " ").replace("\t", " "))
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
