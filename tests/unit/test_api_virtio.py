# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdicts on the virtio devices, from evidence alone: what works, and each way in which it does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.api import virtio_blk, virtio_console, virtio_hostile, virtio_net, virtio_rng
from vmm.abi import virtio
from vmm.payload.proof.verdict import Verdict
from vmm.payload.proof.virtio_drivers import AGREED, RUNNING, Driver

OFFERED = 1 << 32 | 1 << 28


def driver(device_id: int, kicks: int, interrupts: int) -> Driver:
    return Driver(device_id, OFFERED, AGREED, RUNNING, 1, 0, True, kicks, 0, interrupts)


DATA = bytes(range(160))
GOOD = {
    virtio_rng: virtio_rng.Evidence(driver(4, 3, 1), virtio.MAGIC, 2, (64, 64, 32), 1, DATA, DATA),
    virtio_console: virtio_console.Evidence(
        driver(3, 3, 2), (virtio_console.HELLO, virtio_console.ECHO), 2, (80, 132), 10, 0, 3
    ),
    virtio_blk: virtio_blk.Evidence(
        driver(2, 8, 7), 8, virtio_blk.STATUSES, 513, b"1" * 512, b"pyvmm", virtio_blk.AFTER + b"xyz", 1
    ),
}
GOOD[virtio_net] = virtio_net.Evidence(
    driver(1, 7, 5), virtio_net.HEARD, dict(virtio_net.COUNTS), virtio_net.right_results()
)
MODULES = pytest.mark.parametrize("module", GOOD, ids=lambda module: module.__name__.rpartition(".")[2])


@MODULES
def test_works(module):
    finding = module.judge(GOOD[module])
    assert (finding.verdict, finding.reason) == (Verdict.WORKS, "")
    assert finding.summary
    assert finding.evidence["kicks by ioeventfd"] == module.KICKS


@MODULES
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": 99}, "id is 99"),
        ({"offered": 1 << 28}, "without VIRTIO_F_VERSION_1"),
        ({"status": 3, "status_end": None}, "after the driver said FEATURES_OK"),
        ({"status_end": RUNNING | 0x40, "trouble": "a chain in a circle"}, "a chain in a circle"),
        ({"status_end": RUNNING | 0x40}, "at the end"),
        ({"by_event": 0, "by_exit": 3}, "by exit"),
        ({"by_event": 2}, "2 kicks came"),
        ({"interrupts": 9}, "sent 9 interrupts"),
        ({"woken": 0}, "0 interrupts came for the first"),
        ({"woken": 2}, "2 interrupts came for the first"),
        ({"quiet": 1}, "while callbacks were off"),
    ],
)
def test_a_driver_that_met_something_wrong(module, change, words):
    good = GOOD[module]
    finding = module.judge(replace(good, driver=replace(good.driver, **change)))
    assert finding.verdict is Verdict.BROKEN
    assert words in finding.reason


@pytest.mark.parametrize(
    ("module", "change"),
    [
        (virtio_rng, {"magic": 0xFFFFFFFF}),
        (virtio_rng, {"version": 1}),
        (virtio_rng, {"lengths": (64, 48, 32)}),
        (virtio_rng, {"raced": 0}),
        (virtio_rng, {"found": bytes(160)}),
        (virtio_rng, {"given": b"", "found": b""}),
        (virtio_console, {"queues": 1}),
        (virtio_console, {"heard": (virtio_console.HELLO,)}),
        (virtio_console, {"heard": (virtio_console.HELLO, b"echo: host: no\n")}),
        (virtio_console, {"received": 9}),
        (virtio_console, {"echoed": 1}),
        (virtio_console, {"widths": (80, 80)}),
        (virtio_console, {"causes": 1}),
        (virtio_blk, {"capacity": 9}),
        (virtio_blk, {"statuses": (*virtio_blk.STATUSES[:-1], 0)}),
        (virtio_blk, {"statuses": virtio_blk.READONLY}),
        (virtio_blk, {"length": 512}),
        (virtio_blk, {"sector": b"2" * 512}),
        (virtio_blk, {"file": virtio_blk.BEFORE + b"xyz"}),
        (virtio_blk, {"file": virtio_blk.AFTER}),
        (virtio_blk, {"file": virtio_blk.WRITTEN + virtio_blk.BEFORE[4 * 512 :] + b"xyz"}),
        (virtio_blk, {"name": b""}),
        (virtio_blk, {"flushes": 0}),
        (virtio_net, {"heard": virtio_net.HEARD[1:]}),
        (virtio_net, {"heard": ("ARP request", "echo request with a wrong checksum", "L", "P")}),
        *((virtio_net, {"results": virtio_net.right_results() | {name: 9}}) for name in virtio_net.right_results()),
        *((virtio_net, {"counts": virtio_net.COUNTS | {name: 99}}) for name in virtio_net.COUNTS),
        (virtio_net, {"results": {}}),
        (virtio_net, {"counts": {}}),
    ],
)
def test_a_device_that_did_something_else(module, change):
    assert module.judge(replace(GOOD[module], **change)).verdict is Verdict.BROKEN


