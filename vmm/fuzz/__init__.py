# SPDX-License-Identifier: GPL-2.0-or-later
"""Inputs by the thousand for one target at a time: pyvmm's own devices and readers, or a user's guest."""
