# SPDX-License-Identifier: GPL-2.0-or-later
"""The paravirtual features of KVM, each proven by its effect."""
