# SPDX-License-Identifier: GPL-2.0-or-later
"""irqfd on this host: messages, routes, eventfds, resample; and each of them taken away."""

from __future__ import annotations

from guest_payloads.api import irqfd
from vmm.kvm.events import VmEvents
from vmm.kvm.vm import Vm
from vmm.payload.catalog import find
from vmm.payload.options import Options
from vmm.payload.proof.prove import prove
from vmm.payload.proof.verdict import Verdict


def verdicts(**options):
    return {row.name: row.verdict for row in prove(find("irqfd"), Options(**options))}


def test_works():
    rows = prove(find("irqfd"))
    assert [row.verdict for row in rows] == [Verdict.WORKS] * 4, [row.finding.reason for row in rows]


def test_without_resample_that_row_alone_is_absent():
    found = verdicts(params={"resample": 0})
    assert found.pop("irqfd_resample") is Verdict.ABSENT
    assert set(found.values()) == {Verdict.WORKS}


def test_eventfds_that_are_not_bound_are_broken(monkeypatch):
    monkeypatch.setattr(VmEvents, "irqfd", lambda vm, fd, gsi, **more: None)
    found = verdicts(timeout=0.5)
    assert found["irqfd"] is found["irqfd_resample"] is Verdict.BROKEN


def test_without_a_resample_eventfd_the_device_hears_nothing(monkeypatch):
    bind = VmEvents.irqfd

    def without(vm, fd, gsi, *, resamplefd=None, deassign=False):
        bind(vm, fd, gsi, deassign=deassign)

    monkeypatch.setattr(VmEvents, "irqfd", without)
    monkeypatch.setattr(irqfd, "PATIENCE", 1.0)
    assert verdicts(timeout=3)["irqfd_resample"] is Verdict.BROKEN


def test_an_eventfd_that_stays_bound_is_broken(monkeypatch):
    bind = VmEvents.irqfd

    def never(vm, fd, gsi, *, resamplefd=None, deassign=False):
        if not deassign:
            bind(vm, fd, gsi, resamplefd=resamplefd)

    monkeypatch.setattr(VmEvents, "irqfd", never)
    assert verdicts()["irqfd"] is Verdict.BROKEN


def test_routes_that_stay_are_broken(monkeypatch):
    route = VmEvents.change_gsi_routing

    def once(vm, add, *, remove=()):
        if not any(each.gsi == 40 for each in vm.routes):
            route(vm, add)

    monkeypatch.setattr(VmEvents, "change_gsi_routing", once)
    assert verdicts(timeout=0.5)["gsi_routing"] is Verdict.BROKEN


def test_a_message_that_is_not_sent_is_broken(monkeypatch):
    monkeypatch.setattr(Vm, "signal_msi", lambda vm, address, data: 1)
    found = verdicts()
    assert found.pop("msi") is Verdict.BROKEN
    assert set(found.values()) == {Verdict.WORKS}
