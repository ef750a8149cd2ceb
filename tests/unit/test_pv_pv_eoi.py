# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict on PV_EOI, on made-up evidence: every kind of host must be told from every other by its numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from guest_payloads.pv import pv_eoi
from guest_payloads.pv.pv_eoi import WORD, Evidence, Run, judge
from vmm.payload.proof.verdict import Verdict

# A host whose LAPIC is KVM's own: the first interrupt blocks the second until EOI, and the bit shows.
HARDWARE = Run(
    sent=128, bit_off=0, isr=1, isr_host=1, unended=1, ended=2, readback=WORD | 1, delivered=128, taken=125,
    after=((1, 0),) * 8,
)  # fmt: skip
# The same with APICv: interrupts are held, and the CPU ends them.
APICV = replace(HARDWARE, taken=0, after=((0, 0),) * 8)
# A host that holds nothing in service.
HOLDS_NOTHING = replace(APICV, isr=0, isr_host=0, unended=2)


def test_works():
    finding = judge(Evidence(HARDWARE, apicv=False))
    assert finding.verdict is Verdict.WORKS, finding
    assert finding.line.startswith("125 of 128")


def test_works_once_apicv_is_inhibited():
    finding = judge(Evidence(APICV, inhibited=HARDWARE, apicv=True))
    assert finding.verdict is Verdict.WORKS
    assert "inhibited" in finding.line


def test_inert_because_nothing_is_held_in_service():
    for apicv in (None, True, False):
        finding = judge(Evidence(HOLDS_NOTHING, apicv=apicv))
        assert finding.verdict is Verdict.INERT
        assert "never holds an interrupt in service" in finding.reason
        assert "APICv" not in finding.reason


def test_inert_because_of_apicv():
    finding = judge(Evidence(APICV, inhibited=APICV, apicv=True))
    assert finding.verdict is Verdict.INERT
    assert "APICv or AVIC is on" in finding.reason


def test_unproven_where_apicv_cannot_be_asked():
    assert judge(Evidence(APICV, inhibited=APICV, apicv=None)).verdict is Verdict.UNPROVEN


def test_broken_where_interrupts_are_held_and_no_apicv_explains_it():
    assert judge(Evidence(APICV, inhibited=APICV, apicv=False)).verdict is Verdict.BROKEN


@pytest.mark.parametrize(("isr", "isr_host", "unended"), [(1, 0, 2), (0, 1, 2), (0, 0, 1)])
def test_half_of_the_signs_are_not_a_lapic_that_holds_nothing(isr, isr_host, unended):
    run = replace(HOLDS_NOTHING, isr=isr, isr_host=isr_host, unended=unended)
    finding = judge(Evidence(run, apicv=False))
    assert finding.verdict is Verdict.BROKEN


@pytest.mark.parametrize("taken", [1, 63, 128])
def test_one_shown_is_enough_and_none_shown_is_not(taken):
    """A busy host's exits take the bit back before most handlers come to it."""
    rarely = replace(HARDWARE, taken=taken, after=((0, 0),) * 100 + ((1, 0),))
    finding = judge(Evidence(rarely, apicv=False))
    assert finding.verdict is Verdict.WORKS
    assert finding.evidence["ISR after a handler (bit taken, ISR)"] == "0, 0: 100x; 1, 0: 1x"
    finding = judge(Evidence(replace(rarely, after=((0, 0),) * 100), apicv=False))
    assert finding.verdict is Verdict.UNPROVEN
    assert str(taken) in finding.reason


@pytest.mark.parametrize("run", [HARDWARE, HOLDS_NOTHING, APICV])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"bit_off": 1}, "feature was off"),
        ({"ended": 1}, "1 of 2"),
        ({"readback": 0}, "reads 0x0"),
        ({"delivered": 1}, "did not come again"),
        ({"after": ((1, 1), (0, 0))}, "bit was taken"),
        ({"after": ((1, 0), (0, 1))}, "EOI was written"),
    ],
)
def test_broken(run, change, reason):
    finding = judge(Evidence(replace(run, **change), apicv=True))
    assert finding.verdict is Verdict.BROKEN
    assert reason in finding.reason


def test_apicv_is_what_the_module_says(tmp_path, monkeypatch):
    intel, amd = tmp_path / "intel", tmp_path / "amd"
    monkeypatch.setattr(pv_eoi, "MODULE_PARAMETERS", (intel, amd))
    assert pv_eoi._apicv() is None
    for text, value in (("1\n", True), ("0\n", False), ("Y\n", True), ("N\n", False)):
        amd.write_text(text)
        assert pv_eoi._apicv() is value
    intel.write_text("Y\n")
    assert pv_eoi._apicv() is True


@pytest.mark.parametrize(("first", "runs"), [(HARDWARE, 1), (HOLDS_NOTHING, 1), (APICV, 2)])
def test_the_apic_id_is_changed_only_where_it_can_help(monkeypatch, first, runs):
    made = []

    def run(lab, **params):
        made.append(params)
        return first if len(made) == 1 else HARDWARE

    class Lab:
        proves = ("PV_EOI",)

        def absent(self, feature):
            return None

    monkeypatch.setattr(pv_eoi, "_run", run)
    pv_eoi.prove(Lab())
    assert made == [{}, {"apic_id": pv_eoi.INHIBITING_ID}][:runs]
