# SPDX-License-Identifier: GPL-2.0-or-later
"""What a network device is plugged into: a tap device, a Unix socket. `words.py` makes one of what a user says."""
