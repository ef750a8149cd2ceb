# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding a name somebody typed. It knows spelling, not what is named.

The tables of vmm.abi raise nothing: a look-up gives the row or None, and `unknown` gives the sentence that the caller
puts into its own error.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def strip_prefix(name: str, *prefixes: str) -> str:
    """`name` in upper case, stripped of spaces and of the first of `prefixes` it starts with."""
    plain = name.strip().upper().replace("-", "_")
    for prefix in prefixes:
        if plain.startswith(prefix):
            return plain[len(prefix) :]
    return plain


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Up to `count` of `known` that look like `name`, best first; names that merely contain it come last."""
    from difflib import get_close_matches  # only a mistake pays for it

    known = list(known)
    folded = {candidate.lower(): candidate for candidate in known}
    wanted = name.strip().lower()
    found = [folded[match] for match in get_close_matches(wanted, folded, n=count, cutoff=0.6)]
    if len(wanted) > 2:
        found += [candidate for key, candidate in folded.items() if wanted in key and candidate not in found]
    return found[:count]


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence: `no CPUID feature is called "x2apik"; did you mean x2apic?`"""
    near = nearest(name, known)
    return f"no {kind} is called {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "")
