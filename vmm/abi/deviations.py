# SPDX-License-Identifier: GPL-2.0-or-later
"""Where kernels are known to differ from KVM's documented interface: what is seen, on which, and what ended it.

They explain a deviation that a guest has shown, and decide nothing: what is seen on a host that is not named here is
told all the same, without the explanation. The first column of a row is the proof's, the next two are as it words them.
"""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """`feature` shows `observed` at `what` on `kernels`; `commit` is the subject of the change that ended it, and
    `source` the function that tells. A row speaks of one observation: another one at the same place is something else.
    """

    feature: str
    what: str
    observed: str
    kernels: str
    commit: str
    source: str


KNOWN = (
    Known(
        "PV_UNHALT",
        "argument: the bit with HLT exits disabled",
        "set",
        "Linux 5.17 to 6.8",
        "KVM: x86: Use actual kvm_cpuid.base for clearing KVM_FEATURE_PV_UNHALT",
        "__kvm_update_cpuid_runtime looks for the feature leaf before its base is known",
    ),
    Known(
        "ASYNC_PF_VMEXIT",
        "a missing page of the nested guest, and nothing else to deliver",
        "flags 1 in the shared page, and no exit",
        "Linux 6.1.192 and 7.2.13 at least; not 6.12.117",
        "KVM: x86: Request event processing for exception VM-Exits",
        "kvm_inject_page_fault queues the exit and makes no KVM_REQ_EVENT",
    ),
)


def find(feature: str, what: str, observed: str) -> Known | None:
    """The row of what was observed; None if it is not known."""
    return next((row for row in KNOWN if (row.feature, row.what, row.observed) == (feature, what, observed)), None)
