# SPDX-License-Identifier: GPL-2.0-or-later
"""What each part of the screen says: functions from a Scene to lines. They know no terminal, and change nothing."""
