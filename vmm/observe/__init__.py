# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking at a machine without changing it: post-mortems, host measurements, traces."""
