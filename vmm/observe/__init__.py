# SPDX-License-Identifier: GPL-2.0-or-later
"""Looking at a machine without changing it: post-mortems, traces, and what a guest's state means."""
