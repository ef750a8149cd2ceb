# SPDX-License-Identifier: GPL-2.0-or-later
"""What pyvmm costs beside a C program that makes the same calls. It measures; it prints nothing."""
