# SPDX-License-Identifier: GPL-2.0-or-later
"""Python helpers that know no fact of KVM: what start-up cannot afford of the standard library, value types, names."""
