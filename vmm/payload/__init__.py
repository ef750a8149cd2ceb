# SPDX-License-Identifier: GPL-2.0-or-later
"""Payloads: a guest's source with its header, its host half, and how the pair is run to an outcome."""
