# SPDX-License-Identifier: GPL-2.0-or-later
"""The gdb remote protocol over a Session. Source of the protocol: the gdb manual, appendix E, "gdb Remote Serial
Protocol"."""
