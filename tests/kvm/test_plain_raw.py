# SPDX-License-Identifier: GPL-2.0-or-later
"""Lives of plain machines with guests as machine code, so that `python -m tools.sanitize` can watch their C: an
assembler loads libraries that it cannot live with.
"""

from __future__ import annotations

import pytest

from vmm import Machine, Why

CODES = {
    "halts": (bytes.fromhex("b041 e6e9 f4"), Why.HALT),
    "ends by the exit port": (bytes.fromhex("b041 e6e9 b010 e6f4 f4"), Why.EXIT_PORT),
    "a port that nobody claims": (bytes.fromhex("b041 e6e9 e680 e481 e6e9 f4"), Why.HALT),
    "string output beyond the limit": (bytes.fromhex("bae9000000 b964000000 be00000200 f36e f4"), Why.OUTPUT_LIMIT),
    "no end": (bytes.fromhex("ebfe"), Why.TIME_LIMIT),
    "a fault": (bytes.fromhex("b041 e6e9 0f0b"), Why.GUEST_FAULT),
}


@pytest.mark.parametrize("looks", [False, True])
@pytest.mark.parametrize("name", CODES)
def test_a_life(name: str, looks: bool) -> None:
    code, why = CODES[name]
    for _ in range(3):
        with Machine(console_limit=50) as machine:
            machine.load(code)
            if looks:
                assert machine.cpus
            result = machine.run(timeout=0.1)
            assert result.stop.why is why
            assert result.recent or why is Why.TIME_LIMIT
            machine.run(timeout=0.02)
            assert machine.regs.rip
        assert machine.vm.closed


def test_one_whose_console_looks() -> None:
    seen: list[int] = []
    with Machine(live=lambda data: seen.append(machine.regs.rip)) as machine:
        machine.load(CODES["halts"][0])
        assert machine.run(timeout=1).stop.why is Why.HALT
    assert len(seen) == 1
