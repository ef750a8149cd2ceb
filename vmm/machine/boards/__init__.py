# SPDX-License-Identifier: GPL-2.0-or-later
"""Which hardware a machine has beside its CPUs and memory: `own` is pyvmm's, `pc` what an operating system expects."""
