# SPDX-License-Identifier: GPL-2.0-or-later
"""The debugger: what a person or gdb does to a machine that stands still. A plain run imports nothing of it."""
