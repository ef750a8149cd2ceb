# SPDX-License-Identifier: GPL-2.0-or-later
"""kvm-unit-tests without QEMU: a unittests.cfg read, its images run on the `testdev` board, their verdicts told."""
