# SPDX-License-Identifier: GPL-2.0-or-later
"""What `--ci` means, for every command that has it: annotations for the runner, and 77 where KVM cannot be used.

77 is the exit status of a skipped test for automake and for kvm-unit-tests. PYVMM_REQUIRE_KVM=1 says that this machine
should have KVM, and then it is an error (99) as without --ci.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from vmm.errors import EXIT_CANNOT_SHOW, EXIT_HOST

if TYPE_CHECKING:
    from vmm.host.unusable import Unusable


def required() -> bool:
    """Must KVM be usable here?"""
    return os.environ.get("PYVMM_REQUIRE_KVM") == "1"


def annotate(found: Iterable[tuple[str, str, str]]) -> None:
    """Write (level, title, message) as annotations to standard error: the runner reads both streams, and standard
    output may be on its way into the step's summary.
    """
    from vmm.report.annotations import annotation

    if sys.stderr is not None:
        for level, title, message in found:
            print(annotation(level, title, message), file=sys.stderr)
        sys.stderr.flush()


def cannot_use(found: Unusable) -> int:
    """Say that KVM cannot be used, with what to try; the exit status."""
    annotate([("error" if required() else "warning", "KVM cannot be used here", found.one_line)])
    return EXIT_HOST if required() else EXIT_CANNOT_SHOW