def outcome(index: int, honest: int) -> virtio_hostile.Came:
    early = index in virtio_hostile.BEFORE_RUNNING
    return virtio_hostile.Came(0x4B if early else 0x4F, 0 if early else 2, 0, honest)


ATTACKS = len(virtio_hostile.ATTACKS)
TARGETS = tuple(virtio_hostile.TARGETS)
HOSTILE = virtio_hostile.Evidence(
    came=tuple(tuple(outcome(i, honest) for i in range(ATTACKS)) for honest in virtio_hostile.TARGETS.values()),
    troubles=tuple(tuple(f"{name}: {words}" for words in virtio_hostile.ATTACKS.values()) for name in TARGETS),
    changed=0,
    by_event=35 * len(TARGETS),
    by_exit=0,
    sent=ATTACKS,
    said=ATTACKS,
    answer=0,
)


def test_hostile_works():
    finding = virtio_hostile.judge(HOSTILE)
    assert (finding.verdict, finding.reason) == (Verdict.WORKS, "")
    assert len(finding.evidence) == ATTACKS * len(TARGETS) + 1


@pytest.mark.parametrize("target", range(len(TARGETS)), ids=TARGETS)
@pytest.mark.parametrize(
    ("index", "change", "words"),
    [
        (0, {"status": 0xF, "causes": 1, "used": 1}, "a chain in a circle: status 0xf"),
        (3, {"used": 1}, "1 buffers used"),
        (8, {"causes": 0}, "causes 0x0"),
        (10, {"status": 0xB}, "a size of 7: status 0xb"),
        (19, {"honest": 99}, "an honest request brought 99 bytes"),
    ],
)
def test_an_attack_that_came_to_something_else(target, index, change, words):
    came = [list(each) for each in HOSTILE.came]
    came[target][index] = replace(came[target][index], **change)
    finding = virtio_hostile.judge(replace(HOSTILE, came=tuple(map(tuple, came))))
    assert finding.verdict is Verdict.BROKEN
    assert finding.reason.startswith(f"{TARGETS[target]}: ")
    assert words in finding.reason


@pytest.mark.parametrize(
    "change",
    [
        {"came": HOSTILE.came[1:]},
        {"came": (HOSTILE.came[0][1:], *HOSTILE.came[1:])},
        {"troubles": (("why",), *HOSTILE.troubles[1:])},
        {"troubles": (*HOSTILE.troubles[:-1], HOSTILE.troubles[-1][::-1])},
        {"changed": 1},
        {"by_event": HOSTILE.by_event - 1},
        {"by_event": 0, "by_exit": HOSTILE.by_event},
        {"sent": ATTACKS - 1},
        {"said": ATTACKS + 1},
        {"answer": 1},
        {"answer": 0x5A},
    ],
)
def test_hostile_broken_otherwise(change):
    assert virtio_hostile.judge(replace(HOSTILE, **change)).verdict is Verdict.BROKEN


@pytest.mark.parametrize(
    ("module", "sent", "verdict"),
    [
        (virtio_rng, 0, Verdict.BROKEN),
        (virtio_rng, 2, Verdict.WORKS),
        (virtio_rng, 3, Verdict.BROKEN),
        (virtio_blk, 6, Verdict.BROKEN),
        (virtio_blk, 8, Verdict.WORKS),
        (virtio_blk, 9, Verdict.BROKEN),
        (virtio_console, 3, Verdict.BROKEN),
    ],
)
def test_one_interrupt_may_be_late_where_the_driver_polls_and_turns_callbacks_on(module, sent, verdict):
    good = GOOD[module]
    assert module.judge(replace(good, driver=replace(good.driver, interrupts=sent))).verdict is verdict
