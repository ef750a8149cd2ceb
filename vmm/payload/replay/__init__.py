# SPDX-License-Identifier: GPL-2.0-or-later
"""A run told as records, and handled again without a device."""
