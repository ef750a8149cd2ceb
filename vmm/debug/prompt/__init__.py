# SPDX-License-Identifier: GPL-2.0-or-later
"""The prompt of `--pyvmm-debug`: a loop, commands that look, commands that move."""
