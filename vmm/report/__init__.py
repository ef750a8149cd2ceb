# SPDX-License-Identifier: GPL-2.0-or-later
"""Outcomes as text and as documents for programs. Values in, text out; nothing here runs a guest or prints."""
