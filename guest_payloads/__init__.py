# SPDX-License-Identifier: GPL-2.0-or-later
"""The guests that come with pyvmm: NAME.asm runs in the machine, NAME.py (where there is one) is the host's half."""
