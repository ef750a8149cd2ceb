# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be fuzzed, a module for each subject; catalog.py has them by name."""
