# SPDX-License-Identifier: GPL-2.0-or-later
"""The breadth of the KVM API, one lesson a topic."""
