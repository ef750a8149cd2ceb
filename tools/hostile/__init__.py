# SPDX-License-Identifier: GPL-2.0-or-later
"""Hostile guest programs by the hundred thousand: `python -m tools.hostile COUNT --seed S`. docs/sandbox.md."""
