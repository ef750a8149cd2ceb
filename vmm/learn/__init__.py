# SPDX-License-Identifier: GPL-2.0-or-later
"""The course of `pyvmm learn`: twelve lessons, each a guest with a hole, and the check that runs a student's guest."""
