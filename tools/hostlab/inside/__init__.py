# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs inside a host of the lab beyond pyvmm itself; each module is a step's, such as tools.hostlab.inside.user.

They change users, groups, udev's rules and the device node, and do so only where `host.ours` knows the lab's host.
"""
