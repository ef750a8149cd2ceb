# SPDX-License-Identifier: GPL-2.0-or-later
"""Tools of the project's own, which the wheel does not carry."""
