# SPDX-License-Identifier: GPL-2.0-or-later
"""The facts of SVM and VMX: layout and encodings by the manuals' rules. Exit codes: test_abi_header.py."""

from __future__ import annotations

import pytest

from vmm.abi import svm, vmx


def test_the_fields_of_a_vmcb_do_not_overlap() -> None:
    end = 0
    for field in svm.VMCB.fields:
        assert field.offset >= end, field.name
        end = field.offset + field.size
    assert end <= svm.VMCB.size


def test_segments_lie_where_their_size_says() -> None:
    places = [field.offset for field in svm.VMCB.fields if field.size == svm.VMCB_SEG.size]
    assert len(places) == 7
    assert all(place % svm.VMCB_SEG.size == 0 for place in places)


def test_an_encoding_says_width_and_type() -> None:
    """SDM appendix B: bits 14:13 of an encoding are the width, 11:10 the type; bit 0 is for halves of 64 bits."""
    kinds = {0: "control", 1: "read-only", 2: "guest", 3: "host"}
    for field in vmx.FIELDS:
        kind = kinds[field.value >> 10 & 3]
        starts = {"GUEST_": "guest", "HOST_": "host"}
        said = next((kind for start, kind in starts.items() if field.name.startswith(start)), None)
        assert kind == said if said else kind in ("control", "read-only", "guest"), field
        if field.name.endswith("_SELECTOR"):
            assert field.value >> 13 == 0, field
        if field.name.endswith(("_LIMIT", "_AR_BYTES", "_COUNT")):
            assert field.value >> 13 == 2, field
        if field.name.endswith("_BASE"):
            assert field.value >> 13 == 3, field
        assert not field.value & 1


def test_no_field_twice() -> None:
    assert len({field.value for field in vmx.FIELDS}) == len({field.name for field in vmx.FIELDS}) == len(vmx.FIELDS)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (svm.exit_name(0x72), "SVM_EXIT_CPUID"),
        (svm.exit_name(0x4E), "SVM_EXIT_EXCP_BASE + 14"),
        (svm.exit_name(0x40), "SVM_EXIT_EXCP_BASE + 0"),
        (svm.exit_name(0x3F), "0x3f"),
        (svm.exit_name((1 << 64) - 1), "SVM_EXIT_ERR"),
        (vmx.exit_name(10), "EXIT_REASON_CPUID"),
        (vmx.exit_name(0x80000021), "failed entry: EXIT_REASON_INVALID_STATE"),
        (vmx.exit_name(77), "0x4d"),
    ],
)
def test_an_exit_by_name(name: str, text: str) -> None:
    assert name == text
