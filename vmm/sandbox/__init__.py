# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that can touch nothing else: what it keeps (calls.py, files.py), how it gives up the rest (enter.py), and
work that is done in a child of that kind (child.py). A run that asks for none of it imports nothing of this floor.
"""
